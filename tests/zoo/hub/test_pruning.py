"""A pruned model of the zoo is an artifact like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.compression import sparsity

X = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]])


@pytest.fixture(scope="module")
def pruned():
    return zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.75)


def test_it_is_saved_and_loaded_with_its_zeros(pruned, tmp_path):
    folder = zoo.save_artifact(pruned, tmp_path / "pruned")
    loaded = zoo.load_artifact(folder, trust=True)
    assert sparsity(loaded) == sparsity(pruned)
    np.testing.assert_allclose(
        *(m.posterior_predictive(X, num_samples=4, seed=0).samples for m in (loaded, pruned)), rtol=1e-4, atol=1e-6
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["config"]["kernel_posterior"]["pruned"] is True
    assert "'pruned': True" in (folder / "README.md").read_text("utf-8")


def test_statistics_of_the_posterior_are_those_of_the_kept_weights(pruned):
    from tfp_bnn.models.weight_record import WeightRecord
    from zoo.hub.cards import posterior_statistics

    weights = [w for layer in pruned.variational_layers for w in layer.variational_weights.values()]
    scales = np.concatenate([w.posterior_parameters()["scale"][w.kept] for w in weights])
    assert posterior_statistics(WeightRecord.of(pruned))["median_scale"] == pytest.approx(np.median(scales))


@pytest.mark.slow
def test_it_is_fine_tuned_with_its_zeros(pruned):
    data = zoo.load_dataset("iris")
    part = (data.train.x[:30], data.train.y[:30])
    tuned = zoo.fine_tune(pruned, part, inflate=1.0, head="keep", steps=5).model
    assert sparsity(tuned) == sparsity(pruned)


def test_what_is_not_of_the_zoo_is_refused():
    model = tfp_bnn.VariationalSequential([tfp_bnn.layers.DenseFlipout(1)])
    with pytest.raises(ValueError, match=r"tfp_bnn.compression.prune for other models"):
        zoo.prune(model, 0.5)
