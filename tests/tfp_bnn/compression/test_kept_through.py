"""Pruned weights stay pruned, whatever is done with the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.callbacks.measuring import layer_posteriors
from tfp_bnn.compression import prune, sparsity
from tfp_bnn.inference import hmc, map_estimate
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.weight_record import WeightRecord, assign_weight_distributions, weight_distributions
from tfp_bnn.transfer import informed_prior, to_deterministic, transfer_posterior

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3
EPS = np.float32(np.finfo(np.float32).eps)


def unpruned():
    keras.utils.set_random_seed(1)
    layers = [DenseFlipout(5, activation="tanh", name="a"), DenseFlipout(3, name="b")]
    return tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0)


@pytest.fixture(scope="module")
def model():
    return prune(unpruned(), 0.6)


def kernels(model):
    return [layer.variational_weights["kernel"] for layer in model.variational_layers]


def assert_same_zeros(model, expected):
    assert sparsity(model) == sparsity(expected)
    for weight, known in zip(kernels(model), kernels(expected), strict=True):
        np.testing.assert_array_equal(weight.kept, known.kept)
        draws = np.asarray(weight.posterior.sample(3, seed=(1, 2)))
        assert not draws[:, ~known.kept].any()
        assert draws[:, known.kept].all()


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.1),
        keras.optimizers.AdamW(0.1, weight_decay=0.1),
        keras.optimizers.SGD(0.1, momentum=0.9),
        tfp_bnn.NaturalGradient(0.1, 0.1),
        tfp_bnn.NaturalGradient(0.1, 0.1, temperature=0.5),
    ],
    ids=["adam", "adamw", "sgd", "natural_gradient", "cold"],
)
def test_training(optimizer, model):
    trained = prune(unpruned(), 0.6)
    before = kernels(trained)[0].mean.numpy()
    trained.compile(optimizer, run_eagerly=True)
    losses = trained.fit(X, Y, epochs=2, batch_size=6, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert_same_zeros(trained, model)
    moved = kernels(trained)[0].mean.numpy() != before
    np.testing.assert_array_equal(moved, kernels(model)[0].kept)


def test_files_of_keras(model, tmp_path):
    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert_same_zeros(loaded, model)
    np.testing.assert_array_equal(*(m.posterior_predictive(X, num_samples=2, seed=0).samples for m in (loaded, model)))


def test_records_of_weights(model):
    record = WeightRecord.of(model)
    arrays = record.arrays()
    for layer, weight in zip("ab", kernels(model), strict=True):
        np.testing.assert_array_equal(arrays[f"{layer}/kernel/mask"], weight.kept)
        np.testing.assert_array_equal(arrays[f"{layer}/kernel/loc"][~weight.kept], 0)
        np.testing.assert_array_equal(arrays[f"{layer}/kernel/scale"][~weight.kept], EPS)
    assert record.num_weights == WeightRecord.of(unpruned()).num_weights
    other = prune(unpruned(), 0.0)
    WeightRecord.from_arrays(arrays).assign_to(other)
    assert_same_zeros(other, model)


def test_a_mask_is_checked_before_anything_changes(model):
    other = prune(unpruned(), 0.6)
    before = weight_distributions(other)
    for bad in (0.5, -1.0, np.nan):
        arrays = {**before, "b/kernel/mask": np.full_like(before["b/kernel/mask"], bad)}
        with pytest.raises(ValueError, match="mask"):
            assign_weight_distributions(other, arrays)
    weight = kernels(other)[0]
    with pytest.raises(ValueError, match="'mask'"):
        weight.assign_parameters({name: v for name, v in weight.parameters().items() if name != "mask"})
    for name, value in weight_distributions(other).items():
        np.testing.assert_array_equal(value, before[name])


def test_informed_priors(model):
    tuned = informed_prior(model, inflate=2.0)
    assert_same_zeros(tuned, model)
    for weight, known in zip(kernels(tuned), kernels(model), strict=True):
        scale = np.asarray(weight.prior.stddev())
        np.testing.assert_allclose(scale, 2 * np.asarray(known.posterior.stddev()), rtol=1e-6)
    tuned.compile("adam", run_eagerly=True)
    tuned.fit(X, Y, verbose=0)
    assert_same_zeros(tuned, model)


def test_a_posterior_is_not_transferred_where_its_zeros_would_be_lost(model):
    before = unpruned()
    with pytest.raises(ValueError, match="mean_field_normal, pruned in the source, mean_field_normal in the target"):
        transfer_posterior(model, before, inflate=None)
    target = prune(unpruned(), 0.0)
    transfer_posterior(model, target, inflate=None)
    assert_same_zeros(target, model)


def test_points_and_chains(model):
    point = map_estimate(model)
    assert_same_zeros(point, model)
    with pytest.raises(ValueError, match="a/kernel are pruned, and `hmc` would move them"):
        hmc(model, X, Y, plain_prior="normal")


def test_deterministic_networks(model):
    network = to_deterministic(model)
    for layer, weight in zip("ab", kernels(model), strict=True):
        np.testing.assert_array_equal(np.asarray(network.get_layer(layer).kernel) != 0, weight.kept)


def test_summaries_and_callbacks_say_so(model):
    lines = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    for share in sparsity(model).values():
        assert f"{100 * share:.1f} %" in text
    posteriors = layer_posteriors(model)
    for layer, weight in zip("ab", kernels(model), strict=True):
        assert posteriors[layer].mean.shape == (weight.kept.sum(),)
        assert np.isfinite(posteriors[layer].signal_to_noise).all()


def test_configs_without_pruning_are_as_before():
    """Files and artifacts keep their contents, and earlier versions can read them."""
    for name in ("mean_field_normal", "delta"):
        assert "pruned" not in tfp_bnn.posteriors.POSTERIORS.get(name).get_config()
        assert tfp_bnn.posteriors.POSTERIORS.get({"name": name, "pruned": True}).get_config()["pruned"] is True
        with pytest.raises(ValueError, match="`pruned` must be True or False, but got 'yes'"):
            tfp_bnn.posteriors.POSTERIORS.get({"name": name, "pruned": "yes"})
