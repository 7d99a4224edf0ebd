"""A log never changes a training and never ends one. If it fails, it fails before training starts."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn import figures
from tfp_bnn.callbacks import BayesianTensorBoard, CalibrationEarlyStopping, PosteriorDoctor, posterior_doctor
from tfp_bnn.callbacks.rows import take_rows
from tfp_bnn.layers import DenseFlipout, MCDropout

# What happens between epochs is tested here, and that of compiled steps nothing changes.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

OUTSIDE = np.full((8, 2), 20, np.float32)


def fit(model, points, *callbacks, epochs=2, **arguments):
    x, y = points
    return model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=list(callbacks), **arguments)


# === It changes nothing ===


@pytest.mark.slow
def test_training_with_and_without_all_callbacks_ends_with_the_same_bits(points, tmp_path):
    def trained(callbacks):
        keras.utils.set_random_seed(0)
        x = keras.Input((2,))
        # A KL without a closed form, a shared hyperprior, and layers with counters of their own.
        prior = {"name": "laplace", "hyperprior": "half_cauchy", "shared": "all"}
        h = DenseFlipout(4, kernel_prior=prior, bias_posterior="mean_field_normal", name="hidden")(x)
        h = keras.layers.Dropout(0.2, seed=1)(MCDropout(0.2, name="mc_dropout")(h))
        logits = DenseFlipout(2, kernel_prior=prior, name="logits")(h)
        model = tfp_bnn.VariationalModel(x, logits, seed=0)
        model.compile("adam", metrics=["accuracy"], run_eagerly=False)
        history = fit(model, points, *callbacks, validation_data=points).history
        counters = [*model.noise_variables.values()]
        for layer in model.stochastic_layers:
            counters += layer._noise_streams.variables.values()
        return [*model.get_weights(), *model.optimizer.variables, *counters], history

    board = BayesianTensorBoard(tmp_path, points, OUTSIDE, num_samples=3, every=1)
    stopping = CalibrationEarlyStopping(points, restore_best_weights=False, num_samples=2)
    with_callbacks, history = trained([board, PosteriorDoctor(points, num_samples=2, tolerance=10), stopping])
    without, plain = trained([])
    for one, other in zip(with_callbacks, without, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert {name: values for name, values in history.items() if name != "val_mc_nll"} == plain


# === What it works with ===


@pytest.mark.thorough
def test_works_with_several_steps_per_execution_and_without_validation_data(classifier, points, tmp_path, read_run):
    model = classifier(compile_arguments={"steps_per_execution": 2})
    fit(model, points, BayesianTensorBoard(tmp_path))
    assert set(read_run(tmp_path, "train")["elbo/elbo"]) == {1, 2}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["train"]


@pytest.mark.slow
def test_rows_come_from_a_pipeline_too_and_it_need_not_end(classifier, points, tmp_path, read_run):
    x, y = points
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat()
    board = BayesianTensorBoard(tmp_path, pipeline, num_samples=2, max_examples=20)
    model = classifier()
    fit(model, points, board, epochs=1)
    expected = -model.posterior_predictive(x[:20], num_samples=2).log_prob(y[:20]).mean()
    assert read_run(tmp_path, "validation").last("predictive/nll") == pytest.approx(expected, rel=1e-5)


def test_rows_are_the_first_of_what_there_is(points):
    x, y = points

    class Batches(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return 3

        def __getitem__(self, index):
            return x[16 * index : 16 * index + 16], y[16 * index : 16 * index + 16], np.ones(16)

    for data in ((x, y), (x, y, np.ones(48)), Batches(), [x, y]):
        rows = take_rows(data, 20, "validation_data")
        np.testing.assert_array_equal(rows.x, x[:20])
        np.testing.assert_array_equal(rows.y, y[:20])
    assert len(take_rows((x, y), 1000, "validation_data")) == 48
    for data in (x, (x, y), tf.data.Dataset.from_tensor_slices(x).batch(5), Batches()):
        rows = take_rows(data, 20, "ood_data", targets=False)
        np.testing.assert_array_equal(rows.x, x[:20])
        assert rows.y is None
    several = take_rows(({"a": x, "b": y}, y), 3, "validation_data")
    np.testing.assert_array_equal(several.x["b"], y[:3])


@pytest.mark.slow
def test_evaluate_logs_a_run_of_its_own(classifier, points, tmp_path, read_run):
    model = classifier()
    model.num_examples = 48
    board = BayesianTensorBoard(tmp_path, points, num_samples=3)
    numbers = model.evaluate(*points, callbacks=[board], verbose=0, return_dict=True)
    evaluation = read_run(tmp_path, "evaluation")
    assert evaluation.last("elbo/nll") == pytest.approx(numbers["nll"])
    nll = -model.posterior_predictive(points[0], num_samples=3).log_prob(points[1]).mean()
    assert evaluation.last("predictive/nll") == pytest.approx(nll, rel=1e-5)
    assert {"figures/reliability_diagram", "figures/decision_surface", "custom_scalars__config__"} <= set(
        evaluation.values
    )
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    # A second one, of the same model or of another, takes its place.
    model.evaluate(*points, callbacks=[board], verbose=0)
    assert read_run(tmp_path, "evaluation").repeated == []


@pytest.mark.thorough
@pytest.mark.parametrize("likelihood", ["bernoulli", "several labels"])
def test_logits_of_yes_or_no_are_understood(likelihood, points, tmp_path, read_run):
    x, y = points
    labels = y if likelihood == "bernoulli" else np.stack([y, 1 - y], axis=1).astype(np.float32)
    inputs = keras.Input((2,))
    outputs = DenseFlipout(1 if likelihood == "bernoulli" else 2, name="logits")(inputs)
    model = tfp_bnn.VariationalModel(inputs, outputs, likelihood="bernoulli", seed=0)
    model.compile("adam")
    fit(model, (x, labels), BayesianTensorBoard(tmp_path, (x, labels), OUTSIDE, num_samples=2), epochs=1)
    validation = read_run(tmp_path, "validation")
    assert 0 <= validation.last("calibration/ece") <= 1
    assert 0 <= validation.last("predictive/accuracy") <= 1
    assert np.isfinite(validation.last("predictive/nll"))
    assert 0 <= validation.last("out_of_distribution/auroc/predictive_entropy") <= 1


@pytest.mark.thorough
def test_a_model_of_dropout_alone_has_no_kl_to_show(points, tmp_path, read_run):
    x = keras.Input((2,))
    model = tfp_bnn.VariationalModel(x, keras.layers.Dense(2)(MCDropout(0.3)(x)), seed=0)
    model.compile("adam")
    fit(model, points, BayesianTensorBoard(tmp_path, points, num_samples=1), PosteriorDoctor(), epochs=1)
    train, validation = read_run(tmp_path, "train"), read_run(tmp_path, "validation")
    assert not any(tag.startswith(("kl/", "log10_kl/")) or tag == "figures/kl_by_layer" for tag in train.values)
    # Of one draw the Monte Carlo error is not known.
    assert not any(tag.startswith("margins/") for tag in validation.values)
    assert np.isfinite(validation.last("predictive/nll"))


@pytest.mark.thorough
def test_layers_of_the_same_name_have_tags_of_their_own(points, tmp_path, read_run):
    inner_input = keras.Input((2,))
    inner = keras.Model(inner_input, DenseFlipout(3, name="dense")(inner_input), name="inner")
    x = keras.Input((2,))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(2, name="dense")(inner(x)), seed=0)
    model.compile("adam")
    fit(model, points, BayesianTensorBoard(tmp_path), epochs=1)
    train = read_run(tmp_path, "train")
    assert {"kl/layers/dense", "kl/layers/dense#2", "posterior/dense#2/signal_to_noise"} <= set(train.values)


# === How it goes on ===


@pytest.mark.slow
def test_a_resumed_run_goes_on_and_replaces_what_is_done_again(classifier, points, tmp_path, read_run):
    class Killed(Exception):
        pass

    class Killer(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise Killed

    model = classifier()
    with pytest.raises(Killed):
        fit(model, points, BayesianTensorBoard(tmp_path, hparams={"a": 1}, recipe="text"), Killer(), epochs=4)
    resumed = BayesianTensorBoard(tmp_path, hparams={"a": 1}, recipe="text")
    history = fit(model, points, resumed, epochs=4, initial_epoch=1).history
    train, root = read_run(tmp_path, "train"), read_run(tmp_path)
    assert set(train["elbo/elbo"]) == {1, 2, 3, 4}
    np.testing.assert_allclose([train["elbo/elbo"][step] for step in (2, 3, 4)], history["elbo"], rtol=1e-6)
    assert train.repeated == root.repeated == []
    assert {"about/recipe", "custom_scalars__config__", "_hparams_/session_start_info"} <= set(root.values)


@pytest.mark.thorough
def test_another_fit_of_the_same_model_follows_and_that_of_another_model_starts_anew(
    classifier, points, tmp_path, read_run
):
    board, model = BayesianTensorBoard(tmp_path), classifier()
    fit(model, points, board)
    fit(model, points, board)
    assert set(read_run(tmp_path, "train")["elbo/elbo"]) == {1, 2, 3, 4}
    fit(classifier(), points, board, epochs=1)
    train = read_run(tmp_path, "train")
    assert set(train["elbo/elbo"]) == {1}
    assert train.repeated == []


@pytest.mark.thorough
def test_the_last_epoch_has_its_figures_when_training_stops_early(classifier, points, tmp_path, read_run):
    class Stopper(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    # After the log, which then learns of it at the end of training only.
    fit(classifier(), points, BayesianTensorBoard(tmp_path, every=100), Stopper(), epochs=9)
    assert set(read_run(tmp_path, "train")["figures/kl_by_layer"]) == {2}


# === What goes wrong ===


def test_a_log_that_cannot_be_opened_fails_before_the_first_step(classifier, points, tmp_path):
    file = tmp_path / "a file"
    file.write_text("not a folder")
    model = classifier()
    with pytest.raises(OSError, match=r"The TensorBoard log in .*a file.*cannot be written: .*Choose another folder"):
        fit(model, points, BayesianTensorBoard(file))
    assert int(model.optimizer.iterations) == 0
    with pytest.raises(OSError, match="cannot be written"):
        model.evaluate(*points, callbacks=[BayesianTensorBoard(file)], verbose=0)


@pytest.mark.slow
def test_a_full_disk_ends_the_log_with_one_warning_and_not_the_training(classifier, points, tmp_path, monkeypatch):
    board = BayesianTensorBoard(tmp_path, every=1)

    class DiskFills(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                # Every write to this device fails as on a full disk.
                board._recorder._logs["train"]._file = tf.io.TFRecordWriter("/dev/full")

    model = classifier()
    with pytest.warns(UserWarning, match="No space left on device.*Training continues without a log") as caught:
        history = fit(model, points, board, DiskFills(), epochs=4)
    assert len(caught) == 1
    assert len(history.epoch) == 4


@pytest.mark.thorough
def test_a_figure_that_fails_is_left_out_with_one_warning(classifier, points, tmp_path, monkeypatch, read_run):
    def fail(terms):
        raise RuntimeError("no font")

    monkeypatch.setattr(figures, "kl_by_layer", fail)
    with pytest.warns(UserWarning, match="could not log the figure 'kl_by_layer': RuntimeError: no font") as caught:
        fit(classifier(), points, BayesianTensorBoard(tmp_path, every=1), epochs=3)
    assert len(caught) == 1
    train = read_run(tmp_path, "train")
    assert set(train["weights/hidden/posterior_mean"]) == {1, 2, 3}
    assert "figures/kl_by_layer" not in train


@pytest.mark.thorough
def test_nan_in_a_tensor_costs_its_histograms_and_one_warning_each(classifier, points, tmp_path, read_run):
    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            loc = self.model.network.get_layer("logits").variational_weights["kernel"]._posterior_weights["loc"]
            self.sound = np.asarray(loc)
            loc.assign(np.where(np.eye(4, 2) > 0, np.nan, self.sound))

        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                loc = self.model.network.get_layer("logits").variational_weights["kernel"]._posterior_weights["loc"]
                loc.assign(self.sound)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(classifier(), points, Poison(), BayesianTensorBoard(tmp_path, every=1), epochs=3)
    told = [str(warning.message) for warning in caught if "BayesianTensorBoard" in str(warning.message)]
    assert len(told) == len(set(told)) == 3
    assert any(
        "the histogram 'weights/logits/posterior_mean'" in text and "2 of 8 values are NaN" in text for text in told
    )
    train = read_run(tmp_path, "train")
    assert "weights/logits/posterior_mean" not in train
    assert set(train["weights/logits/posterior_scale"]) == {1, 2, 3}
    assert set(train["weights/hidden/posterior_mean"]) == {1, 2, 3}


def test_without_tensorboard_the_message_says_what_to_install(monkeypatch):
    ours = {f"tfp_bnn.callbacks.board.{name}" for name in ("dashboard", "event_log", "recorder")}
    for name in [name for name in sys.modules if name in ours or name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ImportError, match=r"the package `tensorboard`, which cannot be imported.*pip install tensorboard"
    ):
        BayesianTensorBoard("logs")


def test_models_and_arguments_that_do_not_fit_are_refused_before_the_first_step(classifier, points, tmp_path):
    x, y = points
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    plain.compile("adam", "mse")
    with pytest.raises(TypeError, match=r"is for Bayesian models, but got a Sequential. Build it as"):
        plain.fit(x, y, verbose=0, callbacks=[BayesianTensorBoard(tmp_path)])
    model = classifier()
    for data, message in (
        ((x[:, :1], y), r"`validation_data` of the callback cannot be measured: .*shape \(48, 1\)"),
        ((x, y + 5), "`validation_data` of the callback cannot be measured: Labels out of range"),
        ((x[:0], y[:0]), "`validation_data` is empty"),
        (x, r"must be \(x, y\) of arrays"),
        (iter([points]), "a generator can be read only once"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(model, points, BayesianTensorBoard(tmp_path, data))
    with pytest.raises(ValueError, match="`ood_data` of the callback cannot be measured"):
        fit(model, points, BayesianTensorBoard(tmp_path, ood_data=np.zeros((3, 5))))
    assert int(model.optimizer.iterations) == 0
    for name in ("num_samples", "every", "max_examples"):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1, but got 0"):
            BayesianTensorBoard(tmp_path, **{name: 0})
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["sequential", "subclass"])
def test_a_model_that_is_built_by_its_first_batch_is_described_then(kind, points, tmp_path, read_run):
    class Net(tfp_bnn.VariationalMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = DenseFlipout(2, name="dense")

        def call(self, inputs, training=None):
            return self.dense(inputs, training=training)

    model = (
        Net(seed=0) if kind == "subclass" else tfp_bnn.VariationalSequential([DenseFlipout(2, name="dense")], seed=0)
    )
    model.compile("adam")
    board = BayesianTensorBoard(tmp_path, points, num_samples=2, class_names=["a", "b"])
    stopping = CalibrationEarlyStopping(points, num_samples=2)
    fit(model, points, board, stopping, PosteriorDoctor(points, num_samples=2, tolerance=10), epochs=1)
    root = read_run(tmp_path)
    assert "dense" in root["about/model"][0].item().decode()
    assert "predictive/nll" in read_run(tmp_path, "validation")


def test_class_names_that_do_not_fit_are_refused(classifier, points, tmp_path):
    for names in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="`class_names` must hold 2 different names"):
            fit(classifier(), points, BayesianTensorBoard(tmp_path, points, class_names=names))


@pytest.mark.slow
def test_a_doctor_that_cannot_examine_warns_once_and_examines_the_rest(classifier, points, monkeypatch):
    def fail(model):
        raise RuntimeError("no pulse")

    monkeypatch.setattr(posterior_doctor, "layer_posteriors", fail)
    monkeypatch.setattr(posterior_doctor, "learned_prior_scales", lambda model: {"dense/kernel": np.array(5e-4)})
    doctor = PosteriorDoctor()
    with (
        pytest.warns(posterior_doctor.PosteriorWarning, match="next to its floor"),
        pytest.warns(UserWarning, match="could not examine the model: RuntimeError: no pulse") as caught,
    ):
        history = fit(classifier(), points, doctor, epochs=3)
    assert [finding.kind for finding in doctor.findings] == ["prior_scale_at_bound"]
    assert len(caught) == 2
    assert len(history.epoch) == 3
