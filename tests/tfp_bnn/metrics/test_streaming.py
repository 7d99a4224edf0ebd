"""Each Keras metric, batch by batch, agrees with its function on all rows at once."""

from __future__ import annotations

import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn import metrics

from .cases import ALTERED, CLASSES, OF_CLASSES, OF_LABELS, OF_TARGETS, PLAIN, ROWS, class_rows, mean, target_rows


def test_every_public_metric_is_registered_and_documented():
    public = {value for value in vars(metrics).values() if isinstance(value, type) and issubclass(value, keras.Metric)}
    assert {case.cls for case in PLAIN} == public
    for case in PLAIN:
        assert "Args:" in case.cls.__doc__
        assert ">>> " in case.cls.__doc__
        assert f'"{case.make().name}" by default' in " ".join(case.cls.__doc__.split())


@pytest.mark.parametrize("case", [*PLAIN, *ALTERED], ids=str)
def test_batches_of_samples_give_what_the_function_gives_at_once(case):
    metric = case.make()
    assert case.streamed(*case.rows(), metric=metric) == pytest.approx(case.expected(*case.rows()), abs=1e-6)
    metric.reset_state()
    assert case.streamed(*case.rows(1), metric=metric) == pytest.approx(case.expected(*case.rows(1)), abs=1e-6)


@pytest.mark.parametrize("case", [case for case in OF_CLASSES if not case.needs_samples], ids=str)
def test_one_draw_is_a_single_sample(case):
    y, samples = case.rows()
    assert case.streamed(y, samples[0]) == pytest.approx(case.expected(y, samples[:1]), abs=1e-6)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_a_row_of_weight_w_counts_as_w_rows_and_without_weight_may_hold_anything(case):
    y, samples = case.rows()
    weights = np.random.default_rng(2).integers(4, size=ROWS)
    repeated = np.repeat(np.arange(ROWS), weights)
    expected = case.expected(y[repeated], samples[:, repeated])
    y[weights == 0], samples[:, weights == 0] = -1, np.nan
    assert case.streamed(y, samples, weights) == pytest.approx(expected, abs=1e-6)
    assert case.streamed(y, samples, weights[:, np.newaxis]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_mask_of_keras_is_a_weight(case):
    y, samples = case.rows()
    predictions = tf.constant(samples)
    predictions._keras_mask = tf.constant(np.arange(ROWS) < 40)
    metric = case.make()
    metric.update_state(y, predictions)
    assert float(metric.result()) == pytest.approx(case.expected(y[:40], samples[:, :40]), abs=1e-6)


# The others are compiled by `fit` in test_keras_metrics_in_training.py; these need samples, which it does not give.
@pytest.mark.parametrize("case", [case for case in PLAIN if case.of_targets or case.needs_samples], ids=str)
def test_a_compiled_step_of_unknown_batch_size_gives_the_same(case):
    y, samples = case.rows()
    metric, eager = case.make(), case.make()
    shape = [samples.shape[0], None, samples.shape[2]]
    signature = [tf.TensorSpec([None, *y.shape[1:]], y.dtype), tf.TensorSpec(shape, samples.dtype)]

    @tf.function(input_signature=signature, autograph=False)
    def step(y, predictions):
        metric.update_state(y, predictions)
        return metric.result()

    for rows in (slice(0, 48), slice(48, ROWS)):
        eager.update_state(y[rows], samples[:, rows])
        assert float(step(y[rows], samples[:, rows])) == pytest.approx(float(eager.result()), rel=1e-6)


@pytest.mark.parametrize("case", OF_LABELS, ids=str)
def test_labels_may_be_one_hot_or_a_column_or_whole_numbers(case):
    y, samples = class_rows()
    expected = case.streamed(y, samples)
    for labels in (np.eye(CLASSES)[y], np.eye(CLASSES, dtype=bool)[y], y[:, np.newaxis], y.astype(np.float32)):
        assert case.streamed(labels, samples) == expected


@pytest.mark.parametrize("case", [case for case in OF_CLASSES if "num_classes" not in dict(case.config)], ids=str)
def test_a_single_probability_is_that_of_the_second_class(case):
    rng = np.random.default_rng(0)
    second = rng.uniform(0.01, 0.99, size=(3, ROWS, 1)).astype(np.float32)
    y = rng.integers(2, size=(ROWS, 1))
    both = np.concatenate([np.float32(1.0) - second, second], axis=-1)
    assert case.streamed(y, second) == pytest.approx(case.expected(y[:, 0], both), abs=1e-6)


def test_targets_of_one_output_need_no_axis_for_it():
    y, samples = target_rows(outputs=1)
    for case in OF_TARGETS:
        assert case.streamed(y[:, 0], samples) == case.streamed(y, samples)


def test_uncertainty_needs_no_labels():
    without = [case for case in OF_CLASSES if not case.needs_labels and not case.of_kinds]
    assert len(without) > 3
    for case in without:
        assert case.streamed(None, class_rows()[1]) == pytest.approx(case.expected(*class_rows()), abs=1e-6)


def test_float32_on_a_bin_edge_is_where_the_function_has_it():
    top = np.repeat(np.arange(8, 16) / 15, 3).astype(np.float32)
    p, y = np.stack([top, 1.0 - top], axis=1), np.tile([0, 1, 1], 8)
    metric = metrics.ExpectedCalibrationError()
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(metrics.expected_calibration_error(y, p), abs=1e-6)


# === Edge cases (T10) ===

EDGES = {
    "class missing": (class_rows()[0] % 3, class_rows()[1]),
    "one row, right": (np.array([2]), np.full((2, 1, 4), [0.1, 0.2, 0.4, 0.3])),
    "one row, wrong": (np.array([1]), np.full((2, 1, 4), [0.1, 0.2, 0.4, 0.3])),
    "all right": (mean(class_rows()[1]).argmax(axis=1), class_rows()[1]),
    "all wrong": ((mean(class_rows()[1]).argmax(axis=1) + 1) % 4, class_rows()[1]),
    "exactly 0 and 1": (np.array([0, 1, 2, 3, 0, 1]), np.tile(np.eye(4)[[0, 1, 2, 3, 1, 2]], (2, 1, 1))),
    "exactly 0 and 1, all right": (np.arange(4), np.tile(np.eye(4), (2, 1, 1))),
    "uniform": (np.arange(4), np.full((2, 4, 4), 0.25)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_are_finite_and_those_of_the_functions(edge):
    y, samples = EDGES[edge]
    wrong = mean(samples).argmax(axis=1) != y
    for case in [case for case in OF_CLASSES if not case.of_kinds]:
        value = case.streamed(y, samples)
        assert math.isfinite(value) == (not case.may_be_undefined or wrong.any() != wrong.all()), case
        assert value == pytest.approx(case.expected(y, samples), rel=1e-6, abs=1e-6, nan_ok=True), case


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_before_any_row_the_result_is_0_or_undefined(case):
    expected = math.nan if case.may_be_undefined else 0.0
    assert float(case.make().result()) == pytest.approx(expected, nan_ok=True)


def test_one_kind_of_input_alone_has_no_auroc_and_all_or_nothing_to_find():
    _, samples = class_rows()
    for kind in (0, 1):
        for case in [case for case in PLAIN if case.of_kinds]:
            expected = math.nan if case.may_be_undefined else kind
            assert case.streamed(np.full(ROWS, kind), samples) == pytest.approx(expected, nan_ok=True), case


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_predictions_that_are_not_a_number_give_no_number(case):
    y, samples = case.rows()
    samples[:, 3] = np.nan
    # A comparison with NaN is false: no interval holds the target, and it is below no quantile.
    comparison = ("lower" in case.takes and "targets" in case.takes) or "quantiles" in case.takes
    assert math.isnan(case.streamed(y, samples)) != comparison


# === As objects of Keras ===


@pytest.mark.parametrize("case", [*PLAIN, *ALTERED], ids=str)
def test_configs_go_out_and_come_back(case):
    metric = case.make()
    serialized = keras.saving.serialize_keras_object(metric)
    assert serialized["registered_name"] == f"tfp_bnn>{case.cls.__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is case.cls
    assert again.get_config() == metric.get_config()
    assert {name: again.get_config()[name] for name, _ in case.config} == dict(case.config)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_state_is_float32_or_better(case):
    for dtype in (None, "float16", "mixed_bfloat16", "float64"):
        metric = case.make(dtype=dtype)
        expected = "float64" if dtype == "float64" else "float32"
        assert metric.dtype == expected
        assert metric.variables
        assert {variable.dtype for variable in metric.variables} == {expected}
        y, samples = case.rows()
        metric.update_state(y, samples)
        assert tf.convert_to_tensor(metric.result()).dtype == expected
    assert case.streamed(y, samples, metric=case.make(dtype="float64")) == pytest.approx(
        case.expected(y, samples), rel=1e-12 if not case.of_targets else 1e-9, abs=1e-7
    )


def test_metrics_can_be_pickled_by_class_and_renamed():
    for case in PLAIN:
        assert pickle.loads(pickle.dumps(case.cls)) is case.cls  # noqa: S301
        assert case.make(name="other").name == "other"
