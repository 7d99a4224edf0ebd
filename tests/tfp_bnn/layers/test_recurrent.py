"""The Bayesian LSTM: against its Keras twin, against NumPy, in distribution, and in a model."""

from __future__ import annotations

import concurrent.futures
import inspect

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.layers import LSTMFlipout

from .recurrent import BAYESIAN_BIAS, EVERYTHING, FEATURES, STEPS, UNITS, inputs_of, make, noise_of, under


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def parameters_of(layer):
    """Mean and scale of each weight as float64."""
    p = {}
    for name in ("kernel", "recurrent_kernel", "bias"):
        weight = layer.variational_weights.get(name)
        parameters = {"loc": np.asarray(getattr(layer, name)), "scale": 0.0} if weight is None else weight.parameters()
        p[name] = tuple(np.asarray(parameters[key], np.float64) for key in ("loc", "scale"))
    return p


def twin_of(layer, values=None, **kwargs):
    """A `keras.layers.LSTM` with the posterior means of a layer, or with other values, for its weights."""
    config = {key: value for key, value in layer.get_config().items() if key in keras.layers.LSTM(1).get_config()}
    twin = keras.layers.LSTM.from_config({**config, "seed": None, **kwargs})
    twin.build(inputs_of(batch=4 if layer.stateful else 1).shape)
    weights = [layer.kernel, layer.recurrent_kernel, layer.bias] if values is None else values
    twin.set_weights([np.asarray(weight) for weight in weights if weight is not None])
    return twin


def lstm(inputs, h, c, kernel, recurrent_kernel, bias):
    """The outputs of all steps for one example, in plain NumPy."""
    outputs = []
    for x in inputs.astype(np.float64):
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
        h = scipy.special.expit(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


# === Against the Keras twin ===

VARIANTS = {
    "default": {},
    "sequences": {"return_sequences": True},
    "state": {"return_state": True},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "go_backwards": True},
    "unrolled": {"return_sequences": True, "unroll": True},
    "unrolled_backwards": {"go_backwards": True, "unroll": True},
    "stateful": {"stateful": True, "return_sequences": True},
    "zeros_for_masked": {"return_sequences": True, "zero_output_for_mask": True},
    "no_bias": {"use_bias": False},
    "bayesian_bias": BAYESIAN_BIAS,
    "activations": {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    "no_activation": {"activation": None},
}
MASKED = ("default", "backwards", "unrolled", "stateful", "zeros_for_masked")


@pytest.mark.parametrize(
    ("variant", "masked"),
    [
        *((variant, False) for variant in VARIANTS),
        # Masks are the business of Keras' own loop over the steps, which some variants go through.
        *(pytest.param(variant, True, marks=pytest.mark.slow) for variant in MASKED),
        *(pytest.param(variant, True, marks=pytest.mark.thorough) for variant in VARIANTS if variant not in MASKED),
    ],
)
def test_without_noise_it_is_the_keras_twin(variant, masked):
    layer = make(batch=4, **VARIANTS[variant])
    inputs = inputs_of()
    # Gaps in the middle and at both ends.
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1]], bool) if masked else None
    twin = twin_of(layer)
    # A stateful layer goes on from where it was.
    of_twin = [twin(inputs, mask=mask) for _ in range(2 if layer.stateful else 1)]
    for training in (False, True):
        for expected in of_twin:
            outputs = under(NoNoise(), layer, inputs, mask=mask, training=training)
            assert len(keras.tree.flatten(outputs)) == len(keras.tree.flatten(expected))
            for ours, theirs in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
        if layer.stateful:
            layer.reset_state()


def test_an_initial_state_is_that_of_the_twin():
    layer, inputs = make(return_state=True), inputs_of()
    state = [np.random.default_rng(n).normal(size=(4, UNITS)).astype(np.float32) for n in range(2)]
    outputs = under(NoNoise(), layer, inputs, initial_state=state)
    for ours, theirs in zip(outputs, twin_of(layer)(inputs, initial_state=state), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_symbolic_outputs_are_those_of_the_twin(variant):
    x = keras.Input(batch_shape=(4, STEPS, FEATURES))
    layer = LSTMFlipout(UNITS, **VARIANTS[variant])
    outputs = keras.tree.flatten(layer(x))
    expected = keras.tree.flatten(twin_of(layer)(x))
    assert [(o.shape, o.dtype) for o in outputs] == [(o.shape, o.dtype) for o in expected]


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_weights_start_like_those_of_the_twin(unit_forget_bias):
    arguments = {"unit_forget_bias": unit_forget_bias, "bias_initializer": keras.initializers.Constant(0.5)}
    means = []
    for cls, more in ((LSTMFlipout, BAYESIAN_BIAS), (keras.layers.LSTM, {})):
        keras.utils.set_random_seed(5)
        # Ours draws the seed of its noise first.
        layer = cls(UNITS, **arguments, **more, seed=0)
        layer.build((None, None, FEATURES))
        means.append([np.asarray(v) for v in layer.weights if not v.name.endswith("scale")])
    for ours, theirs in zip(*means, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_arguments_are_those_of_the_twin():
    of_twin = inspect.signature(keras.layers.LSTM.__init__).parameters
    ours = inspect.signature(LSTMFlipout.__init__).parameters
    assert set(of_twin) - set(ours) == {"use_cudnn"}
    for name in (set(of_twin) & set(ours)) - {"self", "kwargs"}:
        assert ours[name].default == of_twin[name].default, name
    own = [f"{weight}_{role}" for weight in ("kernel", "recurrent", "bias") for role in ("prior", "posterior")]
    assert set(ours) - set(of_twin) == {*own, "kl_weight"}


def test_a_bidirectional_wrapper_has_two_bayesian_layers():
    x = keras.Input((STEPS, FEATURES))
    h = keras.layers.Bidirectional(LSTMFlipout(UNITS, name="lstm"))(x)
    model = tfp_bnn.VariationalModel(x, h, likelihood="normal", seed=0)
    assert [layer.name for layer in model.variational_layers] == ["forward_lstm", "backward_lstm"]
    both = model(inputs_of()).numpy()
    assert both.shape == (4, 2 * UNITS)
    assert (both[:, :UNITS] != both[:, UNITS:]).all()


# === The draw ===


@pytest.mark.parametrize("bias", [{}, BAYESIAN_BIAS])
def test_training_is_exact_under_known_noise(bias, injected_noise):
    layer, inputs = make(return_sequences=True, **bias), inputs_of()
    outputs = under(injected_noise, layer, inputs, training=True)
    drawn, p = injected_noise.drawn, parameters_of(layer)
    assert drawn["input_signs"].shape == (4, 1, FEATURES)
    assert drawn["output_signs"].shape == (4, 1, 4 * UNITS)
    assert drawn["recurrent_kernel_input_signs"].shape == (4, UNITS)
    assert drawn["recurrent_kernel_output_signs"].shape == (4, 4 * UNITS)
    for n, example in enumerate(inputs):
        r, r_of_state = drawn["output_signs"][n, 0], drawn["recurrent_kernel_output_signs"][n]
        signs = {
            "kernel": np.outer(drawn["input_signs"][n, 0], r),
            "recurrent_kernel": np.outer(drawn["recurrent_kernel_input_signs"][n], r_of_state),
            "bias": r,
        }
        weights = [loc + scale * drawn.get(name, 0.0) * signs[name] for name, (loc, scale) in p.items()]
        np.testing.assert_allclose(outputs[n], lstm(example, np.zeros(UNITS), np.zeros(UNITS), *weights), atol=1e-5)


@pytest.mark.parametrize("bias", [{}, BAYESIAN_BIAS])
def test_evaluation_is_exact_under_known_noise(bias, injected_noise):
    layer, inputs = make(return_sequences=True, **bias), inputs_of()
    outputs = under(injected_noise, layer, inputs, training=False)
    assert set(injected_noise.drawn) == {"kernel", "recurrent_kernel", *(["bias"] if bias else [])}
    p = parameters_of(layer)
    weights = [loc + scale * injected_noise.drawn.get(name, 0.0) for name, (loc, scale) in p.items()]
    for n, example in enumerate(inputs):
        np.testing.assert_allclose(outputs[n], lstm(example, np.zeros(UNITS), np.zeros(UNITS), *weights), atol=1e-5)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_each_thing_is_drawn_once_for_all_time_steps(training, unroll, injected_noise):
    asked = []

    class Recorder:
        def normal(self, name, shape):
            asked.append(name)
            return injected_noise.normal(name, shape)

        def signs(self, name, shape):
            asked.append(name)
            return injected_noise.signs(name, shape)

    under(Recorder(), make(unroll=unroll, **BAYESIAN_BIAS), inputs_of(), training=training)
    signs = [f"{of_kernel}{side}_signs" for of_kernel in ("", "recurrent_kernel_") for side in ("input", "output")]
    assert sorted(asked) == sorted(["kernel", "recurrent_kernel", "bias", *(signs if training else [])])


def test_evaluation_is_the_twin_with_one_draw_of_the_weights():
    layer, inputs = make(return_sequences=True, **BAYESIAN_BIAS), inputs_of(steps=30)
    draw = [weight.sample(noise_of(7)) for weight in layer.variational_weights.values()]
    np.testing.assert_allclose(under(noise_of(7), layer, inputs), twin_of(layer, draw)(inputs), atol=1e-5)


def test_training_draws_for_each_sequence_and_evaluation_once():
    layer = make(return_sequences=True)
    same = np.repeat(inputs_of(batch=1), 6, axis=0)
    in_training, otherwise = layer(same, training=True).numpy(), layer(same, training=False).numpy()
    assert len(np.unique(in_training.reshape(6, -1), axis=0)) == 6
    np.testing.assert_allclose(otherwise, np.broadcast_to(otherwise[:1], otherwise.shape), atol=1e-6)


def test_noise_is_fresh_at_each_call_and_reproducible():
    one, other = (make(seed=3, name="same") for _ in range(2))
    calls = (True, False, True, False)
    outputs = [one(inputs_of(), training=training).numpy() for training in calls]
    assert len({array.tobytes() for array in outputs}) == 4
    for training, expected in zip(calls, outputs, strict=True):
        np.testing.assert_array_equal(other(inputs_of(), training=training), expected)


def test_threads_do_not_take_each_others_draws():
    layer, inputs = make(), inputs_of(steps=40)
    expected = [under(noise_of(seed), layer, inputs).numpy() for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: under(noise_of(seed), layer, inputs).numpy(), range(8)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def linear_draws(layer, num_draws, training):
    """Outputs of one step from a given state, which are linear in the weights, under many draws; and their mean."""
    rng = np.random.default_rng(2)
    x, h = (rng.normal(size=(1, size)).astype(np.float32) for size in (FEATURES, UNITS))
    batch = [tf.repeat(x[:, None], 2, axis=0), tf.repeat(h, 2, axis=0), tf.zeros((2, UNITS))]

    @tf.function(autograph=False)
    def run():
        def once(index):
            return under(noise_of().fold_in(index), layer, batch[0], initial_state=batch[1:], training=training)

        return tf.map_fn(once, tf.range(num_draws), fn_output_signature=tf.float32)

    terms = {"kernel": x, "recurrent_kernel": h, "bias": np.ones((1, 1))}
    candidate = slice(2 * UNITS, 3 * UNITS)
    mean = sum(terms[name] @ np.atleast_2d(loc)[:, candidate] for name, (loc, _) in parameters_of(layer).items())
    variance = sum(
        terms[name] ** 2 @ np.atleast_2d(scale**2)[:, candidate] for name, (_, scale) in parameters_of(layer).items()
    )
    return run().numpy(), np.repeat(mean, 2, axis=0), np.repeat(variance, 2, axis=0)


@pytest.mark.statistical
@pytest.mark.parametrize("training", [False, True])
def test_sequences_have_uncorrelated_draws_of_the_posterior_in_training(training, assert_moments):
    # With gates that are always open and no activation, one step is linear in the weights. 4,000 draws.
    layer = make(activation=None, recurrent_activation=keras.ops.ones_like, **BAYESIAN_BIAS)
    draws, mean, variance = linear_draws(layer, 4000, training)
    # False-failure rate 1e-6.
    assert_moments(draws, mean, variance)
    products = np.prod((draws - mean) / np.sqrt(variance), axis=1, dtype=np.float64)
    if training:
        # Products of the two sequences are symmetric about 0, so P(|t| > u) <= 2 exp(-u^2 / 2): 1e-6 for 3 units.
        t = products.sum(axis=0) / np.sqrt((products**2).sum(axis=0))
        np.testing.assert_array_less(np.abs(t), np.sqrt(2 * np.log(2 * UNITS / 1e-6)))
    else:
        np.testing.assert_allclose(draws[:, 0], draws[:, 1], atol=1e-5)


# === KL, losses, gradients, dtypes ===


def gradients_of(layer, inputs):
    """Gradients of a likelihood part and the KL, in training, by the variable's name."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(inputs, training=True), tf.float32) ** 2) + layer.kl()
    variables = layer.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    return dict(zip([variable.name for variable in variables], gradients, strict=True))


def test_kl_is_the_closed_form_summed_over_all_weights():
    scales = {"kernel": 0.5, "recurrent": 0.7, "bias": 2.0}
    layer = make(**BAYESIAN_BIAS, **{f"{name}_prior": {"name": "normal", "scale": s} for name, s in scales.items()})
    expected = sum(
        tf.reduce_sum(tfd.kl_divergence(tfd.Normal(loc, scale), tfd.Normal(np.float64(0), prior_scale))).numpy()
        for (loc, scale), prior_scale in zip(parameters_of(layer).values(), scales.values(), strict=True)
    )
    assert layer.kl().shape == ()
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)
    assert layer.recurrent_posterior.event_shape == layer.recurrent_prior.event_shape == (UNITS, 4 * UNITS)


@pytest.mark.parametrize("training", [True, False])
def test_a_kl_without_closed_form_reuses_the_draw_of_the_call(training, injected_noise):
    layer = make(kernel_prior="scale_mixture", recurrent_prior="scale_mixture", kl_weight=1.0, use_bias=False)
    under(injected_noise, layer, inputs_of(), training=training)
    expected = 0.0
    for weight in layer.variational_weights.values():
        p = weight.parameters()
        draw = p["loc"] + p["scale"] * injected_noise.drawn[weight.name]
        expected += weight.posterior.log_prob(draw) - weight.prior.log_prob(draw)
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-4)


def test_kl_weight_and_regularizers_add_to_the_losses_of_a_plain_model():
    regularizers = {f"{name}_regularizer": keras.regularizers.L2(0.5) for name in ("kernel", "recurrent", "bias")}
    layer = make(kl_weight=0.125, activity_regularizer=keras.regularizers.L2(0.25), **regularizers)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    outputs = model(inputs_of(), training=True).numpy()
    weights = sum(0.5 * np.square(loc).sum() for loc, _ in parameters_of(layer).values())
    activity = 0.25 * np.square(outputs).sum() / len(outputs)
    np.testing.assert_allclose(sum(model.losses), 0.125 * float(layer.kl()) + weights + activity, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_for_the_outputs_only(policy):
    layer = make(dtype=policy, kl_weight=1e-3, return_state=True, **EVERYTHING)
    exact = make(return_state=True, **EVERYTHING)
    for training in (True, False):
        outputs = under(noise_of(), layer, inputs_of(), training=training)
        expected = under(noise_of(), exact, inputs_of(), training=training)
        assert {output.dtype for output in outputs} == {tf.as_dtype(layer.compute_dtype)}
        for output, value in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(tf.cast(output, tf.float32), value, atol=0.1)
    assert layer.kl().dtype == layer.losses[0].dtype == tf.float32
    assert {variable.dtype for variable in layer.trainable_variables} == {"float32"}
    layer.return_state = False
    for name, gradient in gradients_of(layer, inputs_of()).items():
        assert gradient.dtype == tf.float32, name
        assert np.isfinite(gradient).all(), name


def test_gradients_reach_all_trainable_variables():
    gradients = gradients_of(make(**EVERYTHING), inputs_of())
    assert len(gradients) == 9
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert np.isfinite(gradient).all(), name
        assert (np.asarray(gradient) != 0.0).all(), name


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_extreme_scales_stay_finite(extreme, policy):
    layer = make(dtype=policy, **BAYESIAN_BIAS)
    for variable in layer.trainable_variables:
        if variable.name.endswith("untransformed_scale"):
            variable.assign(np.full(variable.shape, extreme))
    assert np.isfinite(layer.kl())
    for training in (True, False):
        assert np.isfinite(tf.cast(layer(inputs_of(), training=training), tf.float32)).all()
    for name, gradient in gradients_of(layer, inputs_of()).items():
        assert np.isfinite(gradient).all(), name


def test_whole_numbers_are_inputs_like_others():
    layer, whole = make(), np.arange(4 * STEPS * FEATURES).reshape(4, STEPS, FEATURES) % 5
    np.testing.assert_array_equal(under(NoNoise(), layer, whole), under(NoNoise(), layer, whole.astype(np.float32)))
