"""Training from the posterior of another network, and choosing how far it may leave it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm

import tfp_bnn
from tfp_bnn.core.checks import assert_terms_finite, invalid_arguments_as_value_errors
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions
from tfp_bnn.transfer import Tuner, choose_inflate
from tfp_bnn.transfer.tuning import HEAD_SCALES, INFLATES

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)).astype(np.float32), RNG.integers(0, 3, 20)
TARGETS = RNG.normal(size=(20, 1)).astype(np.float32)


def network(outputs=3, prior="informed", likelihood="categorical", head_prior=None):
    layers = [
        keras.Input((3,)),
        DenseReparameterization(4, activation="tanh", name="body", kernel_prior=prior),
        DenseReparameterization(outputs, name="head", kernel_prior=head_prior or prior),
    ]
    return tfp_bnn.VariationalSequential(layers, likelihood=likelihood, seed=0)


def scattered(model):
    """As if it had been trained."""
    rng = np.random.default_rng(1)
    arrays = weight_distributions(model)
    for name, value in arrays.items():
        spread = name.endswith("scale")
        values = rng.uniform(0.02, 0.2, value.shape) if spread else rng.normal(size=value.shape)
        arrays[name] = values.astype(np.float32)
    assign_weight_distributions(model, arrays)
    return model


def everything(model):
    """All variables of a model, its noise included."""
    return [np.array(variable.numpy()) for variable in [*model.variables, *model.noise_variables.values()]]


def assert_same_bits(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def source():
    """Of another task: two classes."""
    return scattered(network(2, prior="normal"))


@pytest.fixture(scope="module")
def tuner(source):
    """For three classes; its steps are no multiple of those that Keras does at once."""
    return Tuner(source, network(3), ["head"], steps=53, batch_size=8, learning_rate=0.01, seed=3)


@pytest.fixture(scope="module")
def frozen():
    """A tuner of a regression with a frozen body."""
    source = scattered(network(1, prior="normal", likelihood="normal"))
    return Tuner(source, network(1, likelihood="normal"), freeze=["body"], steps=4, batch_size=8)


@pytest.mark.slow
def test_the_same_fit_ends_with_the_same_bits_whatever_was_trained_before(source, tuner):
    before = everything(source)
    keras.utils.set_random_seed(1)
    numbers = tuner.fit(X, Y, 3.0, 1.0)
    first = everything(tuner.target)
    assert int(tuner.target.optimizer.iterations) == 53
    assert tuner.target.num_examples == 20
    tuner.fit(X[:11], Y[:11], 100.0, 0.3)
    assert tuner.target.num_examples == 11
    tuner.target.posterior_predictive(X, num_samples=2)
    tuner.target.evaluate(X, Y, verbose=0)
    keras.utils.set_random_seed(2)
    assert tuner.fit(X, Y, 3.0, 1.0) == numbers
    assert set(numbers) >= {"loss", "nll", "kl", "elbo"}
    # The evaluation above is another stream of noise; all else is as after the first fit.
    assert_same_bits(first, everything(tuner.target))
    assert_same_bits(before, everything(source))


@pytest.mark.slow
def test_the_body_is_informed_and_the_head_has_the_scale_asked_for(source, tuner):
    known = weight_distributions(source)
    for inflate, head_scale in ((2.0, 0.3), (7.0, 3.0)):
        tuner.fit(X, Y, inflate, head_scale)
        found = weight_distributions(tuner.target)
        np.testing.assert_array_equal(found["body/kernel/prior_loc"], known["body/kernel/loc"])
        np.testing.assert_allclose(found["body/kernel/prior_scale"], inflate * known["body/kernel/scale"], rtol=1e-6)
        np.testing.assert_array_equal(found["head/kernel/prior_loc"], np.zeros((4, 3)))
        np.testing.assert_array_equal(found["head/kernel/prior_scale"], np.full((4, 3), head_scale, np.float32))


@pytest.mark.slow
def test_without_a_head_scale_the_head_keeps_its_prior(tuner):
    tuner.fit(X, Y, 2.0)
    np.testing.assert_array_equal(weight_distributions(tuner.target)["head/kernel/prior_scale"], np.ones((4, 3)))


def test_the_start_is_the_posterior_of_the_source_and_the_head_of_the_target(source):
    target = network(3)
    head = weight_distributions(target)
    tuner = Tuner(source, target, ["head"], steps=1)
    for name, value in weight_distributions(tuner.target).items():
        if name.startswith("head/"):
            np.testing.assert_array_equal(value, head[name])
        elif "/prior_" not in name:
            # Scales go through softplus and back.
            np.testing.assert_allclose(value, weight_distributions(source)[name], rtol=1e-6)


@pytest.mark.slow
def test_frozen_layers_keep_their_posterior_while_others_learn(frozen):
    frozen.fit(X, TARGETS, 5.0)
    known, found = weight_distributions(frozen.source), weight_distributions(frozen.target)
    for name in ("body/kernel/loc", "body/bias"):
        np.testing.assert_array_equal(found[name], known[name])
    np.testing.assert_allclose(found["body/kernel/scale"], known["body/kernel/scale"], rtol=1e-6)
    scale = found["body/kernel/scale"]
    frozen.fit(X[::2], TARGETS[::2], 50.0)
    np.testing.assert_array_equal(weight_distributions(frozen.target)["body/kernel/scale"], scale)
    for name in ("head/kernel/loc", "head/kernel/scale", "head/bias", "likelihood/scale"):
        assert (found[name] != known[name]).all(), name


def batches(tuner, x, y, monkeypatch):
    """What a fit would train on."""
    seen = []

    def look(data, **arguments):
        seen.extend((x.numpy(), y.numpy()) for x, y in data)
        assert arguments["steps_per_epoch"] == len(seen)
        return SimpleNamespace(history={})

    with monkeypatch.context() as patch:
        patch.setattr(tuner.target, "fit", look)
        tuner.fit(x, y, 1.0)
    return seen


def test_each_pass_has_every_row_once_in_an_order_of_its_own(source, monkeypatch):
    tuner = Tuner(source, network(3), ["head"], steps=5, batch_size=8, seed=3)
    rows = np.arange(20)
    x = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
    keras.utils.set_random_seed(1)
    first = batches(tuner, x, rows, monkeypatch)
    assert [len(y) for _, y in first] == [8] * 5
    for inputs, targets in first:
        np.testing.assert_array_equal(inputs[:, 0], targets)
    order = np.concatenate([y for _, y in first])
    for half in (order[:20], order[20:]):
        np.testing.assert_array_equal(np.sort(half), rows)
    assert not np.array_equal(order[:20], order[20:])
    keras.utils.set_random_seed(2)
    again = np.concatenate([y for _, y in batches(tuner, x, rows, monkeypatch)])
    np.testing.assert_array_equal(order, again)
    # Fewer rows than a batch: all of them in each step.
    for _, targets in batches(tuner, x[:3], rows[:3], monkeypatch):
        np.testing.assert_array_equal(np.sort(targets), [0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": 0}, "`steps` must be an integer >= 1, but got 0"),
        ({"steps": 1.5}, "`steps` must be an integer"),
        ({"steps": True}, "`steps` must be an integer"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1, but got 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0, but got -1"),
        ({"learning_rate": 0.0}, "`learning_rate` of a Tuner must be a finite number larger than 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` of a Tuner"),
        ({"freeze": ["boddy"]}, "Unknown layer to freeze 'boddy'. Did you mean 'body'?"),
        ({"freeze": "boddy"}, "Unknown layer to freeze 'boddy'"),
        ({"freeze": "head"}, "The layer 'head' is new: frozen, it would never learn"),
        ({"new_layers": ["heed"]}, "Unknown new layer 'heed'. Did you mean 'head'?"),
        ({"new_layers": ()}, "head/kernel has the shape (4, 2) in the source, (4, 3) in the target"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(source, arguments, says):
    target = network(3)
    before = everything(target)
    with pytest.raises(ValueError, match=re.escape(says)):
        Tuner(source, target, **{"new_layers": ["head"], **arguments})
    assert_same_bits(before, everything(target))
    assert all(layer.trainable for layer in target.layers)


def test_a_network_of_frozen_layers_is_refused(source):
    with pytest.raises(ValueError, match=re.escape("All layers are frozen, ['body', 'head']: nothing would learn")):
        Tuner(source, network(2), freeze=["head", "body"])


def test_models_without_a_posterior_are_refused(source):
    with pytest.raises(TypeError, match="Expected a Bayesian model, but got a Sequential"):
        Tuner(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), source)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((X, Y, 0.0), "`inflate` of transfer_posterior must be a finite number larger than 0, but got 0.0"),
        ((X, Y, 1.0, 0.0), "`head_scale` of a Tuner must be a finite number larger than 0, but got 0.0"),
        ((X, Y[:5], 1.0), "a target for each, but got 20 rows and 5 targets"),
        ((X[:0], Y[:0], 1.0), "at least 1 row(s), and a target for each, but got 0 rows"),
    ],
)
def test_bad_arguments_of_a_fit_are_refused(tuner, arguments, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        tuner.fit(*arguments)


def test_a_head_scale_needs_the_prior_informed(source):
    tuner = Tuner(source, network(3, head_prior="normal"), ["head"], steps=1)
    with pytest.raises(ValueError, match=r"head/kernel has the prior Normal\(.*that of the prior 'informed'"):
        tuner.fit(X, Y, 1.0, 0.3)


class Referee:
    """Stands in for a Tuner: records its arguments and returns given scores."""

    def __init__(self, badness, new_layers=("head",)):
        self.badness, self.new_layers, self.target = badness, new_layers, self
        self.fits, self.judged = [], []

    def fit(self, x, y, inflate, head_scale):
        np.testing.assert_array_equal(x[:, 0], np.arange(len(self.labels))[x[:, 0].astype(int)])
        np.testing.assert_array_equal(y, self.labels[x[:, 0].astype(int)])
        self.fits.append((inflate, head_scale, x[:, 0].astype(int)))

    def posterior_predictive(self, x, num_samples, seed):
        rows = x[:, 0].astype(int)
        self.judged.append(rows)

        def log_prob(y):
            np.testing.assert_array_equal(y, self.labels[rows])
            return -self.badness(*self.fits[-1][:2]) - rows

        return SimpleNamespace(log_prob=log_prob)

    def choose(self, labels, **arguments):
        self.labels = np.asarray(labels)
        x = np.repeat(np.arange(len(labels))[:, None], 2, axis=1).astype(np.float32)
        return choose_inflate(self, x, self.labels, **arguments)


def test_every_row_is_held_out_once_and_the_folds_are_alike():
    labels = np.random.default_rng(5).permutation(np.repeat([0, 1, 2], [13, 7, 10]))
    referee = Referee(lambda inflate, scale: 0.0)
    referee.choose(labels, seed=1)
    assert len(referee.judged) == 3 * (len(INFLATES) + len(HEAD_SCALES) - 1)
    for first in range(0, len(referee.judged), 3):
        folds = referee.judged[first : first + 3]
        np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(30))
        counts = np.array([np.bincount(labels[rows], minlength=3) for rows in folds])
        assert (np.ptp(counts, axis=0) <= 1).all()
        assert np.ptp(counts.sum(axis=1)) <= 1
        # The same folds for all candidates, and each is trained on the rest.
        for rows, same, (_, _, trained) in zip(folds, referee.judged[:3], referee.fits[first:], strict=False):
            np.testing.assert_array_equal(rows, same)
            np.testing.assert_array_equal(np.sort([*rows, *trained]), np.arange(30))
    other = Referee(lambda inflate, scale: 0.0)
    other.choose(labels, seed=2)
    assert any(not np.array_equal(a, b) for a, b in zip(referee.judged, other.judged, strict=True))


def test_one_hot_labels_and_real_targets_are_dealt_out_alike():
    one_hot = np.eye(3)[np.random.default_rng(5).permutation(np.repeat([0, 1, 2], 6))]
    referee = Referee(lambda inflate, scale: 0.0)
    referee.choose(one_hot)
    for rows in referee.judged:
        np.testing.assert_array_equal(one_hot[rows].sum(axis=0), [2, 2, 2])
    real = np.random.default_rng(6).normal(size=(30, 1))
    referee = Referee(lambda inflate, scale: 0.0)
    referee.choose(real)
    ranks = np.argsort(np.argsort(real[:, 0]))
    for rows in referee.judged:
        np.testing.assert_array_equal(np.sort(ranks[rows] // 3), np.arange(10))


def test_the_choice_is_the_least_held_out_nll():
    def badness(inflate, scale):
        return abs(np.log(inflate / 10.0)) + abs(scale - 0.3)

    referee = Referee(badness)
    found = referee.choose([0, 1, 0, 1, 0], inflates=(1.0, 10.0, 30.0), head_scales=(1.0, 0.3, 3.0))
    assert (found[0].inflate, found[0].head_scale) == (10.0, 0.3)
    tried = {(fit[0], fit[1]) for fit in referee.fits}
    assert tried == {(1.0, 1.0), (10.0, 1.0), (30.0, 1.0), (10.0, 0.3), (10.0, 3.0)}
    assert [c.nll for c in found] == sorted(c.nll for c in found)
    # The rows 0 to 4 have log-probabilities of minus their number besides.
    for candidate in found:
        assert candidate.nll == pytest.approx(badness(candidate.inflate, candidate.head_scale) + 2.0)


def test_without_new_layers_only_factors_are_tried():
    referee = Referee(lambda inflate, scale: -inflate, new_layers=())
    found = referee.choose([0, 1, 0], inflates=(2, 5))
    assert [(c.inflate, c.head_scale) for c in found] == [(5.0, None), (2.0, None)]
    assert all(head_scale is None for _, head_scale, _ in referee.fits)


def test_two_rows_are_enough():
    referee = Referee(lambda inflate, scale: 0.0)
    referee.choose([1, 0], inflates=[1.0], head_scales=[1.0])
    assert [list(rows) for rows in referee.judged] in ([[0], [1]], [[1], [0]])


@pytest.mark.parametrize(
    ("labels", "arguments", "says"),
    [
        ([0], {}, "Cross-validation needs at least 2 row(s), and a target for each, but got 1 rows"),
        ([0, 1], {"folds": 1}, "`folds` must be an integer >= 2, but got 1"),
        ([0, 1], {"folds": 2.5}, "`folds` must be an integer >= 2, but got 2.5"),
        ([0, 1], {"inflates": (1.0, 0.0)}, "`inflates` of choose_inflate must be a finite number larger than 0"),
        ([0, 1], {"head_scales": (-1.0,)}, "`head_scales` of choose_inflate must be a finite number larger than 0"),
        ([0, 1], {"inflates": ()}, "`inflates` is empty"),
        ([0, 1], {"head_scales": ()}, "`head_scales` is empty"),
    ],
)
def test_bad_arguments_of_a_choice_are_refused_before_training(labels, arguments, says):
    referee = Referee(lambda inflate, scale: 0.0)
    with pytest.raises(ValueError, match=re.escape(says)):
        referee.choose(labels, **arguments)
    assert not referee.fits


def test_the_nll_is_that_of_the_predictive_of_the_rows_held_out(frozen, monkeypatch):
    held_out = []
    fit = type(frozen).fit

    def noted(tuner, x, y, inflate, head_scale=None):
        held_out.append(~np.isin(TARGETS[:, 0], y[:, 0]))
        return fit(tuner, x, y, inflate, head_scale)

    with monkeypatch.context() as patch:
        patch.setattr(type(frozen), "fit", noted)
        found = choose_inflate(frozen, X, TARGETS, (1.0, 30.0), folds=2, seed=4)
    nll = {candidate.inflate: candidate.nll for candidate in found}
    assert len(held_out) == 4
    total = 0.0
    for rows in held_out[2:]:
        frozen.fit(X[~rows], TARGETS[~rows], 30.0)
        means = frozen.target.posterior_predictive(X[rows], 20, seed=4).samples[..., 0].astype(np.float64)
        scale = float(weight_distributions(frozen.target)["likelihood/scale"])
        terms = norm.logpdf(TARGETS[rows][:, 0], means, scale)
        total -= (logsumexp(terms, axis=0) - np.log(20)).sum()
    assert nll[30.0] == pytest.approx(total / 20, rel=1e-5)
    assert nll[1.0] != pytest.approx(nll[30.0], rel=1e-5)


def test_a_candidate_that_diverges_is_not_chosen_and_only_all_of_them_are_an_error(source, monkeypatch):
    tuner = Tuner(source, network(3), ["head"], steps=2, seed=0)
    fit = Tuner.fit
    bad = {10.0}

    def diverging(self, x, y, inflate, head_scale=None):
        if inflate in bad:
            with invalid_arguments_as_value_errors():
                assert_terms_finite(tf.constant(np.nan), tf.constant(0.0))
        return fit(self, x, y, inflate, head_scale)

    monkeypatch.setattr(Tuner, "fit", diverging)
    found = choose_inflate(tuner, X, Y, inflates=(10.0, 1.0), head_scales=(1.0,), folds=2)
    assert [(one.inflate, np.isfinite(one.nll)) for one in found] == [(1.0, True), (10.0, False)]
    bad.add(1.0)
    with pytest.raises(ValueError, match="negative log-likelihood of a training step is NaN"):
        choose_inflate(tuner, X, Y, inflates=(10.0, 1.0), head_scales=(1.0,), folds=2)
