"""Posteriors beside their networks: settings and arrays rebuild the same posterior, and hostile ones are refused."""

from __future__ import annotations

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import safetensors.numpy

import tfp_bnn
from tfp_bnn.inference import Chains, Ensemble, SwagIterates, laplace, mean_field, swag
from tfp_bnn.inference.ways import STORED_POSTERIORS, meaning_of
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.weight_record import WeightRecord, trainable_values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)
PRIOR = {"name": "normal", "scale": 0.5}


def network(seed=0):
    keras.utils.set_random_seed(seed)
    arguments = {"kernel_prior": PRIOR, "kernel_posterior": "delta"}
    hidden = DenseFlipout(4, activation="tanh", name="hidden", **arguments)
    # The Kronecker structure needs the graph of a functional model.
    x = keras.Input((3,))
    outputs = DenseFlipout(2, name="outputs", **arguments)(hidden(x))
    model = tfp_bnn.VariationalModel(x, outputs, seed=seed, name=f"net_{seed}")
    model.num_examples = len(X)
    return model


def of_swag():
    model, iterates = network(), SwagIterates(rank=3)
    iterates.set_model(model)
    for _ in range(4):
        for variable in trainable_values(model).values():
            variable.assign_add(RNG.normal(scale=0.1, size=variable.shape))
        iterates.collect()
    return swag(model, iterates)


def of_chains():
    model = network()
    states = {
        name: RNG.normal(size=(2, 5, *variable.shape)).astype(np.float32)
        for name, variable in trainable_values(model).items()
    }
    statistics = {"log_posterior": RNG.normal(size=(2, 5)), "diverging": np.zeros((2, 5), bool)}
    return Chains(model, states, statistics, "nuts")


MADE = {
    "swag": of_swag,
    "laplace_full": lambda: laplace(network(), X, LABELS, layers="all"),
    "laplace_kronecker": lambda: laplace(network(), X, LABELS, structure="kronecker", prior_precision=3.0),
    "laplace_diagonal": lambda: laplace(network(), X, LABELS, structure="diagonal", linearized=False),
    "chains": of_chains,
    "ensemble": lambda: Ensemble([network(0), network(1)]),
}
_found: dict[str, object] = {}


def made(name):
    if name not in _found:
        _found[name] = MADE[name]()
    return _found[name]


def rebuilt(model, settings=None, arrays=None):
    """A posterior of the same weights, settings and arrays, as read from files."""
    networks = [network(7) for _ in model.networks]
    for again, original in zip(networks, model.networks, strict=True):
        WeightRecord.of(original).assign_to(again)
    stored = safetensors.numpy.load(safetensors.numpy.save(dict(model.arrays() if arrays is None else arrays)))
    settings = json.loads(json.dumps(model.settings() if settings is None else settings, allow_nan=False))
    assert type(model).num_networks(settings) in (None, len(networks))
    return STORED_POSTERIORS[model.way].from_arrays(networks, model.way, settings, stored, "again")


@pytest.mark.parametrize("name", MADE)
def test_settings_and_arrays_rebuild_the_same_posterior(name):
    model = made(name)
    again = rebuilt(model)
    assert type(again) is type(model)
    assert (again.way, again.name) == (model.way, "again")
    first, second = (m.posterior_predictive(X, num_samples=6, seed=3).samples for m in (model, again))
    np.testing.assert_array_equal(first, second)
    plug_in = [m.plug_in_predictive(X).samples for m in (model, again)]
    np.testing.assert_array_equal(*plug_in)
    assert again.settings() == model.settings()
    assert again.diagnostics(X[:5]) == model.diagnostics(X[:5])
    for key, array in again.arrays().items():
        np.testing.assert_array_equal(array, model.arrays()[key])


@pytest.mark.parametrize("name", ["swag", "laplace_full", "ensemble"])
def test_a_copy_has_the_same_draws_and_networks_of_its_own(name):
    model = made(name)
    model.calibration, model.class_names = {"name": "temperature", "temperature": 2.0}, ["a", "b"]
    again = copy.deepcopy(model)
    model.calibration = model.class_names = None
    assert not set(map(id, model.networks)) & set(map(id, again.networks))
    assert (again.calibration.temperature, again.class_names, again.name) == (2.0, ("a", "b"), model.name)
    first, second = (m.posterior_predictive(X, num_samples=6, calibrated=False).samples for m in (model, again))
    np.testing.assert_array_equal(first, second)


def test_a_pickled_posterior_has_the_same_draws_and_loses_its_calibration_by_training():
    frozen = network()
    for layer in frozen.variational_layers:
        layer.bias.trainable = False
    model = mean_field(frozen, X, LABELS, num_steps=2, verbose=0)
    model.calibration = {"name": "temperature", "temperature": 2.0}
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(*(m.posterior_predictive(X, num_samples=6).samples for m in (model, again)))
    np.testing.assert_array_equal(again.bounds, model.bounds)
    again.network.compile("adam")
    with pytest.warns(UserWarning, match="was calibrated"):
        again.network.fit(X, LABELS, verbose=0)
    assert again.calibration is None


@pytest.mark.parametrize(("setting", "value"), [("prior_precision", 3.0), ("linearized", False)])
def test_a_posterior_with_another_setting_loses_its_calibration(setting, value):
    model = copy.copy(made("laplace_full"))
    model.calibration, kept = {"name": "temperature", "temperature": 2.0}, getattr(model, setting)
    setattr(model, setting, kept)
    assert model.calibration is not None
    with pytest.warns(UserWarning, match=f"was calibrated.* but an?.* `{setting}` changes the posterior"):
        setattr(model, setting, value)
    assert model.calibration is None


def known_of(model):
    return model.class_names, model.target_units, model.inputs_expected


def test_what_the_network_knows_of_its_data_is_taken_over():
    model = network()
    model.class_names, model.inputs_expected = ["a", "b"], tfp_bnn.ExpectedInputs.of(X)
    posteriors = [
        laplace(model, X, LABELS, prior_precision=1.0),
        Ensemble([model]),
        Chains(model, made("chains").states),
    ]
    assert [known_of(posterior) for posterior in posteriors] == [known_of(model)] * 3
    with pytest.warns(tfp_bnn.UnlikelyInputsWarning):
        predictive = posteriors[0].closed_form_predictive(1e6 * X)
    assert predictive.class_names == ("a", "b")


def test_the_closed_form_and_the_evidence_of_laplace_are_rebuilt():
    for name in ("laplace_full", "laplace_kronecker", "laplace_diagonal"):
        model, again = made(name), rebuilt(made(name))
        assert again.log_marginal_likelihood == model.log_marginal_likelihood
        np.testing.assert_array_equal(*(m.closed_form_predictive(X[:4]).samples for m in (model, again)))


def test_what_a_way_says_of_itself():
    assert set(made("chains").diagnostics(X[:5])) == {"rhat", "ess"}
    assert set(made("laplace_full").diagnostics(X)) == {"log_marginal_likelihood", "prior_precision"}
    assert made("swag").diagnostics(X) == network().diagnostics(X) == {}
    short = {name: array[:, :3] for name, array in made("chains").states.items()}
    assert Chains(network(), short).diagnostics(X) == {}
    assert meaning_of(made("swag")).kl == ""
    assert "not found by minimizing" in meaning_of(made("chains")).reason
    assert "points" in meaning_of(network()).reason


# === Refusals ===


def changed(arrays, name, change):
    return {**arrays, name: change(arrays[name].copy())}


def spoiled(value):
    def change(array):
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "array", "change", "message"),
    [
        ("swag", "factor", lambda a: a[:, :2], r"'factor' has shape \(26, 2\) and dtype float32; expected \(26, 3\)"),
        ("swag", "mean", lambda a: a.astype(np.float64), "'mean' has shape .* dtype float64; expected .* float32"),
        ("swag", "scale", spoiled(np.nan), "'scale' has 1 values that are NaN or infinite, of 26"),
        ("swag", "scale", spoiled(-1.0), "'scale' has negative values"),
        ("laplace_full", "eigenvectors", spoiled(9.0), "columns that are not orthonormal"),
        ("laplace_full", "eigenvalues", spoiled(-1.0), "'eigenvalues' has values below 0"),
        ("laplace_full", "prior_scale", spoiled(0.0), "'prior_scale' has values that are not above 0"),
        ("laplace_kronecker", "inputs/eigenvectors", lambda a: a[:3, :3], r"has shape \(3, 3\) .* expected \(5, 5\)"),
        ("laplace_diagonal", "prior_loc", spoiled(np.inf), "'prior_loc' has 1 values that are NaN or infinite"),
        ("chains", "states/hidden/kernel", lambda a: a[:, :4], r"hidden/kernel has shape \(2, 4, 3, 4\); expected"),
        ("chains", "states/hidden/kernel", lambda a: a[..., :3], r"hidden/kernel have the shape \(2, 5, 3, 3\)"),
        ("chains", "states/hidden/kernel", lambda a: a.astype(np.float64), "has dtype float64; expected float32"),
        ("chains", "states/hidden/kernel", spoiled(np.nan), "1 of 120 values in the states of hidden/kernel are NaN"),
        ("chains", "statistics/diverging", lambda a: a[:, :, None], r"diverging has shape \(2, 5, 1\); expected"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, array, change, message):
    model = made(name)
    with pytest.raises(ValueError, match=message):
        rebuilt(model, arrays=changed(model.arrays(), array, change))


@pytest.mark.parametrize("name", ["swag", "laplace_full", "laplace_kronecker", "laplace_diagonal", "ensemble"])
def test_missing_and_unexpected_arrays_are_refused(name):
    model = made(name)
    with pytest.raises(ValueError, match=r"unexpected \['more'\]"):
        rebuilt(model, arrays={**model.arrays(), "more": np.zeros(1)})
    for missing in list(model.arrays())[:1]:
        with pytest.raises(ValueError, match=f"missing \\['{missing}'\\]"):
            rebuilt(model, arrays={key: value for key, value in model.arrays().items() if key != missing})


def test_states_of_other_weights_and_other_arrays_are_refused():
    model = made("chains")
    states = model.arrays()
    with pytest.raises(ValueError, match="`states` are of"):
        rebuilt(model, arrays={**states, "states/other/kernel": np.zeros((2, 5, 1), np.float32)})
    with pytest.raises(ValueError, match="must be called states/<weight> or statistics/<name>"):
        rebuilt(model, arrays={**states, "more": np.zeros((2, 5))})
    with pytest.raises(ValueError, match="at most 20 of the latter"):
        rebuilt(model, arrays={**states, **{f"statistics/{k}": np.zeros((2, 5)) for k in range(20)}})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("swag", {"rank": 10**9}, "'rank' must be an integer from 2 to 1000000, but is 1000000000"),
        ("swag", {"num_iterates": None}, "'num_iterates' must be an integer from 2"),
        ("laplace_full", {"weights": ["hidden/kernel", "hidden/kernel"]}, "'weights' must be names of the weights"),
        ("laplace_full", {"weights": ["else/kernel"]}, "'weights' must be names of the weights"),
        ("laplace_full", {"weights": [["hidden/kernel"]]}, "'weights' must be names of the weights"),
        ("laplace_full", {"weights": "hidden/kernel"}, "'weights' must be names of the weights"),
        ("laplace_full", {"weights": ["hidden/kernel"]}, "has shape .*; expected"),
        ("laplace_full", {"structure": ["full"]}, "'structure' must be one of full, kronecker, diagonal"),
        ("laplace_full", {"structure": "kronecker"}, "The arrays do not fit the posterior"),
        ("laplace_full", {"linearized": 1}, "Expected 'linearized', true or false"),
        ("laplace_full", {"prior_precision": 0.0}, "'prior_precision', a number above 0"),
        ("laplace_full", {"log_likelihood": "0"}, "'log_likelihood', a number"),
        ("chains", {"chains": 0}, "'chains' must be an integer from 1 to 10000, but is 0"),
        ("chains", {"samples": True}, "'samples' must be an integer from 1"),
        ("ensemble", {"members": 101}, "'members' must be an integer from 1 to 100, but is 101"),
        ("ensemble", {"draws_per_member": 10**9}, "'draws_per_member' must be an integer from 1 to 10000"),
    ],
)
def test_settings_out_of_range_are_refused(name, change, message):
    model = made(name)
    with pytest.raises(ValueError, match=message):
        rebuilt(model, settings={**model.settings(), **change})


def test_a_network_that_is_not_of_points_is_refused():
    layer = DenseFlipout(2, name="outputs")
    random = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], name="random")
    for name in ("swag", "laplace_full"):
        model = made(name)
        with pytest.raises(ValueError, match="starts from one set of weights"):
            type(model).from_arrays([random], model.way, model.settings(), model.arrays(), "again")


@pytest.mark.parametrize("way", ["swag", "mean_field"])
def test_a_frozen_layer_is_no_part_of_a_stored_posterior(way):
    """The network of an artifact is made from its config, in which every layer is trainable."""
    model = network()
    model.variational_layers[0].trainable = False
    if way == "swag":
        iterates = SwagIterates(rank=2)
        iterates.set_model(model)
        for _ in range(3):
            for variable in trainable_values(model).values():
                variable.assign_add(RNG.normal(scale=0.1, size=variable.shape))
            iterates.collect()
        posterior = swag(model, iterates)
    else:
        posterior = mean_field(model, X, LABELS, num_steps=2, plain_prior=PRIOR, verbose=0)
    assert sorted(posterior.weight_names) == ["outputs/bias", "outputs/kernel"]
    again = rebuilt(posterior)
    np.testing.assert_array_equal(*(m.posterior_predictive(X, num_samples=4).samples for m in (posterior, again)))


def test_files_of_swag_without_names_are_of_all_weights():
    model = made("swag")
    settings = {name: value for name, value in model.settings().items() if name != "weights"}
    assert rebuilt(model, settings).weight_names == model.weight_names
