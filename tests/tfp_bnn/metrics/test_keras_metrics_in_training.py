"""Keras metrics in the compiled steps of `fit` and `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import tfp_bnn
from tfp_bnn import metrics

CLASSES, ROWS = 3, 70

OF_ONE_DRAW: dict[str, tuple[Callable[[], Any], Callable[..., float]]] = {
    "nll": (metrics.NegativeLogLikelihood, metrics.nll),
    "brier": (metrics.BrierScore, metrics.brier_score),
    "ece": (metrics.ExpectedCalibrationError, metrics.expected_calibration_error),
    "mce": (metrics.MaximumCalibrationError, metrics.maximum_calibration_error),
    "classwise": (lambda: metrics.ClasswiseCalibrationError(CLASSES), metrics.classwise_calibration_error),
    "entropy": (metrics.PredictiveEntropy, lambda y, p: float(metrics.predictive_entropy(p).mean())),
    "error_rate": (metrics.ExpectedErrorRate, lambda y, p: metrics.expected_error_rate(p)),
}
OF_SCORES: list[Callable[[], Any]] = [
    metrics.MisclassificationAUROC,
    metrics.MisclassificationAUPR,
    metrics.AreaUnderRiskCoverage,
    metrics.RiskAtCoverage,
]
ALL_OF_ONE_DRAW = [make for make, _ in OF_ONE_DRAW.values()] + OF_SCORES
# One of each way to keep a state.
FEW = [metrics.NegativeLogLikelihood, metrics.ExpectedCalibrationError, metrics.MisclassificationAUROC]


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def network(layer: Any, **arguments: Any) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    return tfp_bnn.VariationalModel(inputs, layer(inputs), seed=0, **arguments)


def without_draws(outputs: int = CLASSES, **arguments: Any) -> tfp_bnn.VariationalModel:
    """A model whose predictions are known: no weight is drawn."""
    return network(keras.layers.Dense(outputs, kernel_initializer="orthogonal"), num_examples=ROWS, **arguments)


def compiled(model: Any, makers: Any, **arguments: Any) -> Any:
    model.compile(keras.optimizers.Adam(0.01), metrics=[make() for make in makers], **arguments)
    return model


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
def test_evaluation_in_batches_gives_what_the_functions_give_at_once(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(without_draws(), ALL_OF_ONE_DRAW)
    found = model.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)
    p = scipy.special.softmax(model.predict(x, verbose=0), axis=-1)
    for make, function in OF_ONE_DRAW.values():
        assert found[make().name] == pytest.approx(function(y, p), abs=1e-6)
    u = metrics.predictive_entropy(p)
    assert found["misclassification_auroc"] == pytest.approx(metrics.misclassification_auroc(y, p, u), abs=1e-2)
    assert found["misclassification_aupr"] == pytest.approx(metrics.misclassification_aupr(y, p, u), abs=1e-2)
    assert found["area_under_risk_coverage"] == pytest.approx(metrics.area_under_risk_coverage(y, p, u), abs=1e-2)
    assert found["risk_at_coverage"] == pytest.approx(metrics.risk_at_coverage(y, p, u), abs=1e-2)


@pytest.mark.slow
def test_a_bayesian_model_trains_with_them(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(network(tfp_bnn.layers.DenseFlipout(CLASSES)), FEW, steps_per_execution=2)
    history = model.fit(x, y, epochs=2, batch_size=32, validation_data=(x, y), verbose=0).history
    for make in FEW:
        for prefix in ("", "val_"):
            values = history[prefix + make().name]
            assert len(values) == 2
            assert np.isfinite(values).all()
    # Of the same draws, by other hands.
    np.testing.assert_allclose(history["negative_log_likelihood"], history["nll"], rtol=1e-5)
    np.testing.assert_allclose(history["val_negative_log_likelihood"], history["val_nll"], rtol=1e-5)


def test_weights_of_rows_reach_weighted_metrics(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    weights = np.random.default_rng(1).integers(3, size=ROWS).astype(np.float32)
    model = without_draws()
    model.compile("adam", weighted_metrics=[make() for make in FEW])
    found = model.evaluate(x, y, batch_size=32, sample_weight=weights, verbose=0, return_dict=True)
    repeated = np.repeat(np.arange(ROWS), weights.astype(int))
    p = scipy.special.softmax(model.predict(x, verbose=0), axis=-1)[repeated]
    for name in ("nll", "ece"):
        make, function = OF_ONE_DRAW[name]
        assert found[make().name] == pytest.approx(function(y[repeated], p), abs=1e-6)


def test_a_pipeline_with_one_hot_labels(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    data = tf.data.Dataset.from_tensor_slices((x, np.eye(CLASSES, dtype=np.float32)[y])).batch(32)
    model = compiled(without_draws(), [metrics.BrierScore, OF_ONE_DRAW["classwise"][0]])
    found = model.evaluate(data, verbose=0, return_dict=True)
    p = scipy.special.softmax(model.predict(x, verbose=0), axis=-1)
    assert found["brier_score"] == pytest.approx(metrics.brier_score(y, p), abs=1e-6)
    assert found["classwise_calibration_error"] == pytest.approx(metrics.classwise_calibration_error(y, p), abs=1e-6)


def test_a_single_logit(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(without_draws(1, likelihood="bernoulli"), FEW)
    y = np.minimum(y, 1)
    second = scipy.special.expit(model.predict(x, verbose=0))
    p = np.concatenate([np.float32(1.0) - second, second], axis=-1)
    found = model.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)
    for name in ("nll", "ece"):
        make, function = OF_ONE_DRAW[name]
        assert found[make().name] == pytest.approx(function(y, p), abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("mixed_precision")
def test_mixed_precision_keeps_the_state_in_float32(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(network(tfp_bnn.layers.DenseFlipout(CLASSES)), FEW)
    history = model.fit(x, y, epochs=1, batch_size=32, verbose=0).history
    assert {variable.dtype for metric in model.metrics for variable in metric.variables} == {"float32"}
    np.testing.assert_allclose(history["negative_log_likelihood"], history["nll"], rtol=1e-4)


@pytest.mark.slow
def test_a_saved_model_has_its_metrics_again(examples: tuple[np.ndarray, np.ndarray], tmp_path: Any) -> None:
    x, y = examples
    model = compiled(without_draws(), FEW, run_eagerly=True)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0, return_dict=True) == model.evaluate(x, y, verbose=0, return_dict=True)


@pytest.mark.slow
def test_callbacks_know_which_way_a_score_improves(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(without_draws(), FEW, run_eagerly=True)
    downwards, upwards = (
        keras.callbacks.EarlyStopping(monitor) for monitor in ("expected_calibration_error", "misclassification_auroc")
    )
    model.fit(x, y, callbacks=[downwards, upwards], verbose=0)
    assert downwards.monitor_op is keras.ops.less
    assert upwards.monitor_op is keras.ops.greater


def test_callbacks_ask_which_way_uncertainty_should_go(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    model = compiled(without_draws(), [metrics.PredictiveEntropy])
    with pytest.raises(ValueError, match="Pass `mode='max'`"):
        model.fit(x, y, callbacks=[keras.callbacks.EarlyStopping("predictive_entropy")], verbose=0)


# === Refusals ===


def test_what_needs_samples_cannot_be_compiled_into_a_model(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    with pytest.raises(ValueError, match="The mutual information needs samples"):
        compiled(without_draws(), [metrics.MutualInformation]).fit(x, y, verbose=0)
    regression = compiled(without_draws(1, likelihood="normal"), [metrics.ContinuousRankedProbabilityScore])
    with pytest.raises(ValueError, match="A compiled model gives its metrics one draw only"):
        regression.fit(x, y.astype(np.float32), verbose=0)


def test_soft_labels_are_refused(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    soft = 0.8 * np.eye(CLASSES)[y] + 0.2 / CLASSES
    model = compiled(without_draws(), [metrics.NegativeLogLikelihood])
    before = model.get_weights()
    with pytest.raises(ValueError, match="Soft labels are not supported"):
        model.fit(x, soft, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.slow
def test_soft_labels_are_refused_under_xla_before_the_step_is_applied(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    soft = 0.8 * np.eye(CLASSES)[y] + 0.2 / CLASSES
    model = compiled(without_draws(), [metrics.NegativeLogLikelihood], jit_compile=True)
    before = model.get_weights()
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="Soft labels are not supported"):
            method(x, soft, verbose=0)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_logits_of_a_plain_model_are_refused(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile("sgd", loss, metrics=[metrics.ExpectedCalibrationError()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="If they are logits, apply a softmax first"):
        plain.fit(x, y, verbose=0)


@pytest.mark.slow
def test_training_that_fails_is_reported_by_the_model_and_not_by_its_metrics(
    examples: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = examples
    model = compiled(without_draws(), FEW)
    kernel = model.layers[-1].kernel
    kernel.assign(np.full(kernel.shape, math.nan))
    with pytest.raises(ValueError, match="The negative log-likelihood of a training step is NaN"):
        model.fit(x, y, verbose=0)
