"""Bad input: every layer refuses it with the name of the argument and its value, at construction where possible."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.layers import DenseFlipout, EmbeddingReparameterization, HierarchicalDenseReparameterization
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.priors import PRIORS, Normal

from .cases import LAYER_CASES, LAYERS, Case, for_each_layer, operation_of

# What the base class of all layers refuses is asked in full of this one.
DENSE = Case(DenseFlipout, "mean_field_normal")
WITH_GROUPS = [case for case in LAYER_CASES if {"groups", "filters"} <= {*inspect.signature(case.layer).parameters}]
# An embedding takes ids of any shape.
WITH_CHANNELS = [case for case in LAYER_CASES if operation_of(case.layer) != "Embedding"]
WITH_OPTIONAL_BIAS = [case for case in LAYER_CASES if "bias" in case.layer.optional_weights]
SIZES = ("units", "filters", "kernel_size", "num_groups", "num_heads", "key_dim", "value_dim")
WITH_SIZES = [case for case in WITH_CHANNELS if set(SIZES) & set(case.operation.arguments)]


def of_the_first_weight(case, role):
    """The name of the argument for the prior or posterior of the first weight."""
    return next(iter(case.of_all_weights(role, None)))


# Of the prior or posterior of a weight; `{}` is the argument.
REFUSED = [
    ("prior", "norml", "Unknown prior 'norml'. Did you mean 'normal'? Expected one of: "),
    ("prior", "scalemixture", "Did you mean 'scale_mixture'?"),
    ("prior", {"name": "normal", "scal": 1.0}, "Unknown argument of the prior 'normal': 'scal'. Did you mean 'scale'?"),
    ("prior", {"name": "normal", "scale": -1.0}, "`scale` of the prior 'normal' must be a finite number larger than 0"),
    ("prior", {"name": "normal", "scale": -1.0}, "but got -1.0"),
    ("prior", {"name": "normal", "scale": 0}, "but got 0"),
    ("prior", {"name": "student_t", "df": 0.0}, "`df` of the prior 'student_t' must be"),
    ("posterior", "mean_field", "Unknown posterior 'mean_field'. Did you mean 'mean_field_normal'?"),
    (
        "posterior",
        {"name": "mean_field_normal", "sigma": 1.0},
        "Unknown argument of the posterior 'mean_field_normal': 'sigma'. Expected one of: initial_scale",
    ),
    ("posterior", {"name": "mean_field_normal", "initial_scale": -0.1}, "`initial_scale` of the posterior"),
    ("posterior", {"name": "mean_field_normal", "initial_scale": -0.1}, "but got -0.1"),
    ("posterior", {"name": "mean_field_normal", "initial_scale": 0}, "but got 0."),
]


@pytest.mark.parametrize(("role", "spec", "message"), REFUSED)
def test_priors_and_posteriors_that_make_no_sense_are_refused(role, spec, message):
    for argument in DENSE.of_all_weights(role, None):
        with pytest.raises(ValueError, match=re.escape(message)):
            DENSE.make(**{argument: spec})


@for_each_layer
def test_every_weight_of_every_layer_refuses_a_bad_prior_and_a_bad_posterior(case):
    for role in ("prior", "posterior"):
        for argument in case.of_all_weights(role, None):
            with pytest.raises(ValueError, match=f"Unknown {role} 'unheard_of'"):
                case.make(**{argument: "unheard_of"})


@pytest.mark.parametrize("wrong", [None, 3, ["normal"], MeanFieldNormal(), Normal, {"scale": 1.0}])
def test_things_that_are_no_prior_are_refused(wrong):
    with pytest.raises(TypeError, match=r"Cannot make a prior from .* Expected a name \(.*\bnormal\b"):
        DENSE.make(**{of_the_first_weight(DENSE, "prior"): wrong})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lora_rank", 2, "does not support `lora_rank`"),
        ("lora_alpha", 2, "does not support `lora_alpha`"),
        ("quantization_config", "int8", "does not support `quantization_config`"),
        *(("seed", value, f"`seed` must be an integer or None, but got {value!r}") for value in (True, 1.5)),
        ("seed", 2**63, f"`seed` must be an integer of at most 64 bits, but got {2**63}."),
        *(
            ("kl_weight", value, f"`kl_weight` must be None or a finite number >= 0, but got {value!r}")
            for value in (-1.0, True, float("nan"), float("inf"), "1")
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DENSE.make(**{name: value})


@for_each_layer
def test_every_layer_refuses_what_its_base_class_refuses(case):
    for name, value in (("lora_rank", 2), ("quantization_config", "int8"), ("seed", 1.5), ("kl_weight", -1.0)):
        with pytest.raises(ValueError, match=f"`{name}`"):
            case.make(**{name: value})


@pytest.mark.parametrize("case", WITH_OPTIONAL_BIAS, ids=str)
def test_a_bias_cannot_be_bayesian_and_absent_or_deterministic_and_have_a_prior(case):
    with pytest.raises(ValueError, match="Got bias_prior='normal' without a `bias_posterior`"):
        case.make(bias_posterior=None, bias_prior="normal")
    without = {"bias_axes": None} if operation_of(case.layer) == "EinsumDense" else {"use_bias": False}
    ((name, value),) = without.items()
    with pytest.raises(ValueError, match=f"with {name}={value}"):
        case.make(**without)


@pytest.mark.parametrize("case", WITH_SIZES, ids=str)
def test_a_size_that_is_not_positive_is_refused_by_name(case):
    for name in set(SIZES) & set(case.operation.arguments):
        with pytest.raises(ValueError, match=rf"{name}.*-1"):
            case.make(**{name: -1})


@pytest.mark.parametrize("case", WITH_GROUPS, ids=str)
def test_groups_that_do_not_divide_the_channels_are_refused(case):
    with pytest.raises(ValueError, match="groups=2, filters=3"):
        case.make(groups=2)
    with pytest.raises(ValueError, match="groups=3, but the input has 2 channels"):
        case.build(groups=3)


@pytest.mark.parametrize("case", WITH_CHANNELS, ids=str)
def test_inputs_of_too_low_a_rank_are_refused(case):
    layer = case.build(name="mine")
    first, *rest = case.inputs() if isinstance(case.inputs(), list) else [case.inputs()]
    wrong = first[0, ..., 0]
    with pytest.raises(ValueError, match=rf"'mine'.*(found ndim={wrong.ndim}|{re.escape(str(wrong.shape))})"):
        layer([wrong, *rest] if rest else wrong)


@pytest.mark.parametrize("case", WITH_CHANNELS, ids=str)
def test_inputs_of_another_width_are_refused(case):
    layer = case.build()
    first, *rest = case.inputs() if isinstance(case.inputs(), list) else [case.inputs()]
    wrong = np.concatenate([first, first], axis=-1)
    with pytest.raises(ValueError, match=rf"incompatible with the layer(.|\n)*{re.escape(str(wrong.shape))}"):
        layer([wrong, *rest] if rest else wrong)


@for_each_layer
def test_a_prior_of_another_shape_is_refused(case, monkeypatch):
    class Narrow(Normal):
        """A prior over tensors of one shape only."""

        def with_scale(self, shape, scale):
            return tfd.Independent(tfd.Normal(tf.zeros((2, 9)), scale), reinterpreted_batch_ndims=2)

    monkeypatch.setitem(PRIORS._things, "narrow", Narrow)
    argument = of_the_first_weight(case, "prior")
    message = r"The prior Narrow\(.*\) of '\w+' is over tensors of shape \(2, 9\), but the weight has shape \("
    with pytest.raises(ValueError, match=message):
        case.build(**{argument: "narrow"})


@for_each_layer
def test_distributions_exist_once_the_layer_is_built(case):
    layer = case.make(name="unbuilt")
    assert layer.variational_weights == {}
    prefixes = case.layer.bayesian_weights.values()
    for attribute in (
        "kl",
        "kl_terms",
        *(f"{prefix}_{role}" for prefix in prefixes for role in ("prior", "posterior")),
    ):
        with pytest.raises(
            ValueError, match=f"`{attribute}` of the layer 'unbuilt' exists only once the layer is built"
        ):
            getattr(layer, attribute)() if attribute.startswith("kl") else getattr(layer, attribute)


@for_each_layer
def test_lora_and_quantization_are_refused_later_too(case):
    layer = case.build()
    before = len(layer.trainable_variables)
    with pytest.raises(NotImplementedError, match="LoRA"):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError, match="quantized"):
        layer.quantize("int8")
    assert len(layer.trainable_variables) == before


@pytest.mark.parametrize("case", WITH_OPTIONAL_BIAS, ids=str)
def test_a_file_of_other_weights_is_refused(case, tmp_path):
    path = tmp_path / "model.weights.h5"
    shape = case.operation.shapes[0]
    keras.Sequential([keras.Input(shape), case.make(name="layer", bias_posterior=None)]).save_weights(path)
    other = keras.Sequential([keras.Input(shape), case.make(name="layer")])
    count = len(other.variables)
    with pytest.raises(ValueError, match=f"expected {count} variables, but received {count - 1}"):
        other.load_weights(path)


def test_the_lists_above_are_what_they_say():
    assert [case.layer for case in LAYER_CASES] == LAYERS
    assert WITH_GROUPS
    assert Case(EmbeddingReparameterization, "mean_field_normal") not in WITH_CHANNELS
    without = {EmbeddingReparameterization, HierarchicalDenseReparameterization}
    assert without.isdisjoint({case.layer for case in WITH_OPTIONAL_BIAS})
