"""The Bayesian embedding: its draws, what it shares with its Keras twin, and ids that do not exist."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.core.noise import NoNoise, noise_scope
from tfp_bnn.layers import EmbeddingReparameterization
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions

IDS = np.array([[4, 9, 0], [9, 9, 3]])


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def make(seed=0, built=True, **kwargs):
    """A layer of 10 ids with 4 numbers each, whose parameters all differ."""
    layer = EmbeddingReparameterization(10, 4, seed=seed, **kwargs)
    if built:
        layer.build()
        rng = np.random.default_rng(0)
        weight = layer.variational_weights["embeddings"]
        parameters = {"loc": rng.normal(size=(10, 4)), "scale": rng.uniform(0.2, 0.8, (10, 4))}
        weight.assign_parameters({**weight.parameters(), **parameters})
    return layer


def under(noise, layer, ids, training=False):
    with noise_scope({id(layer): noise}):
        return layer(ids, training=training)


# === The draw ===


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_exact_under_known_noise(training, injected_noise):
    layer = make()
    p = layer.variational_weights["embeddings"].parameters()
    outputs = under(injected_noise, layer, IDS, training)
    assert list(injected_noise.drawn) == ["embeddings"]
    table = p["loc"] + p["scale"] * injected_noise.drawn["embeddings"]
    np.testing.assert_allclose(outputs, table[IDS], rtol=1e-5)


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [True, False])
def test_without_noise_it_is_the_keras_twin(training, dtype):
    layer = make(dtype=dtype)
    twin = keras.layers.Embedding(10, 4, weights=np.asarray(layer.embeddings), dtype=dtype)
    for ids in (IDS, IDS[0], IDS.astype(np.uint8), IDS.astype(np.int32), IDS + 0.7, IDS[..., None], IDS[:0]):
        outputs, expected = under(NoNoise(), layer, ids, training), twin(ids)
        assert outputs.dtype == expected.dtype
        np.testing.assert_array_equal(outputs, expected)


def test_an_id_has_one_vector_in_a_batch_and_another_in_the_next():
    layer = make()
    for training in (True, False):
        one, other = layer(IDS, training=training).numpy(), layer(IDS, training=training).numpy()
        np.testing.assert_array_equal(one[0, 1], one[1, 0])
        np.testing.assert_array_equal(one[0, 1], one[1, 1])
        assert (one != other).all()
    first, second = (make(name="words")(IDS, training=True) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.statistical
def test_vectors_have_the_moments_of_the_posterior(draw_outputs, assert_moments):
    # 4,000 draws of 24 entries; false-failure rate 1e-6.
    layer = make()
    p = layer.variational_weights["embeddings"].parameters()
    draws = draw_outputs(layer, IDS, 4000, training=True)
    assert_moments(draws, p["loc"][IDS].astype(np.float64), p["scale"][IDS].astype(np.float64) ** 2)


# === As a Keras layer ===


def test_arguments_variables_and_properties():
    of_twin = list(inspect.signature(keras.layers.Embedding.__init__).parameters)
    ours = list(inspect.signature(EmbeddingReparameterization.__init__).parameters)
    own = ["embeddings_prior", "embeddings_posterior", "seed", "kl_weight"]
    assert [name for name in ours if name not in own] == [
        name for name in of_twin if not name.startswith(("lora", "quantization"))
    ]
    assert [name for name in ours if name not in of_twin] == own
    layer = make()
    assert {v.name: v.dtype for v in layer.trainable_variables} == {
        "embeddings_loc": "float32",
        "embeddings_untransformed_scale": "float32",
    }
    assert layer.embeddings is layer.trainable_variables[0]
    assert layer.embeddings_posterior.event_shape == layer.embeddings_prior.event_shape == (10, 4)


def test_kl_is_the_closed_form_summed_over_all_rows():
    layer = make(embeddings_prior={"name": "normal", "scale": 0.7})
    p = layer.variational_weights["embeddings"].parameters()
    expected = tf.reduce_sum(tfd.kl_divergence(tfd.Normal(p["loc"], p["scale"]), tfd.Normal(0.0, 0.7)))
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)


def test_symbolic_outputs_are_those_of_the_twin():
    for dtype in (None, "mixed_bfloat16"):
        for training in (None, True):
            symbolic = make(dtype=dtype)(keras.Input((7,), dtype="int32"), training=training)
            expected = keras.layers.Embedding(10, 4, dtype=dtype)(keras.Input((7,), dtype="int32"))
            assert symbolic.shape == expected.shape == (None, 7, 4)
            assert symbolic.dtype == expected.dtype


def test_the_id_zero_can_be_a_mask():
    layer, twin = make(mask_zero=True), keras.layers.Embedding(10, 4, mask_zero=True)
    np.testing.assert_array_equal(layer.compute_mask(IDS), twin.compute_mask(IDS))
    np.testing.assert_array_equal(layer(IDS)._keras_mask, IDS != 0)
    assert layer.supports_masking
    assert not make().supports_masking
    assert make().compute_mask(IDS) is None


def test_given_weights_are_the_posterior_mean():
    table = np.arange(40.0).reshape(10, 4)
    for weights in (table, [table]):
        layer = EmbeddingReparameterization(10, 4, weights=weights)
        np.testing.assert_array_equal(layer.embeddings_posterior.mean(), table)
    with pytest.raises(ValueError, match="must match"):
        EmbeddingReparameterization(10, 4, weights=table[:5])


def test_regularizer_and_constraint_act_on_the_posterior_mean():
    layer = make(embeddings_regularizer=keras.regularizers.L2(0.5), embeddings_constraint="non_neg", kl_weight=0.125)
    layer(IDS)
    expected = 0.5 * np.square(np.asarray(layer.embeddings)).sum() + 0.125 * float(layer.kl())
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=1e-5)
    assert [v.constraint is not None for v in layer.trainable_variables] == [True, False]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_for_the_outputs_only(dtype):
    layer = make(dtype=dtype, kl_weight=1e-3)
    with tf.GradientTape() as tape:
        outputs = layer(IDS, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2) + layer.losses[0]
    assert outputs.dtype == layer.compute_dtype
    assert layer.kl().dtype == layer.losses[0].dtype == tf.float32
    for gradient in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert gradient.dtype == tf.float32
        # Rows that were not looked up have a gradient too, that of the KL.
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient) != 0).all()


@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_extreme_scales_stay_finite(extreme):
    layer = make()
    scale = layer.trainable_variables[1]
    scale.assign(np.full(scale.shape, extreme))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(IDS, training=True) ** 2) + layer.kl()
    assert np.isfinite(loss)
    for gradient in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert np.isfinite(gradient).all()


def test_config_round_trip():
    layer = make(
        built=False,
        seed=3,
        mask_zero=True,
        embeddings_initializer="ones",
        embeddings_prior={"name": "scale_mixture", "scale_1": 0.7},
        embeddings_posterior={"name": "mean_field_normal", "initial_scale": 0.01},
        kl_weight=0.5,
        dtype="mixed_bfloat16",
        name="mine",
    )
    config = layer.get_config()
    arguments = set(inspect.signature(EmbeddingReparameterization.__init__).parameters)
    # As in Keras, `weights` are not of the config.
    assert arguments - {"self", "kwargs", "weights"} <= set(config)
    for copy in (
        EmbeddingReparameterization.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True),
    ):
        assert type(copy) is EmbeddingReparameterization
        assert copy.get_config() == config
        copy.build()
        np.testing.assert_array_equal(copy.embeddings_posterior.mean(), 1.0)
        np.testing.assert_allclose(copy.embeddings_posterior.stddev(), 0.01, rtol=1e-4)


# === In a model ===


def network(**kwargs):
    layers = [
        keras.Input((3,), dtype="int32"),
        EmbeddingReparameterization(10, 4, name="words", **kwargs),
        keras.layers.Flatten(),
        keras.layers.Dense(2, name="outputs"),
    ]
    return tfp_bnn.VariationalSequential(layers, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_it_trains_in_a_bayesian_model(run_eagerly):
    model = network(embeddings_prior={"name": "normal", "empirical_bayes": True})
    ids = np.random.default_rng(0).integers(10, size=(64, 3))
    data = tf.data.Dataset.from_tensor_slices((ids, (ids[:, 0] > 4).astype(np.int64))).batch(32)
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=run_eagerly)
    before = [v.numpy() for v in model.trainable_variables]
    history = model.fit(data, epochs=8, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).all(), variable.name


def test_a_sample_of_the_predictive_is_one_function():
    model, ids = network(), np.random.default_rng(0).integers(10, size=(7, 3))
    samples = model.posterior_predictive(ids, num_samples=4, seed=1, batch_size=7).samples
    other = model.posterior_predictive(ids, num_samples=4, seed=1, batch_size=2).samples
    np.testing.assert_allclose(other, samples, atol=1e-6)
    assert len({sample.tobytes() for sample in samples}) == 4


def test_weights_and_noise_survive_a_file(tmp_path):
    layers = [keras.Input((3,), dtype="int32"), make(embeddings_prior={"name": "normal", "empirical_bayes": True})]
    model = keras.Sequential(layers)
    model(IDS, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert len(loaded.weights) == 3
    for training in (True, False):
        np.testing.assert_array_equal(loaded(IDS, training=training), model(IDS, training=training))


def test_its_distributions_are_stored_in_natural_units():
    model, other = network(), network()
    arrays = weight_distributions(model)
    assert [name for name in arrays if name.startswith("words")] == ["words/embeddings/loc", "words/embeddings/scale"]
    arrays["words/embeddings/scale"] = np.full((10, 4), 0.3, np.float32)
    assign_weight_distributions(other, arrays)
    np.testing.assert_allclose(other.layers[0].embeddings_posterior.stddev(), 0.3, rtol=1e-6)


# === Refusals ===


@pytest.mark.parametrize(("wrong", "unknown"), [(-1, -1), (10, 10), (1234, 1234), (float("nan"), -(2**31))])
def test_unknown_ids_are_refused(wrong, unknown):
    layer = make(name="words")
    ids = np.array([[4, wrong], [9, 0]])
    message = re.escape(
        f"The id {unknown} is not in the vocabulary of the layer words, which has input_dim=10 ids, 0 to 9."
    )
    with pytest.raises(ValueError, match=message):
        layer(ids)
    compiled = tf.function(lambda x: layer(x), autograph=False)
    in_parts = rf"\[The id\] \[{unknown}\] \[is not in the vocabulary of the layer words"
    with pytest.raises(tf.errors.InvalidArgumentError, match=in_parts):
        compiled(tf.constant(ids))


@pytest.mark.slow
def test_unknown_ids_in_training_are_a_value_error():
    model = network()
    model.compile()
    ids, labels = np.zeros((8, 3), np.int32), np.zeros(8, np.int64)
    model.fit(ids, labels, verbose=0)
    before = weight_distributions(model)
    ids[5, 1] = 12
    message = r"^The id 12 is not in the vocabulary of the layer words, which has input_dim=10 ids, 0 to 9\."
    for data in ((ids, labels), (tf.data.Dataset.from_tensor_slices((ids, labels)).batch(8),)):
        with pytest.raises(ValueError, match=message):
            model.fit(*data, verbose=0)
        with pytest.raises(ValueError, match=message):
            model.evaluate(*data, verbose=0)
    for name, array in weight_distributions(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_xla_compiles_it():
    layer = make()
    compiled = tf.function(lambda ids: under(NoNoise(), layer, ids), jit_compile=True, autograph=False)
    np.testing.assert_array_equal(compiled(tf.constant(IDS)), np.asarray(layer.embeddings)[IDS])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "`input_dim` must be a positive integer"),
        ({"output_dim": -1}, "`output_dim` must be a positive integer"),
        ({"lora_rank": 2}, "does not support `lora_rank`"),
        ({"quantization_config": "int8"}, "does not support `quantization_config`"),
        ({"embeddings_prior": "norml"}, "Unknown prior 'norml'. Did you mean 'normal'?"),
        ({"kl_weight": -1.0}, "`kl_weight` must be None or a finite number >= 0, but got -1.0"),
        ({"seed": 1.5}, "`seed` must be an integer or None, but got 1.5"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EmbeddingReparameterization(**{"input_dim": 10, "output_dim": 4, **arguments})
