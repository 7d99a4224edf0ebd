"""Chains as draws of a posterior, and the diagnostics of their convergence."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.inference import Chains, convergence, map_estimate
from tfp_bnn.inference.convergence import effective_sample_size, rhat
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.predictive import score

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2)).astype(np.float32)
KERNEL, SCALE = "outputs/kernel", "likelihood/log_scale"


def network(likelihood="normal"):
    layer = DenseFlipout(1, use_bias=False, name="outputs")
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], likelihood=likelihood, name="net", seed=0)
    return map_estimate(model)


def states(number=2, samples=5):
    rng = np.random.default_rng(1)
    return {
        KERNEL: rng.normal(size=(number, samples, 2, 1)).astype(np.float32),
        SCALE: rng.normal(size=(number, samples)).astype(np.float32),
    }


# === Draws ===


def test_draws_are_all_states_once_from_one_chain_after_another():
    made = states(number=3, samples=4)
    chains = Chains(network(), made)
    draws = chains.draws(seed=5)
    outputs = [np.asarray(draws(k)(X)) for k in range(draws.num_draws)]
    expected = np.einsum("ni,csio->csno", X, made[KERNEL])
    found = []
    for k, output in enumerate(outputs):
        errors = np.abs(expected[k % 3] - output).max(axis=(1, 2))
        found.append((k % 3, int(errors.argmin())))
        assert errors.min() < 1e-6
    assert len(set(found)) == 12


def test_a_saved_model_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"Markov chains have no SavedModel.*format='onnx'"):
        Chains(network(), states()).export(tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_few_draws_are_spread_over_the_length_of_the_chains():
    """Ten draws of two chains of 1,000 states: all in the first tenth has a probability below 1e-9."""
    made = {KERNEL: np.zeros((2, 1000, 2, 1), np.float32), SCALE: np.tile(np.arange(1000, dtype=np.float32), (2, 1))}
    draws = Chains(network(), made).draws(seed=0)
    assert max(float(draws.likelihood_weights(k)["log_scale"]) for k in range(10)) > 100
    again, other = (Chains(network(), made).draws(seed) for seed in (0, 1))
    first = [[float(d.likelihood_weights(k)["log_scale"]) for k in range(10)] for d in (draws, again, other)]
    assert first[0] == first[1] != first[2]


def test_each_state_has_its_own_learned_noise():
    made = states()
    predictive = Chains(network(), made).posterior_predictive(X, num_samples=100)
    assert score(predictive, np.zeros(len(X)))["aleatoric_std"] == pytest.approx(
        np.sqrt(np.exp(2 * made[SCALE].astype(np.float64)).mean()), rel=1e-5
    )


def test_weights_without_states_are_those_of_the_network():
    made = states()
    point = network()
    chains = Chains(point, {SCALE: made[SCALE]}, name="noise")
    np.testing.assert_allclose(chains.posterior_predictive(X).mean(), point.posterior_predictive(X).mean(), atol=1e-6)
    assert (chains.num_chains, chains.num_samples, chains.name) == (2, 5, "noise")
    assert (chains.input_shape, chains.output_shape) == ((None, 2), (None, 1))


def test_the_network_itself_never_changes():
    point = network()
    before = [np.asarray(variable).copy() for variable in point.variables]
    Chains(point, states()).posterior_predictive(X)
    for variable, value in zip(point.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_plug_in_prediction_is_that_of_the_mean_of_each_chain():
    made = states()
    predictive = Chains(network(), made).plug_in_predictive(X)
    expected = np.einsum("ni,cio->cno", X, made[KERNEL].mean(axis=1))
    np.testing.assert_allclose(predictive.samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: {}, r"`states` are of \[\]; expected weights of the network"),
        (lambda made: {**made, "other/kernel": made[KERNEL]}, "other/kernel"),
        (lambda made: {**made, KERNEL: made[KERNEL][:, :3]}, "must all have the same number of chains"),
        (lambda made: {**made, KERNEL: made[KERNEL][..., 0]}, r"have the shape \(2, 5, 2\); expected \(2, 5, 2, 1\)"),
        (lambda made: {**made, SCALE: np.full_like(made[SCALE], np.nan)}, "10 of 10 values in the states of likelih"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Chains(network(), change(states()))


# === Convergence ===


def test_rhat_and_effective_sample_size_are_those_of_arviz():
    """The numbers are from arviz-stats 0.8.0, `array_stats.rhat` and `ess` with `(a, chain_axis=0, draw_axis=1)`.

    Its sum of autocorrelations ends a pair earlier, which matters for the last two of these short chains.
    """
    rng = np.random.default_rng(7)
    walks = np.cumsum(rng.normal(size=(4, 101, 3)), axis=1) * np.array([0.0, 0.2, 0.05])
    a = walks + rng.standard_t(2, size=(4, 101, 3)) + np.array([0, 0, 1.0]) * np.arange(4)[:, None, None]
    np.testing.assert_allclose(rhat(a), [0.9986521, 1.08363004, 1.24748968], rtol=1e-7)
    np.testing.assert_allclose(effective_sample_size(a)[0], 414.27280101, rtol=1e-7)
    np.testing.assert_allclose(effective_sample_size(a)[1:], [37.17236421, 13.12434366], rtol=0.08)


def test_weights_are_ranked_in_blocks_and_not_for_the_diagnostics(monkeypatch):
    chains = Chains(network(), states(number=3, samples=8))
    whole = chains.convergence(X)
    sizes, halves = [], convergence._halves

    def counted(values):
        sizes.append(values.size)
        return halves(values)

    monkeypatch.setattr(convergence, "_NUMBERS_AT_ONCE", 24)
    monkeypatch.setattr(convergence, "_halves", counted)
    in_blocks = chains.convergence(X)
    assert set(sizes) == {24}
    for name in (KERNEL, SCALE, "predictions"):
        np.testing.assert_allclose(in_blocks.rhat[name], whole.rhat[name], rtol=1e-12)
        np.testing.assert_allclose(in_blocks.ess[name], whole.ess[name], rtol=1e-12)
    assert in_blocks.rhat[SCALE].shape == ()
    sizes.clear()
    assert chains.diagnostics(X) == {"rhat": in_blocks.worst_rhat(), "ess": in_blocks.least_ess()}
    # R-hat and ESS of the predictions alone.
    assert len(sizes) == 2 * len(X)


@pytest.mark.statistical
def test_the_effective_sample_size_of_an_autoregression_is_known():
    """n (1 - r) / (1 + r) for 4 chains of 5,000 steps.

    The estimate has a relative standard error of 4.4 %, seen over 20 seeds; 30 % is 6 of them: below 1e-8.
    """
    rng = np.random.default_rng(0)
    values = np.zeros((4, 5000, 2))
    r, noise = np.array([0.0, 0.8]), rng.normal(size=values.shape)
    for step in range(1, 5000):
        values[:, step] = r * values[:, step - 1] + noise[:, step]
    np.testing.assert_allclose(effective_sample_size(values) / 20_000, (1 - r) / (1 + r), rtol=0.3)


def test_convergence_of_predictions_sees_through_weights_that_were_exchanged():
    """Two hidden units in the opposite order are the same function, and other weights."""
    layers = [DenseFlipout(2, use_bias=False, activation="tanh", name="hidden"), DenseFlipout(1, name="outputs")]
    likelihood = {"name": "normal", "scale": 1.0}
    point = map_estimate(tfp_bnn.VariationalSequential([keras.Input((2,)), *layers], likelihood=likelihood, seed=0))
    rng = np.random.default_rng(0)
    first = rng.normal([[1.0, -1.0], [2.0, 1.0]], 0.1, size=(2, 20, 2, 2)).astype(np.float32)
    last = rng.normal([[2.0], [-1.0]], 0.1, size=(2, 20, 2, 1)).astype(np.float32)
    first[1], last[1] = first[1][..., ::-1], last[1][..., ::-1, :]
    chains = Chains(point, {"hidden/kernel": first, "outputs/kernel": last}, {"log_posterior": np.ones((2, 20))})
    convergence = chains.convergence(X)
    assert convergence.rhat["predictions"].shape == (20, 1)
    assert convergence.worst_rhat() < 1.3
    assert convergence.worst_rhat("hidden/kernel") > 1.5
    assert convergence.least_ess() > 2 * convergence.least_ess("hidden/kernel")
    assert "log_posterior   mean 1" in str(convergence)


def test_what_never_changes_has_no_rhat():
    made = {KERNEL: np.ones((2, 8, 2, 1), np.float32), SCALE: states(samples=8)[SCALE]}
    convergence = Chains(network(), made).convergence(X)
    assert np.isnan(convergence.worst_rhat())
    assert np.isnan(convergence.least_ess(KERNEL))
    assert np.isfinite(convergence.worst_rhat(SCALE))


@pytest.mark.parametrize("number", [2, 3])
def test_chains_that_stand_still_and_disagree_have_an_infinite_rhat(number):
    """Next to weights that mix, too. JSON has no infinity, so `diagnostics` gives a number."""
    still = np.arange(1.0, number + 1, dtype=np.float32)[:, None] * np.ones((number, 8), np.float32)
    chains = Chains(network(), {KERNEL: np.tile(still[..., None, None], (2, 1)), SCALE: states(number, 8)[SCALE]})
    assert chains.convergence(X).worst_rhat() == np.inf
    assert chains.diagnostics(X)["rhat"] == 1e6
    mixed = np.concatenate([still[..., None], states(number, 8)[KERNEL][..., 0]], axis=-1)
    assert rhat(mixed)[0] == np.inf
    assert np.isfinite(rhat(mixed)[1:]).all()


def test_too_few_samples_to_judge_are_refused():
    with pytest.raises(ValueError, match="need at least 4 samples of each chain, but got 3"):
        rhat(np.zeros((2, 3)))


def test_arviz_receives_states_and_statistics():
    pytest.importorskip("arviz_base")
    made = states()
    log_posterior = RNG.normal(size=(2, 5))
    data = Chains(network(), made, {"log_posterior": log_posterior}, way="nuts").to_inference_data()
    np.testing.assert_array_equal(data["posterior"]["outputs.kernel"].values, made[KERNEL])
    np.testing.assert_array_equal(data["sample_stats"]["lp"].values, log_posterior)
    assert data["posterior"].sizes["chain"] == 2
    assert data["posterior"].sizes["draw"] == 5
