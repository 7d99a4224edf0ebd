"""The posterior predictive: averages over draws of all the weights, the same for every batch size and thread."""

from __future__ import annotations

import concurrent.futures

import keras
import numpy as np
import pytest
import scipy.sparse
import scipy.stats

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

ROWS, SAMPLES = 30, 7
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
WIDE = {"name": "mean_field_normal", "initial_scale": 0.7}
TINY = {"name": "mean_field_normal", "initial_scale": 1e-6}
LIKELIHOODS = {
    "categorical": ("categorical", 3),
    "bernoulli": ("bernoulli", 2),
    "normal": ({"name": "normal", "scale": "learned", "initial_scale": 0.6}, 2),
    "known scale": ({"name": "normal", "scale": 0.4}, 1),
    "scale per example": ({"name": "normal", "scale": "per_example"}, 4),
}


def network(likelihood="categorical", num_outputs=3, posterior=WIDE, seed=0):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    h = DenseFlipout(5, activation="tanh", kernel_posterior=posterior, bias_posterior=posterior)(x)
    outputs = DenseReparameterization(num_outputs, kernel_posterior=posterior)(h)
    return tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=seed)


@pytest.fixture(scope="module")
def models():
    return {name: network(*arguments) for name, arguments in LIKELIHOODS.items()}


@pytest.fixture(scope="module")
def model(models):
    return models["categorical"]


@pytest.fixture(params=LIKELIHOODS)
def each(request, models):
    return models[request.param]


def moments(predictive):
    return {name: getattr(predictive, name)() for name in ("mean", "entropy", "aleatoric", "epistemic")}


def targets_for(model, rows=ROWS):
    rng = np.random.default_rng(5)
    if isinstance(model.likelihood, tfp_bnn.likelihoods.Categorical):
        return rng.integers(3, size=rows)
    if isinstance(model.likelihood, tfp_bnn.likelihoods.Bernoulli):
        return rng.integers(2, size=(rows, 2)).astype(np.float32)
    return rng.normal(size=(rows, model.posterior_predictive(X[:1], 1).mean().shape[1])).astype(np.float32)


# === Independent of how it is computed ===


@pytest.mark.slow
def test_the_batch_size_does_not_matter(each):
    whole = each.posterior_predictive(X, SAMPLES)
    for batch_size in (1, 7, ROWS, 10_000):
        parts = each.posterior_predictive(X, SAMPLES, batch_size=batch_size)
        np.testing.assert_allclose(parts.samples, whole.samples, rtol=1e-6, atol=1e-6)
        for name, value in moments(whole).items():
            np.testing.assert_allclose(moments(parts)[name], value, rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_a_row_alone_is_predicted_as_it_is_among_others(form):
    """Not only nearly: a product with a single row takes its sums in another order."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(512, "relu"), DenseFlipout(3)]
    wide = tfp_bnn.VariationalSequential(layers, seed=0)
    whole = wide.posterior_predictive(form(X), SAMPLES).samples
    each_alone = wide.posterior_predictive(form(X), SAMPLES, batch_size=1).samples
    first_alone = wide.posterior_predictive(form(X)[:1], SAMPLES).samples
    # One rounding: processors without AVX-512 differ by that much.
    tolerance = np.finfo(np.float32).eps * np.abs(whole).max()
    np.testing.assert_allclose(each_alone, whole, rtol=0, atol=tolerance)
    np.testing.assert_allclose(first_alone, whole[:, :1], rtol=0, atol=tolerance)


def test_below_the_memory_cap_moments_are_streamed(each):
    whole = each.posterior_predictive(X, SAMPLES)
    num_outputs = each.output_shape[-1]
    size = 4 * SAMPLES * ROWS * num_outputs
    assert each.posterior_predictive(X, SAMPLES, batch_size=7, max_bytes=size).samples.shape[:2] == (SAMPLES, ROWS)
    streamed = each.posterior_predictive(X, SAMPLES, batch_size=7, max_bytes=size - 1)
    assert len(streamed) == ROWS
    assert streamed.num_samples == SAMPLES
    for name, value in moments(whole).items():
        np.testing.assert_allclose(moments(streamed)[name], value, rtol=1e-5, atol=2e-6, err_msg=name)
        assert moments(streamed)[name].dtype == np.float32
    refused = {
        "samples": lambda: streamed.samples,
        "quantiles": lambda: streamed.quantiles([0.1, 0.9]),
        "log_prob": lambda: streamed.log_prob(targets_for(each)),
        "distribution": lambda: streamed.distribution(),
    }
    for name, use in refused.items():
        shape = rf"\({SAMPLES}, {ROWS}, {num_outputs}\)"
        with pytest.raises(
            ValueError, match=rf"`{name}` needs all 7 draws of 30 predictions, of shape {shape}.*max_bytes"
        ):
            use()


def test_the_size_of_what_was_not_kept_is_named(model):
    predictive = model.posterior_predictive(np.tile(X, (200, 1)), 60, max_bytes=2**20)
    # 60 x 6,000 x 3 x 4 bytes.
    with pytest.raises(ValueError, match=r"\(60, 6000, 3\), 4 MiB, which is above `max_bytes`"):
        predictive.quantiles(0.5)


@pytest.mark.slow
def test_threads_agree(models):
    # Not compiled before: the threads race for that, too.
    model = network(seed=3)
    assert "_predictive_functions" not in vars(model)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model.posterior_predictive(X, SAMPLES, seed=2, batch_size=8).samples, range(8)))
    for samples in found:
        np.testing.assert_allclose(samples, found[0], atol=1e-6)
    # And threads that ask for different seeds do not mix them up.
    alone = [model.posterior_predictive(X, 3, seed=seed).samples for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: model.posterior_predictive(X, 3, seed=seed).samples, range(8)))
    np.testing.assert_allclose(together, alone, atol=1e-6)


# === Draws ===


def test_a_draw_is_one_function():
    layer = DenseReparameterization(2, kernel_posterior=WIDE, bias_posterior=WIDE)
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood="normal", seed=0)
    first, second = X[0], X[1]
    points = np.stack([first, second, first + second, 2 * first, np.zeros(4, np.float32)])
    # Every x in a batch of its own.
    at_first, at_second, at_sum, at_double, intercept = np.moveaxis(
        model.posterior_predictive(points, 20, batch_size=1).samples, 1, 0
    )
    np.testing.assert_allclose(at_first + at_second - intercept, at_sum, atol=2e-5)
    np.testing.assert_allclose(2 * at_first - intercept, at_double, atol=2e-5)
    assert intercept.std(axis=0).min() > 0.1
    assert at_first.std(axis=0).min() > 0.1
    # The same x gives the same answer, wherever it stands.
    np.testing.assert_array_equal(np.ptp(model.posterior_predictive(np.tile(X[:1], (5, 1)), 3).samples, axis=1), 0.0)


def test_draws_are_known_by_seed_and_number(model):
    few, many = (model.posterior_predictive(X, number, seed=4).samples for number in (5, 12))
    np.testing.assert_allclose(many[:5], few, atol=1e-6)
    assert len({draw.tobytes() for draw in many}) == 12
    np.testing.assert_array_equal(model.posterior_predictive(X, 5, seed=4).samples, few)
    for seed in (0, 5, -1, 2**40):
        other = model.posterior_predictive(X, 12, seed=seed).samples
        assert np.abs(other[:, None] - many[None]).max(axis=(2, 3)).min() > 1e-3
    # An input alone gets the draws that it gets among others.
    np.testing.assert_allclose(model.posterior_predictive(X[17:18], 5, seed=4).samples, few[:, 17:18], atol=1e-6)


@pytest.mark.slow
def test_predictions_and_the_noise_of_the_model_are_apart(tmp_path):
    model = network(num_outputs=2)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    model.num_examples = ROWS
    labels = np.zeros(ROWS, np.int64)
    before = model.posterior_predictive(X, SAMPLES).samples
    model.save_weights(tmp_path / "start.weights.h5")

    def use(between):
        model.load_weights(tmp_path / "start.weights.h5")
        found = []
        for _ in range(2):
            between()
            found.append(float(model.train_on_batch(X, labels, return_dict=True)["nll"]))
            between()
            found.append(float(model.test_on_batch(X, labels, return_dict=True)["nll"]))
            found.append(np.asarray(model(X)).sum())
        return found

    assert use(lambda: None) == use(lambda: (model.posterior_predictive(X, 3), model.plug_in_predictive(X)))
    np.testing.assert_allclose(model.posterior_predictive(X, SAMPLES).samples, before, atol=1e-6)
    # The model's own seed is not theirs either.
    np.testing.assert_array_equal(
        network(num_outputs=2, seed=1).posterior_predictive(X, 2).samples,
        network(num_outputs=2, seed=2).posterior_predictive(X, 2).samples,
    )


def test_draws_follow_the_weights(model):
    layer = model.variational_layers[0]
    before = model.posterior_predictive(X, 3).samples
    value = np.asarray(layer.kernel)
    layer.kernel.assign(value + 1.0)
    assert np.abs(model.posterior_predictive(X, 3).samples - before).max() > 0.01
    layer.kernel.assign(value)
    np.testing.assert_array_equal(model.posterior_predictive(X, 3).samples, before)


@pytest.mark.statistical
def test_draws_have_the_distribution_of_the_posterior():
    # Each of 8 Kolmogorov-Smirnov tests of 500 draws fails by chance at 1e-6 / 8, all together at 1e-6.
    layer = DenseFlipout(2, use_bias=False, kernel_posterior=WIDE)
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood="normal", seed=0)
    kernels = model.posterior_predictive(np.eye(4, dtype=np.float32), 500).samples
    standard = (kernels - np.asarray(layer.kernel)) / 0.7
    for index in np.ndindex(4, 2):
        assert scipy.stats.kstest(standard[(slice(None), *index)], "norm").pvalue > 1e-6 / 8


# === Moments ===


def test_probabilities_are_averaged_and_not_logits(model):
    predictive = model.posterior_predictive(X, 50)
    samples = predictive.samples
    np.testing.assert_allclose(predictive.mean(), samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(predictive.mean().sum(axis=1), 1.0, atol=1e-5)
    # The logits are the log probabilities, up to a constant in each row.
    of_logits = np.exp(np.log(samples).mean(axis=0))
    of_logits /= of_logits.sum(axis=1, keepdims=True)
    assert np.abs(predictive.mean() - of_logits).max() > 0.05


def test_the_uncertainty_of_classification_is_decomposed(model):
    predictive = model.posterior_predictive(X, 50)
    p = predictive.samples.astype(np.float64)
    entropy = scipy.stats.entropy(p.mean(axis=0), axis=1)
    expected_entropy = scipy.stats.entropy(p, axis=2).mean(axis=0)
    np.testing.assert_allclose(predictive.entropy(), entropy, atol=1e-5)
    np.testing.assert_allclose(predictive.aleatoric(), expected_entropy, atol=1e-5)
    np.testing.assert_allclose(predictive.epistemic(), entropy - expected_entropy, atol=1e-5)
    assert predictive.epistemic().min() > 0.0
    assert predictive.entropy().max() <= np.log(3) + 1e-5
    assert predictive.entropy().shape == predictive.aleatoric().shape == predictive.epistemic().shape == (ROWS,)


@pytest.mark.parametrize("name", ["normal", "known scale", "scale per example"])
def test_the_uncertainty_of_regression_is_decomposed(models, name):
    model = models[name]
    predictive = model.posterior_predictive(X, SAMPLES)
    samples = predictive.samples.astype(np.float64)
    num_targets = {"normal": 2, "known scale": 1, "scale per example": 2}[name]
    assert samples.shape == (SAMPLES, ROWS, num_targets)
    np.testing.assert_allclose(predictive.mean(), samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(predictive.epistemic(), samples.var(axis=0), rtol=1e-3, atol=1e-6)
    if name != "scale per example":
        np.testing.assert_allclose(predictive.aleatoric(), {"normal": 0.36, "known scale": 0.16}[name], rtol=1e-5)
    # The parts sum to the variance of the mixture that TFP computes.
    total = predictive.aleatoric() + predictive.epistemic()
    np.testing.assert_allclose(total, predictive.distribution().variance(), rtol=1e-3)
    # A normal has the largest entropy of all distributions of its variance.
    assert np.all(predictive.entropy() <= 0.5 * np.log(2 * np.pi * np.e * total) + 1e-4)
    assert np.all(predictive.entropy() >= 0.5 * np.log(2 * np.pi * np.e * 1e-12))


@pytest.mark.parametrize("max_bytes", [2**30, 1])
def test_predictions_can_be_changed_in_place_without_changing_later_ones(each, max_bytes):
    predictive = each.posterior_predictive(X, SAMPLES, max_bytes=max_bytes)
    before = {name: value.copy() for name, value in moments(predictive).items()}
    for value in moments(predictive).values():
        value *= 3.0
    for name, value in moments(predictive).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_epistemic_uncertainty_is_there_and_not_negative(each):
    assert each.posterior_predictive(X, SAMPLES).epistemic().min() >= 0.0
    assert each.posterior_predictive(X, SAMPLES).epistemic().mean() > 1e-3
    assert each.posterior_predictive(X * 1e4, SAMPLES).epistemic().min() >= 0.0


@pytest.mark.parametrize("name", ["categorical", "normal"])
def test_epistemic_uncertainty_vanishes_with_the_posterior_scale(name):
    model = network(*LIKELIHOODS[name], posterior=TINY)
    predictive = model.posterior_predictive(X, SAMPLES)
    np.testing.assert_allclose(predictive.epistemic(), 0.0, atol=1e-6)
    np.testing.assert_allclose(predictive.mean(), model.plug_in_predictive(X).mean(), atol=1e-5)


def test_one_draw(each):
    predictive = each.posterior_predictive(X, num_samples=1)
    assert predictive.num_samples == 1
    assert predictive.samples.shape[0] == 1
    np.testing.assert_allclose(predictive.mean(), predictive.samples[0], atol=1e-6)
    np.testing.assert_allclose(predictive.epistemic(), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        predictive.quantiles(0.5) if each.likelihood.task == "regression" else predictive.quantiles(0.1),
        predictive.samples[0],
        atol=1e-4,
    )
    assert predictive.log_prob(targets_for(each)).shape == (ROWS,)


def test_one_row(each):
    predictive = each.posterior_predictive(X[:1], SAMPLES)
    assert len(predictive) == 1
    for value in moments(predictive).values():
        assert value.shape[0] == 1
        assert value.dtype == np.float32


# === Distribution, log-probabilities, quantiles ===


def test_the_log_probability_is_that_of_the_mixture(each):
    predictive = each.posterior_predictive(X, SAMPLES)
    y = targets_for(each)
    log_prob = predictive.log_prob(y)
    assert log_prob.dtype == np.float32
    assert log_prob.shape == (ROWS,)
    mixture = predictive.distribution()
    assert mixture.batch_shape == (ROWS,)
    np.testing.assert_allclose(log_prob, mixture.log_prob(y), rtol=1e-4, atol=1e-5)


def test_the_log_probability_of_a_label_is_that_of_the_mean_probability(model):
    predictive = model.posterior_predictive(X, SAMPLES)
    y = targets_for(model)
    expected = np.log(predictive.mean()[np.arange(ROWS), y])
    for labels in (y, y[:, None], np.eye(3)[y], y.astype(np.float64)):
        np.testing.assert_allclose(predictive.log_prob(labels), expected, atol=1e-5)
    assert np.all(predictive.log_prob(y) <= 0.0)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(ROWS - 1, int), r"The targets have the shape \(29,\), but there are 30 predictions"),
        (np.zeros(1, int), "but there are 30 predictions"),
        (0, "but there are 30 predictions"),
        (np.full(ROWS, 3), "Labels out of range"),
        (np.zeros((ROWS, 2)), "do not fit a model with 3 outputs"),
    ],
)
def test_targets_that_do_not_fit_are_refused(model, targets, message):
    with pytest.raises(ValueError, match=message):
        model.posterior_predictive(X, 2).log_prob(targets)


def test_quantiles_rise_with_the_level(each):
    predictive = each.posterior_predictive(X, SAMPLES)
    levels = [0.0, 0.05, 0.5, 0.95, 1.0]
    found = predictive.quantiles(levels)
    assert found.shape == (5, *predictive.mean().shape)
    assert found.dtype == np.float32
    assert np.isfinite(found[1:4]).all()
    assert np.all(np.diff(found, axis=0) >= 0.0)
    np.testing.assert_array_equal(predictive.quantiles(0.05), found[1])
    np.testing.assert_array_equal(predictive.quantiles([0.95, 0.05]), found[[3, 1]])
    if each.likelihood.task == "classification":
        np.testing.assert_allclose(found[0], predictive.samples.min(axis=0))
        np.testing.assert_allclose(found[4], predictive.samples.max(axis=0))
    else:
        # The noise is unbounded.
        np.testing.assert_array_equal(found[0], -np.inf)
        np.testing.assert_array_equal(found[4], np.inf)


@pytest.mark.parametrize(("name", "scale"), [("normal", 0.6), ("known scale", 0.4)])
def test_quantiles_of_regression_include_the_noise(models, name, scale):
    predictive = models[name].posterior_predictive(X, SAMPLES)
    for level in (0.01, 0.3, 0.5, 0.99):
        below = scipy.stats.norm.cdf(predictive.quantiles(level), loc=predictive.samples, scale=scale).mean(axis=0)
        np.testing.assert_allclose(below, level, atol=1e-4)


@pytest.mark.parametrize("levels", [-0.1, 1.1, [0.5, 2.0], np.nan, [5, 95]])
def test_levels_outside_of_0_and_1_are_refused(models, levels):
    for name in ("categorical", "normal"):
        with pytest.raises(ValueError, match=r"levels of quantiles must lie in \[0, 1\], but got"):
            models[name].posterior_predictive(X, 2).quantiles(levels)
