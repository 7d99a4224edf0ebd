"""What every registered likelihood must do; a new one is found by its registration."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.predictive import PosteriorPredictive, score, standard_errors
from tfp_bnn.predictive.calibrators import CALIBRATIONS

ROWS = 2000
# `joint` has a predictive for each head and none of its own, so it is a case of its own: see test_joint.py here, and
# test_joint_models.py and test_joint_predictive.py.
OURS = [name for name in LIKELIHOODS if LIKELIHOODS.package_of(name) == "tfp_bnn" and name != "joint"]
# Arguments without a default, and other forms than the default one.
FORMS = {
    "normal": [{}, {"scale": "per_example"}, {"scale": 0.5}],
    "laplace": [{}, {"scale": "per_example"}, {"scale": 0.5}],
    "student_t": [{}, {"scale": "per_example", "df": "learned"}, {"scale": 0.5, "df": 7.0}],
    "negative_binomial": [{}, {"dispersion": "per_example"}, {"dispersion": 0.3}],
    "mixture_normal": [{"num_components": 3}],
    "multivariate_normal": [{}, {"scale_tril": "learned", "num_targets": 2}],
    "ordinal": [{"num_classes": 4}],
}
EVERY_FORM = [(name, arguments) for name in OURS for arguments in FORMS.get(name, [{}])]


class Case:
    """A likelihood, its weights and as many outputs as it needs; two targets if they can be dependent."""

    def __init__(self, name, arguments):
        self.likelihood = LIKELIHOODS.get({"name": name, **arguments})
        self.weights = {role: np.asarray(variable) for role, variable in self.likelihood.add_weights(_variable).items()}
        targets = 2 if name == "multivariate_normal" else 1
        self.num_outputs = self.likelihood.num_outputs_for(np.zeros((5, targets)))

    def predictive(self, draws=3, rows=ROWS, seed=0):
        """A predictive whose draws disagree, and targets drawn from it: each row from a draw of its own."""
        rng = np.random.default_rng(seed)
        outputs = rng.normal(size=(1, rows, self.num_outputs)) + 0.3 * rng.normal(size=(draws, rows, self.num_outputs))
        outputs = outputs.astype(np.float32)
        predictive = PosteriorPredictive(self.likelihood, self.weights, outputs, {}, outputs.shape)
        drawn = predictive.sample(draws, seed=1)
        return predictive, drawn[rng.integers(draws, size=rows), np.arange(rows)]


def _variable(name, shape, initializer):
    return keras.Variable(keras.initializers.get(initializer)(shape, dtype="float32"), dtype="float32", name=name)


def _by_cost(form):
    """A form as a parameter: those that are not the first of their likelihood are slow."""
    name, arguments = form
    is_first = arguments == FORMS.get(name, [{}])[0]
    identifier = "-".join(map(str, (name, *arguments.values())))
    return pytest.param(form, id=identifier, marks=() if is_first else pytest.mark.slow)


@pytest.fixture(scope="module", params=map(_by_cost, EVERY_FORM))
def case(request):
    return Case(*request.param)


# === Densities ===


def test_the_log_probability_of_all_draws_is_that_of_each(case):
    predictive, y = case.predictive(rows=5)
    outputs, weights = predictive._outputs, case.weights
    found = case.likelihood.log_prob(y, outputs, weights)
    assert found.shape == (3, 5)
    by_draw = [case.likelihood.log_prob(y, draw, weights) for draw in outputs]
    np.testing.assert_allclose(found, by_draw, rtol=1e-5, atol=1e-6)


def test_outputs_of_50_give_finite_losses_and_gradients(case):
    _, y = case.predictive(draws=1, rows=4)
    signs = np.stack(np.meshgrid(*[[-50.0, 0.0, 50.0]] * min(case.num_outputs, 3), indexing="ij"), -1)
    signs = signs.reshape(-1, signs.shape[-1])
    outputs = tf.Variable(np.resize(signs, (len(signs), case.num_outputs)), dtype=tf.float32)
    weights = {role: tf.Variable(value) for role, value in case.weights.items()}
    with tf.GradientTape() as tape:
        log_prob = case.likelihood.log_prob(np.resize(y, (len(signs), *y.shape[1:])), outputs, weights)
    assert np.isfinite(log_prob).all()
    for gradient in tape.gradient(log_prob, [outputs, *weights.values()]):
        assert gradient is None or np.isfinite(gradient).all()


def test_learned_parameters_are_set_in_natural_units(case):
    variables = case.likelihood.add_weights(_variable)
    rng = np.random.default_rng(1)
    for variable in variables.values():
        variable.assign(rng.normal(size=variable.shape))
    values = case.likelihood.parameters(variables)
    assert bool(values) == bool(variables)
    others = case.likelihood.add_weights(_variable)
    case.likelihood.assign_parameters(others, values)
    for role, variable in variables.items():
        np.testing.assert_allclose(others[role], variable, rtol=1e-4, atol=1e-5)
    for name, value in values.items():
        with pytest.raises(ValueError, match="likelihood"):
            case.likelihood.assign_parameters(others, {**values, name: np.full_like(value, np.nan)})


def test_members_of_an_ensemble_keep_their_own_learned_parameters(case):
    predictive, y = case.predictive(rows=5)
    factors = [0.5, 1.0, 1.5]
    own = [{role: value * np.float32(factor) for role, value in case.weights.items()} for factor in factors]
    stacked = {role: np.stack([each[role] for each in own])[:, None] for role in case.weights}
    found = case.likelihood.log_prob(y, predictive._outputs, stacked)
    by_draw = [case.likelihood.log_prob(y, *pair) for pair in zip(predictive._outputs, own, strict=True)]
    np.testing.assert_allclose(found, by_draw, rtol=1e-5, atol=1e-6)


# === The predictive ===


def test_the_shapes_of_all_answers(case):
    predictive, y = case.predictive(rows=5)
    rows, columns = predictive.mean().shape
    assert rows == 5
    if predictive.target_kind == "number":
        assert y.shape == predictive.aleatoric().shape == predictive.epistemic().shape == (5, columns)
        assert predictive.entropy().shape in ((5, columns), (5, 1))
    else:
        assert predictive.aleatoric().shape == predictive.epistemic().shape == predictive.entropy().shape == (5,)
    assert predictive.samples.shape == (3, 5, columns)
    assert predictive.quantiles([0.1, 0.9]).shape == (2, 5, columns)
    lower, upper = predictive.interval(0.5)
    assert (lower <= upper).all()
    for part in (predictive.mean(), predictive.aleatoric(), predictive.epistemic(), predictive.entropy()):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()
    mixture = predictive.distribution()
    np.testing.assert_allclose(mixture.log_prob(tf.cast(y, mixture.dtype)), predictive.log_prob(y), rtol=1e-4)


def test_scores_and_their_standard_errors_have_the_same_names(case):
    predictive, y = case.predictive(rows=50)
    found, errors = score(predictive, y), standard_errors(predictive, y)
    assert set(found) == set(errors) == set(case.likelihood.score_names(case.num_outputs))
    assert np.isfinite([*found.values(), *errors.values()]).all()


@pytest.mark.slow
def test_a_scale_widens_the_predictive_about_its_mean(case):
    if case.likelihood.calibrator != "scale":
        pytest.skip("Another calibration, or none.")
    raw, y = case.predictive(rows=20)
    wide = raw.calibrated_by(CALIBRATIONS.get({"name": "scale", "scale": 2.0}))
    np.testing.assert_allclose(wide.mean(), raw.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(wide.aleatoric(), 4.0 * raw.aleatoric(), rtol=1e-4)
    np.testing.assert_allclose(wide.epistemic(), 4.0 * raw.epistemic(), rtol=1e-3)
    stretched = raw.mean() + 2.0 * (raw.quantiles(0.9) - raw.mean())
    np.testing.assert_allclose(wide.quantiles(0.9), stretched, rtol=2e-3, atol=2e-3)
    # Without a draw, the others are spread about their own mean.
    outputs = raw._outputs[1:]
    others = PosteriorPredictive(case.likelihood, case.weights, outputs, {}, outputs.shape)
    by_hand = score(others.calibrated_by(CALIBRATIONS.get({"name": "scale", "scale": 2.0})), y)
    without = wide.scores_without_each_draw(y)[0]
    for name in ("rmse", "nll", "aleatoric_std", "epistemic_std"):
        assert without[name] == pytest.approx(by_hand[name], rel=1e-3), name


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_cover_what_those_of_the_true_distribution_cover_and_the_pit_is_uniform(case):
    # Of 4,000 targets, 3 points are 6.3 standard errors: by chance 3e-10 for each form. The Kolmogorov-Smirnov test
    # fails by chance at 1e-7, so all forms together at about 2e-6; the seed is fixed.
    # The interval of a count covers more than 90 %: what the predictive itself says.
    predictive, y = case.predictive(rows=4000)
    if predictive.target_kind != "number":
        pytest.skip("Classes have no interval.")
    lower, upper = predictive.interval(0.9)
    below, _ = case.likelihood.levels(predictive._outputs, case.weights, lower)
    _, at_most = case.likelihood.levels(predictive._outputs, case.weights, upper)
    expected = (at_most.mean(axis=0) - below.mean(axis=0)).mean(axis=0)
    covered = ((lower <= y) & (y <= upper)).mean(axis=0)
    np.testing.assert_allclose(covered, expected, atol=0.03)
    assert (expected > 0.899).all()
    for column in predictive.pit(y, seed=3).T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-7


@pytest.mark.statistical
def test_moments_are_those_of_drawn_targets(case):
    # 40,000 draws: the mean is off by 6.5 standard errors at most, if it is normal by chance 8e-11 for each of 10 rows.
    predictive, _ = case.predictive(draws=2, rows=10)
    if predictive.target_kind != "number":
        pytest.skip("The moments of classes are probabilities.")
    drawn = predictive.sample(40_000, seed=2)
    variance = predictive.aleatoric() + predictive.epistemic()
    assert (np.abs(drawn.mean(axis=0) - predictive.mean()) < 6.5 * np.sqrt(variance / 40_000)).all()
    quantiles = predictive.quantiles([0.25, 0.75])
    for level, quantile in zip((0.25, 0.75), quantiles, strict=True):
        # Shares have a standard error of at most 0.0022, of which 2 points are 9. Quantiles of sampled targets have an
        # error of their own; the seed is fixed.
        assert ((drawn <= quantile).mean(axis=0) > level - 0.02).all()
        assert ((drawn < quantile).mean(axis=0) < level + 0.02).all()


# === In a model ===


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
@pytest.mark.filterwarnings("ignore:The calibration that fits these 40 examples")
def test_a_model_is_trained_judged_calibrated_saved_and_loaded(name, tmp_path):
    case = Case(name, FORMS.get(name, [{}])[0])
    _, y = case.predictive(rows=40)
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    network = [keras.Input((2,)), tfp_bnn.layers.DenseFlipout(case.num_outputs)]
    model = tfp_bnn.VariationalSequential(network, likelihood=case.likelihood, seed=0)
    metrics = case.likelihood.training_metrics(case.num_outputs)
    model.compile(keras.optimizers.Adam(0.05), metrics=metrics, run_eagerly=True)
    losses = model.fit(x, y, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert np.isfinite(list(model.evaluate(x, y, verbose=0, return_dict=True).values())).all()
    if case.likelihood.calibrator is None:
        with pytest.raises(ValueError, match=r"There is no calibration.*: .*\w"):
            tfp_bnn.calibrate(model, x, y, num_samples=2)
    else:
        assert tfp_bnn.calibrate(model, x, y, num_samples=2).fits(case.likelihood)
    predictive = model.posterior_predictive(x, num_samples=3)
    assert np.isfinite(list(score(predictive, y).values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.likelihood == model.likelihood
    np.testing.assert_array_equal(loaded.posterior_predictive(x, num_samples=3).mean(), predictive.mean())


# === XLA, as on a GPU ===


def test_no_form_is_forgotten():
    assert len(OURS) == 10
    assert len(EVERY_FORM) == 19


@pytest.mark.thorough
def test_a_step_compiled_by_xla_is_finite_and_moves_every_weight(case):
    # An odd number: the gradient of an absolute error with respect to a bias counts the targets on either side.
    _, y = case.predictive(draws=1, rows=7)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    layers = [keras.Input((4,)), tfp_bnn.layers.DenseReparameterization(case.num_outputs)]
    model = tfp_bnn.VariationalSequential(layers, likelihood=case.likelihood, seed=0)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    before = [np.asarray(variable) for variable in model.trainable_variables]
    assert np.isfinite(model.fit(x, y, batch_size=7, verbose=0).history["loss"]).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (np.asarray(variable) != old).any(), variable.path
