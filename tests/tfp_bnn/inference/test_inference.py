"""MAP estimates, Monte Carlo dropout and ensembles: one interface for every way to a posterior."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.stats

import tfp_bnn
from tfp_bnn import figures, inference
from tfp_bnn.inference import (
    WAYS,
    Chains,
    Ensemble,
    ensemble,
    map_estimate,
    maximum_likelihood,
    mc_dropout,
    way_of,
)
from tfp_bnn.layers import Conv2DFlipout, DenseFlipout, DenseReparameterization, MCDropout
from tfp_bnn.models.weight_record import trainable_values, weight_distributions
from tfp_bnn.predictive import score, standard_errors

# Each training is of a few steps.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

ROWS = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
TARGETS = X[:, :1] + 0.1 * RNG.normal(size=(ROWS, 1)).astype(np.float32)
PRIOR = {"name": "normal", "scale": 0.7}
POINTS = ("map", "maximum_likelihood")
NUM_DRAWS = {"map": 1, "maximum_likelihood": 1, "ensemble": 3, "hmc": 6, "nuts": 6, "sgld": 6}


def network(likelihood="categorical", num_outputs=3, rate=0.0, seed=0, name="net", inputs=4, **distributions):
    keras.utils.set_random_seed(seed)
    x = keras.Input((inputs,))
    h = DenseFlipout(6, activation="tanh", name="hidden", kernel_prior=PRIOR, **distributions)(x)
    h = MCDropout(rate, name="dropout")(h) if rate else h
    outputs = DenseReparameterization(num_outputs, name="outputs", kernel_prior=PRIOR, **distributions)(h)
    return tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=seed, name=name)


CHAINS = ("hmc", "nuts", "sgld")
NORMALS = {"num_draws": 2, "plain_prior": PRIOR, "verbose": 0}


def chains(point, way):
    """Two chains of three states around the weights of a network."""
    rng = np.random.default_rng(0)
    states = {
        name: np.asarray(variable) + rng.normal(scale=0.3, size=(2, 3, *variable.shape)).astype(np.float32)
        for name, variable in trainable_values(point).items()
    }
    return Chains(point, states, way=way)


def trained(model, y=LABELS, epochs=3):
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(X, y, epochs=epochs, batch_size=ROWS, verbose=0)
    return model


def members(likelihood="categorical", num_outputs=3, number=3, **distributions):
    made = [network(likelihood, num_outputs, seed=k, name=f"net_{k}", **distributions) for k in range(number)]
    for model in made:
        model.num_examples = ROWS
    return made


def with_iterates(model):
    iterates = inference.SwagIterates(rank=2)
    model.compile(keras.optimizers.SGD(0.2))
    model.fit(X, LABELS, epochs=4, batch_size=ROWS, callbacks=[iterates], verbose=0)
    return inference.swag(model, iterates)


@pytest.fixture(scope="module")
def by_way():
    """A trained model of each way."""
    point = trained(map_estimate(network()))
    return {
        "variational": trained(network()),
        "map": point,
        "mc_dropout": trained(mc_dropout(network(rate=0.3))),
        "ensemble": ensemble([trained(model) for model in members(kernel_posterior="delta")]),
        "swag": with_iterates(map_estimate(network())),
        "laplace": inference.laplace(trained(map_estimate(network())), X, LABELS),
        "full_rank": inference.full_rank(network(), X, LABELS, num_steps=4, **NORMALS),
        "mean_field": inference.mean_field(network(), X, LABELS, num_steps=4, **NORMALS),
        "maximum_likelihood": trained(maximum_likelihood(network())),
        "vbll": trained(inference.vbll(network())),
        **{way: chains(point, way) for way in CHAINS},
    }


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


# === One interface ===


def test_every_way_predicts_and_is_scored_alike(by_way, way):
    model = by_way[way]
    predictive = model.posterior_predictive(X, num_samples=8, seed=1)
    assert predictive.num_samples == NUM_DRAWS.get(way, 8)
    np.testing.assert_allclose(predictive.mean().sum(axis=1), 1.0, rtol=1e-5)
    scores = score(predictive, LABELS)
    assert set(scores) == {"accuracy", "nll", "ece", "brier", "entropy", "mutual_information"}
    assert np.isfinite(list(scores.values())).all()
    assert bool(standard_errors(predictive, LABELS)) is (way not in ("map", "maximum_likelihood", "ensemble"))
    assert (scores["mutual_information"] > 1e-6) is (way not in POINTS)
    assert way_of(model) == way
    assert isinstance(model, tfp_bnn.models.PredictiveModel)


def test_every_way_is_reproducible_and_independent_of_batches(by_way, way):
    model = by_way[way]
    whole = model.posterior_predictive(X, num_samples=8, seed=1)
    again = model.posterior_predictive(X, num_samples=8, seed=1, batch_size=7)
    moments = model.posterior_predictive(X, num_samples=8, seed=1, max_bytes=0)
    np.testing.assert_allclose(again.samples, whole.samples, atol=1e-6)
    np.testing.assert_allclose(moments.epistemic(), whole.epistemic(), atol=1e-6)
    other = model.posterior_predictive(X, num_samples=8, seed=2)
    assert np.array_equal(other.samples, whole.samples) is (way in (*POINTS, "ensemble"))


def test_every_way_is_calibrated_and_drawn(by_way, way):
    model = by_way[way]
    try:
        calibration = tfp_bnn.calibrate(model, X, LABELS, num_samples=8)
        assert model.calibration == calibration
        raw = model.posterior_predictive(X, num_samples=8, calibrated=False)
        np.testing.assert_allclose(
            model.posterior_predictive(X, num_samples=8).mean(), raw.calibrated_by(calibration).mean(), atol=1e-6
        )
    finally:
        model.calibration = None
    figure = figures.reliability_diagram(LABELS, model.posterior_predictive(X, num_samples=8).mean())
    assert figure.axes


def test_every_way_has_a_plug_in_prediction_and_says_its_kl(by_way, way):
    model = by_way[way]
    draws = {"ensemble": 3, **dict.fromkeys(CHAINS, 2)}
    assert model.plug_in_predictive(X).num_samples == draws.get(way, 1)
    has_kl = way in ("variational", *POINTS, "mc_dropout", "vbll")
    assert set(model.kl_by_layer()) == ({"hidden", "outputs"} if has_kl else set())


def test_every_way_refuses_bad_inputs(by_way, way):
    model = by_way[way]
    with pytest.raises(ValueError, match="NaN"):
        model.posterior_predictive(np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="shape"):
        model.posterior_predictive(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"`seed` must be an integer, but got 1\.5"):
        model.posterior_predictive(X, seed=1.5)
    with pytest.raises(ValueError, match="`num_samples` must be an integer >= 1"):
        model.posterior_predictive(X, num_samples=0)
    with pytest.raises(ValueError, match="does not fit the likelihood"):
        model.calibration = "scale"


# === MAP ===


@pytest.mark.slow
def test_the_loss_of_a_map_estimate_is_minus_the_log_posterior():
    point = map_estimate(network())
    point.compile("sgd")
    point.num_examples = ROWS
    terms = point.evaluate(X, LABELS, batch_size=ROWS, verbose=0, return_dict=True)
    log_prior = sum(
        scipy.stats.norm.logpdf(np.asarray(weight.mean, np.float64), 0, PRIOR["scale"]).sum()
        for layer in point.variational_layers
        for weight in layer.variational_weights.values()
    )
    assert terms["loss"] == pytest.approx(terms["nll"] - log_prior / ROWS, rel=1e-5)
    assert terms["nll"] == pytest.approx(-float(point.posterior_predictive(X).log_prob(LABELS).mean()), rel=1e-5)


@pytest.mark.slow
def test_map_of_linear_regression_is_the_ridge_solution():
    """y ~ N(x w, s^2), w ~ N(0, t^2): w = (x'x + s^2 / t^2)^-1 x'y."""
    layer = DenseFlipout(1, use_bias=False, kernel_prior={"name": "normal", "scale": 0.5})
    likelihood = {"name": "normal", "scale": 0.3}
    point = map_estimate(tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood=likelihood, seed=0))
    point.num_examples = ROWS
    point.compile(keras.optimizers.SGD(0.1, momentum=0.5))
    for _ in range(80):
        point.train_on_batch(X, TARGETS)
    x = X.astype(np.float64)
    ridge = np.linalg.solve(x.T @ x + (0.3 / 0.5) ** 2 * np.eye(4), x.T @ TARGETS)
    np.testing.assert_allclose(point.layers[0].variational_weights["kernel"].mean, ridge, atol=1e-4)


@pytest.mark.slow
def test_a_map_estimate_starts_at_the_posterior_means_and_leaves_the_model_alone():
    model = network()
    model.num_examples = ROWS
    before = weight_distributions(model)
    point = map_estimate(model)
    found = weight_distributions(point)
    assert set(found) == {name for name in before if not name.endswith("/scale")}
    for name, value in found.items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_allclose(point.posterior_predictive(X).mean(), model.plug_in_predictive(X).mean(), atol=1e-6)
    trained(point, epochs=1)
    for name, value in weight_distributions(model).items():
        np.testing.assert_array_equal(value, before[name])
    assert point.likelihood == model.likelihood
    assert point.num_examples == model.num_examples


def test_map_estimates_of_convolutions_and_hierarchical_layers_are_points():
    image = keras.Input((6, 6, 1))
    outputs = DenseFlipout(2)(keras.layers.Flatten()(Conv2DFlipout(2, 3)(image)))
    convolutional = map_estimate(tfp_bnn.VariationalModel(image, outputs))
    x, group = keras.Input((3,)), keras.Input((), dtype="int32")
    layer = tfp_bnn.layers.HierarchicalDenseReparameterization(1, 2, group_prior="normal")
    hierarchical = map_estimate(tfp_bnn.VariationalModel([x, group], layer([x, group]), likelihood="normal"))
    for point in (convolutional, hierarchical):
        assert way_of(point) == "map"
        assert point.draws().num_draws == 1


def test_a_saved_map_estimate_is_one_again(tmp_path, by_way):
    by_way["map"].save(tmp_path / "map.keras")
    loaded = keras.saving.load_model(tmp_path / "map.keras")
    assert way_of(loaded) == "map"
    np.testing.assert_allclose(
        loaded.posterior_predictive(X).mean(), by_way["map"].posterior_predictive(X).mean(), atol=1e-6
    )


# === Maximum likelihood ===


@pytest.mark.slow
def test_maximum_likelihood_of_linear_regression_is_the_least_squares_solution():
    """The priors of the model have no say, even one with a learned scale."""
    layer = DenseFlipout(1, use_bias=False, kernel_prior={"name": "normal", "scale": 0.01, "empirical_bayes": True})
    likelihood = {"name": "normal", "scale": 0.3}
    plain = maximum_likelihood(tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood=likelihood, seed=0))
    plain.num_examples = ROWS
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.5))
    for _ in range(80):
        plain.train_on_batch(X, TARGETS)
    solution = np.linalg.lstsq(X.astype(np.float64), TARGETS, rcond=None)[0]
    np.testing.assert_allclose(plain.layers[0].variational_weights["kernel"].mean, solution, atol=1e-4)
    assert way_of(plain) == "maximum_likelihood"


# === Monte Carlo dropout ===


def test_only_the_masks_are_random_under_monte_carlo_dropout(by_way):
    model = by_way["mc_dropout"]
    samples = model.posterior_predictive(X, num_samples=20).samples
    assert len({sample.tobytes() for sample in samples}) > 10
    assert not any(layer.is_random for layer in model.variational_layers)
    assert model.draws().num_draws is None


# === Ensembles ===


def test_an_ensemble_is_the_average_of_its_members():
    models = members()
    joined = ensemble(models, name="three")
    mean = np.mean([model.plug_in_predictive(X).mean() for model in models], axis=0)
    np.testing.assert_allclose(joined.posterior_predictive(X).mean(), mean, atol=1e-6)
    assert joined.members == tuple(models)
    assert len(joined) == 3
    assert joined.num_examples == ROWS
    assert joined.name == "three"
    assert (joined.input_shape, joined.output_shape) == ((None, 4), (None, 3))
    assert "'net_0' (member 0)" in repr(joined)


def test_members_of_a_regression_keep_their_learned_noise():
    models = members("normal", 1)
    for model, scale in zip(models, (0.1, 0.4, 1.6), strict=True):
        model.likelihood.assign_parameters(model.likelihood_weights, {"scale": np.float32(scale)})
    joined = ensemble(models)
    densities = [np.exp(model.plug_in_predictive(X).log_prob(TARGETS)) for model in models]
    np.testing.assert_allclose(
        joined.posterior_predictive(X).log_prob(TARGETS), np.log(np.mean(densities, axis=0)), rtol=1e-4
    )
    scores = score(joined.posterior_predictive(X), TARGETS)
    assert scores["aleatoric_std"] == pytest.approx(np.sqrt(np.mean([0.01, 0.16, 2.56])), rel=1e-5)


def test_draws_of_variational_members_are_taken_in_turn_and_all_differ():
    models = members(number=2)
    joined = ensemble(models, draws_per_member=3)
    assert joined.draws().num_draws == 6
    samples = joined.posterior_predictive(X, seed=5).samples
    assert len({sample.tobytes() for sample in samples}) == 6
    for member, model in enumerate(models):
        own = model.posterior_predictive(X, num_samples=6, seed=5).samples
        np.testing.assert_allclose(samples[member::2], own[member::2], atol=1e-6)
    assert joined.posterior_predictive(X, num_samples=2).num_samples == 2


def differing():
    yield "input shapes", network(name="other", inputs=5), r"'other' \(member 1\) has \[\(5,\)\]"
    yield "output shapes", network(num_outputs=2, name="other"), r"'other' \(member 1\) has \[\(2,\)\]"
    yield "likelihoods", network("normal", 3, name="other"), r"'other' \(member 1\) has Normal"
    named = network(name="other")
    named.class_names = ["b", "a", "c"]
    yield "class_names", named, r"'other' \(member 1\) has \('b', 'a', 'c'\)"
    in_grams = network(name="other")
    in_grams.target_units = ["g"]
    yield "target_units", in_grams, r"'other' \(member 1\) has \('g',\)"


def test_members_that_differ_are_refused_by_name():
    first = network(name="first")
    first.class_names, first.target_units = ["a", "b", "c"], ["kg"]
    for what, other, message in differing():
        with pytest.raises(ValueError, match=rf"have different {what}: 'first' \(member 0\) has .*{message}"):
            ensemble([first, other])


def test_what_is_no_ensemble_is_refused():
    model = network()
    with pytest.raises(ValueError, match="at least one member"):
        ensemble([])
    with pytest.raises(TypeError, match="Member 1 of the ensemble is Sequential"):
        ensemble([model, keras.Sequential()])
    with pytest.raises(ValueError, match=r"'net' \(member 0\) and 'net' \(member 1\) are the same model"):
        ensemble([model, model])
    with pytest.raises(ValueError, match=r"'late' \(member 0\) is not built"):
        ensemble([tfp_bnn.VariationalSequential([DenseFlipout(3)], name="late")])
    point = map_estimate(model)
    with pytest.raises(ValueError, match=r"draws_per_member=2, but nothing is random in 'net' \(member 0\)"):
        ensemble([point], draws_per_member=2)
    with pytest.raises(ValueError, match="`draws_per_member` must be an integer from 1 to 10000 or None, but got 0"):
        ensemble([model], draws_per_member=0)


# === Refusals of the others ===


def test_what_has_no_point_estimate_is_refused():
    for function in (map_estimate, maximum_likelihood, mc_dropout):
        with pytest.raises(TypeError, match=f"`{function.__name__}` takes a VariationalModel"):
            function(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
        with pytest.raises(ValueError, match="is not built"):
            function(tfp_bnn.VariationalSequential([DenseFlipout(3)]))
    with pytest.raises(ValueError, match="no Bayesian layer"):
        map_estimate(tfp_bnn.VariationalSequential([keras.Input((4,)), keras.layers.Dense(3)]))
    for function in (map_estimate, maximum_likelihood):
        with pytest.raises(ValueError, match="The layers dropout stay random in prediction"):
            function(network(rate=0.5))
    with pytest.raises(ValueError, match="no `MCDropout` layer with a positive rate"):
        mc_dropout(network())
    learned = DenseFlipout(3, kernel_prior={"name": "normal", "empirical_bayes": True}, name="dense")
    with pytest.raises(ValueError, match=r"The prior of dense/kernel, .* learns its scale"):
        map_estimate(tfp_bnn.VariationalSequential([keras.Input((4,)), learned]))
    with pytest.raises(TypeError, match="Expected a model with VariationalMixin, an Ensemble or Chains"):
        way_of(keras.Sequential())


def test_a_model_with_layers_in_its_own_code_is_refused():
    @keras.saving.register_keras_serializable(package="test_inference")
    class Own(tfp_bnn.VariationalMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = DenseFlipout(3)

        def call(self, inputs, training=None):
            return self.dense(inputs, training=training)

    model = Own()
    model(X)
    with pytest.raises(ValueError, match="Own creates layers itself"):
        map_estimate(model)


def test_the_room_exports_the_ways():
    assert set(inference.__all__) >= {*WAYS[2:], "map_estimate"}
    assert Ensemble.__doc__
    assert list(itertools.islice(WAYS, 4)) == ["variational", "map", "mc_dropout", "ensemble"]
