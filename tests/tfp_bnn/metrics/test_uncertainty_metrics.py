"""The variance over classes, the expected error rate and the scores of uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import metrics


def random_samples(samples: int = 7, rows: int = 50, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), size=(samples, rows))


def test_class_variance_equals_numpy() -> None:
    samples = random_samples()
    np.testing.assert_allclose(metrics.class_variance(samples), samples.var(axis=0).sum(axis=-1), rtol=1e-12)


@pytest.mark.parametrize(("samples", "classes"), [(1, 4), (2, 4), (4, 4), (8, 4)])
def test_class_variance_is_highest_where_sure_draws_disagree(samples: int, classes: int) -> None:
    disagreeing = np.eye(classes)[np.arange(samples) % classes][:, np.newaxis]
    highest = 1.0 - 1.0 / min(samples, classes)
    np.testing.assert_allclose(metrics.class_variance(disagreeing), [highest])
    assert (metrics.class_variance(random_samples(samples, classes=classes)) <= highest + 1e-12).all()


def test_class_variance_of_close_float32_draws_does_not_cancel() -> None:
    base, step = 0.9, 1e-4
    draws = np.array([[[base, 1 - base]], [[base + step, 1 - base - step]]], np.float32)
    exact = draws.astype(np.float64).var(axis=0).sum(axis=-1)
    np.testing.assert_allclose(metrics.class_variance(draws), exact, rtol=1e-9)


def test_expected_error_rate_is_the_error_rate_of_a_calibrated_model() -> None:
    # Of 100 rows with top probability 0.8, 80 are right.
    labels, p = np.repeat([0, 1], [80, 20]), np.tile([0.8, 0.2], (100, 1))
    assert metrics.expected_error_rate(p) == pytest.approx(1.0 - metrics.accuracy(labels, p))


def test_sure_predictions_expect_no_errors() -> None:
    assert metrics.expected_error_rate([[1.0, 0.0], [0.0, 1.0]]) == 0.0
    assert metrics.expected_error_rate([[1.0 + 1e-6, 0.0]]) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_those_of_the_functions(dtype: type) -> None:
    samples = random_samples().astype(dtype)
    mean = samples.mean(axis=0, dtype=np.float64)
    expected = {
        "entropy": metrics.predictive_entropy(mean),
        "expected_entropy": metrics.expected_entropy(samples),
        "mutual_information": metrics.mutual_information(samples),
        "expected_error": 1.0 - mean.max(axis=1),
        "variance": metrics.class_variance(samples),
    }
    scores = metrics.uncertainty_scores(samples)
    assert list(scores) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(scores[name], values)
    assert metrics.expected_error_rate(mean) == pytest.approx(scores["expected_error"].mean())


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.full((3, 1, 2), 0.5), id="one row"),
        pytest.param(random_samples(samples=1), id="one sample"),
        pytest.param(np.eye(3)[[[0, 1], [2, 1]]], id="exactly 0 and 1"),
        pytest.param(np.full((2, 1, 2), [1.0 + 1e-6, 0.0]), id="rounded to above 1"),
    ],
)
def test_scores_are_finite_and_not_negative(samples: np.ndarray) -> None:
    for values in metrics.uncertainty_scores(samples).values():
        assert values.shape == samples.shape[1:2]
        assert np.isfinite(values).all()
        assert (values >= 0).all()


def test_scores_grow_with_the_disagreement_of_the_draws() -> None:
    steps = np.linspace(0.0, 0.5, 6)
    samples = np.stack([np.stack([0.5 + steps, 0.5 - steps], axis=1), np.stack([0.5 - steps, 0.5 + steps], axis=1)])
    scores = metrics.uncertainty_scores(samples)
    for name in ("mutual_information", "variance"):
        assert (np.diff(scores[name]) > 0).all()
    np.testing.assert_allclose(scores["entropy"], np.log(2))


def test_predictions_of_a_model_can_be_scored() -> None:
    import keras

    inputs = keras.Input((3,))
    model = tfp_bnn.VariationalModel(inputs, tfp_bnn.layers.DenseReparameterization(4)(inputs), seed=0)
    predictive = model.posterior_predictive(np.ones((5, 3), np.float32), num_samples=6)
    scores = metrics.uncertainty_scores(predictive.samples)
    np.testing.assert_allclose(scores["entropy"], predictive.entropy(), rtol=1e-5)
    np.testing.assert_allclose(scores["mutual_information"], predictive.epistemic(), rtol=1e-4)


def test_what_is_no_sample_of_probabilities_is_refused() -> None:
    for function in (metrics.class_variance, metrics.uncertainty_scores):
        with pytest.raises(ValueError, match=r"`sample_probabilities` must have shape \(samples, n, classes\)"):
            function([[0.5, 0.5]])
        with pytest.raises(ValueError, match="must sum to 1"):
            function([[[0.5, 0.6]]])
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(n, classes\)"):
        metrics.expected_error_rate([0.5, 0.5])
