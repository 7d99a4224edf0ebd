"""What the model classes refuse: outputs, losses, arguments, arrays and pipelines that make no sense."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import Convolution2DReparameterization, DenseFlipout, DenseReparameterization

from .networks import KINDS, N, Net, X, Y, functional, one_layer, pipeline


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


class TwoOutputs(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, as_dict=False, **kwargs):
        super().__init__(**kwargs)
        self.dense = DenseFlipout(2)
        self.as_dict = as_dict

    def call(self, inputs, training=None):
        outputs = self.dense(inputs, training=training)
        return {"a": outputs, "b": outputs} if self.as_dict else (outputs, outputs)


class Wrapping(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, wrap, **kwargs):
        super().__init__(**kwargs)
        self.dense = DenseFlipout(3)
        self.wrap = wrap

    def call(self, inputs, training=None):
        return self.wrap(self.dense(inputs, training=training))


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("as_dict", [True, False])
def test_several_outputs_are_refused(metrics, as_dict):
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        tfp_bnn.VariationalModel(x, [DenseFlipout(2)(x), DenseFlipout(3)(x)])
    model = TwoOutputs(as_dict=as_dict)
    model.compile("adam", metrics=metrics)
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        model.fit(X, Y, verbose=0)


def test_one_output_in_a_list_is_one_output():
    x = keras.Input((4,))
    model = tfp_bnn.VariationalModel([x], [DenseFlipout(3)(x)], seed=0)
    model.compile("adam", run_eagerly=True)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()
    assert model.posterior_predictive(X, 2).mean().shape == (N, 3)


def test_one_output_in_a_dict_is_told_so():
    x = keras.Input((4,))
    outputs = DenseFlipout(3)(x)
    message = "The output of the model is a tensor in a dict, but a likelihood describes the tensor itself"
    with pytest.raises(ValueError, match=message):
        tfp_bnn.VariationalModel(x, {"logits": outputs})
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        tfp_bnn.VariationalModel(x, {"a": outputs, "b": DenseFlipout(3)(x)})
    for wrap, kind in ((lambda tensor: {"logits": tensor}, "dict"), (lambda tensor: [tensor], "list")):
        model = Wrapping(wrap)
        model.compile("adam", run_eagerly=True)
        model.num_examples = N
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=f"is a tensor in a {kind}, but.*Give the tensor alone"):
                use(X, Y, verbose=0)
        for predict in (model.posterior_predictive, model.plug_in_predictive):
            with pytest.raises(ValueError, match=f"is a tensor in a {kind}, but"):
                predict(X)


def test_predictions_of_several_outputs_are_refused():
    for as_dict in (True, False):
        with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
            TwoOutputs(as_dict=as_dict).posterior_predictive(X, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_refused(kind):
    model = kind()
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match=r"compiled with loss='mse'.*Categorical.*Compile without `loss`"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"compiled with loss='mse'.*Compile without `loss`"):
        model.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match="compiled with loss='mse'"):
        model.evaluate(pipeline(X, Y), verbose=0)
    model.num_examples = N
    for use in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="compiled with loss='mse'"):
            use(X, Y)


def test_a_layer_with_its_own_kl_weight_is_refused():
    message = r"The layer 'weighted' has kl_weight=0.01.*Remove `kl_weight`"
    x = keras.Input((4,))
    for build in (
        lambda layer: tfp_bnn.VariationalModel(x, layer(x)),
        lambda layer: tfp_bnn.VariationalModel(x, keras.Sequential([keras.Input((4,)), layer])(x)),
        lambda layer: tfp_bnn.VariationalSequential([layer]),
    ):
        with pytest.raises(ValueError, match=message):
            build(DenseFlipout(3, kl_weight=0.01, name="weighted"))
    # A subclass and a growing stack are complete when they are fitted.
    subclass = Net()
    subclass.top = DenseFlipout(3, kl_weight=0.01, name="weighted")
    stack = tfp_bnn.VariationalSequential([keras.Input((4,))])
    stack.add(DenseFlipout(3, kl_weight=0.01, name="weighted"))
    for model in (subclass, stack):
        model.compile("adam")
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "categorial"}, r"Unknown likelihood 'categorial'\. Did you mean 'categorical'\?"),
        ({"likelihood": {"name": "normal", "scal": 1.0}}, "Did you mean 'scale'"),
        ({"likelihood": {"name": "normal", "scale": -1.0}}, "must be a number > 0"),
        ({"beta_schedule": "linear_warm"}, "Did you mean 'linear_warmup'"),
        ({"beta_schedule": {"name": "constant", "beta": -1.0}}, "finite number >= 0"),
        ({"num_examples": 0}, "must be an integer >= 1"),
        ({"seed": 1.5}, "`seed` must be an integer or None"),
        ({"seed": True}, "`seed` must be an integer or None"),
        ({"calibration": "temperatur"}, "Did you mean 'temperature'"),
        ({"calibration": {"name": "temperature", "temperature": 0.0}}, "must be a number from 0.01 to 100"),
        ({"calibration": "scale"}, "does not fit the likelihood Categorical"),
    ],
)
@pytest.mark.parametrize("kind", [functional, Net])
def test_bad_arguments_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
    with pytest.raises(TypeError, match="Cannot make a likelihood from 3"):
        kind(likelihood=3)


NAN = np.where(np.arange(N)[:, None] == 70, np.float32(np.nan), X)
BAD_ARRAYS = [
    (X, np.where(np.arange(N) == 5, 3, Y), r"expected integers from 0 to 2.*1 of 96 labels are not.*row 5"),
    (X, Y - 1, "Labels out of range"),
    (NAN, Y, r"`x` has 4 values that are NaN or infinite.*index \(70, 0\)"),
    (X, np.where(np.arange(N) == 9, np.inf, Y), r"`y` has 1 values"),
    (X[:, :3], Y, r"`x` has the shape \(96, 3\), but the model takes \('batch', 4\)"),
    (X[None], Y[None], "but the model takes"),
    (X[:0], Y[:0], "`x` is empty"),
    (X, None, "`y` is missing"),
    (X, Y[:-1], r"`x` has 96 rows, but `y` has the shape \(95,\)"),
    (X, np.zeros((N, 4)), "do not fit a model with 3 outputs"),
    (X, np.ones((N, 3)), "sum to 1"),
]


def recompiled(compiled):
    """A model that was trained for a step; the learned prior scale has a gradient from the KL alone."""
    prior = {"name": "normal", "empirical_bayes": True}
    model = one_layer(DenseFlipout(3, kernel_prior=prior), seed=0)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=not compiled)
    model.fit(X, Y, batch_size=N, verbose=0)
    return model


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["compiled", "eager"])
def careful(request):
    keras.utils.set_random_seed(0)
    return recompiled(request.param)


def test_bad_arrays_are_refused_before_the_first_step(careful):
    before = [*careful.get_weights(), np.asarray(careful.optimizer.iterations)]
    for x, y, message in BAD_ARRAYS:
        for refusing in (careful.fit, careful.evaluate):
            with pytest.raises(ValueError, match=message):
                refusing(x, y, verbose=0)
        with pytest.raises(ValueError, match=message):
            careful.train_on_batch(x, y)
        with pytest.raises(ValueError, match=message):
            careful.fit(X, Y, validation_data=(x, y), verbose=0)
    with pytest.raises(ValueError, match="`y` is missing"):
        careful.fit(X, Y, validation_data=(X,), verbose=0)
    for array, same in zip([*careful.get_weights(), careful.optimizer.iterations], before, strict=True):
        np.testing.assert_array_equal(array, same)


BAD_BATCHES = {
    "nan": (NAN, Y, "^The inputs of a batch have NaN or infinite values"),
    "nan target": (X, np.where(np.arange(N) == 9, np.nan, Y), "^The targets of a batch have NaN or infinite values"),
    "label": (X, np.where(np.arange(N) == 5, 3, Y), "^Labels out of range: expected integers from 0 to 2.*to 3"),
    "negative": (X, Y - 1, "^Labels out of range.*from -1 to 1"),
}


@pytest.mark.parametrize(
    "case", ["nan", "label", *(pytest.param(case, marks=pytest.mark.slow) for case in ("nan target", "negative"))]
)
def test_bad_batches_of_a_pipeline_leave_the_weights_as_they_are(careful, case):
    x, y, message = BAD_BATCHES[case]

    def state():
        # Without the iteration and the learning rate.
        return [*careful.get_weights(), *(variable.numpy() for variable in careful.optimizer.variables[2:])]

    before = state()
    with pytest.raises(ValueError, match=message):
        careful.evaluate(pipeline(x, y, N), verbose=0)
    # A step that now and then gets through would show.
    for _ in range(5):
        with pytest.raises(ValueError, match=message):
            careful.fit(pipeline(x, y, N), verbose=0)
    for array, same in zip(state(), before, strict=True):
        np.testing.assert_array_equal(array, same)
    # And it trains on with sound data.
    assert np.isfinite(careful.fit(pipeline(X, Y, N), verbose=0).history["loss"]).all()


def test_pipelines_without_examples_or_targets_are_refused(careful):
    with pytest.raises(ValueError, match="The training set is empty"):
        careful.fit(pipeline(X[:0], Y[:0]), verbose=0)
    with pytest.raises(ValueError, match="Targets are missing"):
        careful.fit(tf.data.Dataset.from_tensor_slices(X).batch(N), verbose=0)


@pytest.mark.slow
def test_a_subclass_finds_bad_labels_in_its_first_step():
    # Before it is built, it does not know its number of outputs.
    model = Net(seed=0)
    model.compile("adam", run_eagerly=True)
    with pytest.raises(ValueError, match=r"Labels out of range: expected integers from 0 to 2"):
        model.fit(X, Y + 1, verbose=0)
    with pytest.raises(ValueError, match=r"`x` has 4 values"):
        model.fit(NAN, Y, verbose=0)


def test_targets_of_regression_are_not_broadcast():
    model = one_layer(DenseReparameterization(2), likelihood="normal")
    model.compile("adam", run_eagerly=True)
    for targets in (X[:, 0], X[:, :1], X[:, :3]):
        with pytest.raises(ValueError, match=r"expected the shape \(batch, 2\)"):
            model.fit(X, targets, verbose=0)
        with pytest.raises(ValueError, match=r"expected the shape \(batch, 2\)"):
            model.fit(pipeline(X, targets), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)])
def test_one_compiled_model_takes_targets_of_either_rank(ranks):
    # Keras would trace its step again for targets of any rank, which neither likelihoods nor metrics take.
    model = one_layer(DenseReparameterization(1), likelihood="normal", seed=0)
    model.compile(keras.optimizers.SGD(1e-3), metrics=["mae"])
    targets = {1: X[:, 0], 2: X[:, :1]}
    first, second = (targets[rank] for rank in ranks)
    model.fit(X, first, validation_data=(X, second), batch_size=N, verbose=0)
    logs = model.fit(X, second, validation_data=pipeline(X, first), batch_size=N, verbose=0).history
    assert np.isfinite(list(logs.values())).all()
    model.train_on_batch(X, first)
    model.test_on_batch(X, second)
    model.fit(pipeline(X, second, N), verbose=0)
    # And the compiled step stays when the rank does.
    step = model.train_function
    model.fit(X, second, batch_size=N, verbose=0)
    assert model.train_function is step


@pytest.mark.slow
def test_one_compiled_model_takes_labels_of_either_form():
    model = one_layer(DenseReparameterization(3), seed=0)
    model.compile(keras.optimizers.SGD(1e-3))
    for labels in (Y, np.eye(3)[Y], Y[:, None]):
        for x, y in ((X, labels.astype(np.float32)), (pipeline(X, labels, N), None)):
            assert np.isfinite(
                model.fit(x, y, batch_size=N if y is not None else None, verbose=0).history["loss"]
            ).all()


def test_images_of_another_size_are_refused():
    layers = [keras.Input((6, 6, 1)), Convolution2DReparameterization(2, 3), keras.layers.Flatten(), DenseFlipout(3)]
    model = tfp_bnn.VariationalSequential(layers)
    model.compile("adam")
    for shape in ((N, 6, 6), (N, 5, 6, 1), (N, 6, 6, 3)):
        with pytest.raises(ValueError, match=r"but the model takes \('batch', 6, 6, 1\)"):
            model.fit(np.zeros(shape), Y, verbose=0)
