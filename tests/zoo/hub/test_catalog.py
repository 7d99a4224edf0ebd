"""Architectures, by name and by arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import assign_weight_distributions, count_weights, weight_distributions
from zoo.architectures import ARCHITECTURES
from zoo.architectures.moments import column_moments

# For the arguments without a default, whatever the architecture.
VALUES = {"input_shape": (4,), "num_outputs": 3, "num_groups": 5}
ARGUMENTS = {
    name: {key: VALUES[key] for key, field in ARCHITECTURES[name].config.model_fields.items() if field.is_required()}
    for name in ARCHITECTURES
    if ARCHITECTURES.package_of(name) == "zoo"
}


def takes_images(name):
    return len(ARCHITECTURES[name].config(**ARGUMENTS[name]).input_shape) > 1


def test_every_architecture_is_tested():
    assert {"hierarchical_mlp", "mlp_flipout", "lenet5_flipout", "seedcnn_flipout", "resnet20_flipout"} <= set(
        ARGUMENTS
    )


@pytest.mark.parametrize(
    "name",
    [
        # Those of images take seconds to build and save.
        pytest.param(name, marks=pytest.mark.slow if takes_images(name) else ())
        for name in sorted(ARGUMENTS)
    ],
)
class TestEveryArchitecture:
    @pytest.mark.slow
    def test_predicts_trains_and_is_described(self, name):
        model = zoo.create_model(name, seed=0, **ARGUMENTS[name])
        x = model.architecture.config.some_inputs(8).astype("float32")
        num_outputs = model.architecture.config.num_outputs
        y = np.arange(8) % num_outputs
        model.compile("adam", metrics=["accuracy"])
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
        assert model.posterior_predictive(x, num_samples=2).mean().shape == (8, num_outputs)
        assert ARCHITECTURES[name].description.endswith(".")
        assert ARCHITECTURES[name].config.__doc__

    def test_config_round_trip(self, name, tmp_path):
        model = zoo.create_model(name, kernel_prior="scale_mixture", **ARGUMENTS[name])
        restored = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "x"), trust=True)
        assert restored.architecture == model.architecture

    def test_a_shared_prior_stays_one_in_an_artifact(self, name, tmp_path):
        prior = {"name": "laplace", "hyperprior": {"name": "half_cauchy", "scale": 0.5}, "shared": "all"}
        model = zoo.create_model(name, kernel_prior=prior, **ARGUMENTS[name])
        restored = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "x"), trust=True)
        assert list(restored.shared_priors) == ["all"]
        assert "learned `prior/all/scale`: 1" in (tmp_path / "x" / "README.md").read_text()

    def test_an_informed_prior_is_part_of_an_artifact(self, name, tmp_path):
        model = zoo.create_model(name, kernel_prior="informed", **ARGUMENTS[name])
        weight = model.variational_layers[0].variational_weights["kernel"]
        prior = {"prior_loc": np.full(weight.shape, 0.25), "prior_scale": np.full(weight.shape, 0.5)}
        weight.assign_parameters({**weight.parameters(), **prior})
        restored = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "x"), trust=True)
        np.testing.assert_array_equal(restored.variational_layers[0].kernel_prior.mean(), prior["prior_loc"])
        np.testing.assert_array_equal(restored.variational_layers[0].kernel_prior.stddev(), prior["prior_scale"])

    def test_keras_round_trip(self, name, tmp_path):
        model = zoo.create_model(name, **ARGUMENTS[name])
        model.save(tmp_path / "x.keras")
        restored = keras.models.load_model(tmp_path / "x.keras")
        for key, value in weight_distributions(model).items():
            np.testing.assert_array_equal(weight_distributions(restored)[key], value)

    def test_mixed_precision(self, name):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = zoo.create_model(name, **ARGUMENTS[name])
        finally:
            keras.config.set_dtype_policy("float32")
        x = np.ones((2, *model.architecture.config.input_shape), "float32")
        assert np.isfinite(model.posterior_predictive(x, num_samples=2).mean()).all()
        assert model.kl().dtype == "float32"


def test_lenet5_has_the_published_number_of_weights():
    assert count_weights(zoo.create_model("lenet5_flipout")) == 61_706


def test_arguments_reach_the_layers():
    model = zoo.create_model(
        "mlp_flipout", input_shape=(4,), num_outputs=2, hidden=(7, 5), kernel_prior="scale_mixture", initial_scale=0.01
    )
    shapes = [tuple(layer.kernel_posterior.event_shape) for layer in model.variational_layers]
    assert shapes == [(4, 7), (7, 5), (5, 2)]
    np.testing.assert_allclose(weight_distributions(model)["dense1/kernel/scale"], 0.01, rtol=1e-4)


def test_resnet20_has_the_published_number_of_weights():
    # He et al. 2016: 0.27 million, with projections where the width changes.
    kernels = 432 + 13_824 + 50_688 + 202_752 + 512 + 2_048 + 640
    # Gains and offsets of 688 channels, and 10 biases.
    assert count_weights(zoo.create_model("resnet20_flipout")) == kernels + 2 * 688 + 10


def test_resnet20_has_batch_normalization_only_on_request():
    def kinds(**arguments):
        model = zoo.create_model("resnet20_flipout", input_shape=(8, 8, 3), widths=(2, 3, 4), **arguments)
        return {type(layer).__name__ for layer in model.layers if "Norm" in type(layer).__name__}

    assert kinds() == {"FilterResponseNormalization"}
    assert kinds(normalization="batch") == {"BatchNormalization"}


@pytest.mark.parametrize("name", ["lenet5_flipout", "seedcnn_flipout", "cnn1d_flipout"])
def test_the_estimator_is_that_of_all_layers(name):
    def estimators(**arguments):
        model = zoo.create_model(name, **{**ARGUMENTS[name], **arguments})
        return {(layer.name[:4], layer.estimator.description) for layer in model.variational_layers}

    convolutions = {kind for kind, _ in estimators() if kind == "conv"}
    assert {description for _, description in estimators()} == {"flipout"}
    grouped = estimators(estimator="grouped", groups_of_noise=6)
    assert {description for kind, description in grouped if kind in convolutions} == {"grouped flipout, 6 groups"}
    assert {description for kind, description in grouped if kind not in convolutions} == {"flipout"}
    assert {d for _, d in estimators(estimator="reparameterization")} == {"reparameterization"}


def test_any_posterior_goes_with_reparameterization():
    arguments = {"input_shape": (4,), "num_outputs": 3, "kernel_posterior": "radial"}
    model = zoo.create_model("mlp_flipout", estimator="reparameterization", **arguments)
    assert model.posterior_predictive(np.ones((1, 4)), num_samples=2).mean().shape == (1, 3)
    with pytest.raises(ValueError, match="The flipout estimator does not exist for kernel_posterior=Radial"):
        zoo.create_model("mlp_flipout", **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("mlp_flipot", {}, "Unknown architecture.*Did you mean 'mlp_flipout'"),
        ("mlp_flipout", {"input_shap": (4,)}, "Did you mean 'input_shape'"),
        ("mlp_flipout", {"input_shape": (4,)}, "'num_outputs' is missing"),
        ("mlp_flipout", {"input_shape": (4,), "num_outputs": 0}, "'num_outputs' got 0"),
        ("mlp_flipout", {"input_shape": (4,), "num_outputs": 2, "kernel_prior": "normall"}, "Did you mean 'normal'"),
        ("mlp_flipout", {"input_shape": (4,), "num_outputs": 2, "input_mean": (0.0,)}, "go together"),
        ("lenet5_flipout", {"input_shape": (8, 8, 1)}, "too small.*resize"),
        ("lenet5_flipout", {"groups_of_noise": 1}, "'groups_of_noise' got 1"),
        ("hierarchical_mlp", {"input_shape": (3,), "num_outputs": 2}, "'num_groups' is missing"),
        ("hierarchical_mlp", {"input_shape": (3,), "num_outputs": 2, "num_groups": 0}, "'num_groups' got 0"),
        ("hierarchical_mlp", {"input_shape": (1,), "num_outputs": 2, "num_groups": 2}, "input_shape"),
        (
            "hierarchical_mlp",
            {"input_shape": (3,), "num_outputs": 2, "num_groups": 2, "group_prior": "normall"},
            "Did you mean 'normal'",
        ),
    ],
)
def test_bad_arguments(name, arguments, says):
    with pytest.raises(ValueError, match=says):
        zoo.create_model(name, **arguments)


def test_the_group_column_is_never_standardized():
    mean, variance = (1.0, 2.0, 8.5), (4.0, 9.0, 26.9)
    arguments = {"input_shape": (3,), "num_outputs": 2, "num_groups": 18}
    model = zoo.create_model("hierarchical_mlp", input_mean=mean, input_variance=variance, **arguments)
    config = model.architecture.config
    assert config.input_mean == (1.0, 2.0, 0.0)
    assert config.input_variance == (4.0, 9.0, 1.0)
    plain = zoo.create_model("hierarchical_mlp", **arguments)
    assign_weight_distributions(plain, weight_distributions(model))
    x = np.array([[3.0, -4.0, 17.0], [0.0, 0.0, 0.0]], "float32")
    standardized = np.array([[1.0, -2.0, 17.0], [-0.5, -2 / 3, 0.0]], "float32")
    np.testing.assert_allclose(
        model.plug_in_predictive(x).mean(), plain.plug_in_predictive(standardized).mean(), rtol=1e-5
    )
    with pytest.raises(ValueError, match="The group id 18 is unknown to the layer dense1, which has num_groups=18"):
        model.posterior_predictive(np.array([[0.0, 0.0, 18.0]]))


def test_objects_and_numbers_of_numpy_are_taken():
    prior = tfp_bnn.priors.Normal(0.3, hyperprior=tfp_bnn.hyperpriors.HalfNormal(2.0))
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=np.int64(2), kernel_prior=prior)
    assert model.architecture.config.kernel_prior == {
        "name": "normal",
        "scale": 0.3,
        "empirical_bayes": False,
        "hyperprior": {"name": "half_normal", "scale": 2.0},
        "shared": None,
        "loc": 0.0,
        "learn_loc": False,
    }
    assert model.output_shape == (None, 2)


def test_list_models_takes_wildcards():
    found = zoo.list_models("mlp_f*", pretrained=False)
    assert "mlp_flipout" in found
    assert all(name.startswith("mlp_f") and "." not in name for name in found)
    assert zoo.list_models("no_such*") == []
    several = zoo.list_models(["mlp*", "lenet*"], exclude=["*mnist", "mlp_flipout.*"], pretrained=True)
    assert several == ["lenet5_flipout.digits"]
    assert set(zoo.list_models()) == set(zoo.list_models(pretrained=True)) | set(zoo.list_models(pretrained=False))


def test_column_moments_of_a_constant_column():
    """Also of float64 numbers that have no exact mean: from rounding they would have a variance like 1e-32."""
    mean, variance = column_moments(np.tile([[1.0, 5.0, 0.1, 1000.1], [3.0, 5.0, 0.1, 1000.1]], (50, 1)))
    assert mean == (2.0, 5.0, np.float32(0.1), np.float32(1000.1))
    assert variance == (1.0, 1.0, 1.0, 1.0)
