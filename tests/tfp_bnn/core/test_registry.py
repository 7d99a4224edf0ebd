"""The registries, and how a name, a config or an object becomes a spec: priors stand for all."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from tfp_bnn.core.arguments import require_array
from tfp_bnn.core.registry import Registry, SpecRegistry
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.priors import PRIORS, Normal, ScaleMixture
from tfp_bnn.priors.hyperpriors import HalfNormal

KNOWN = "cauchy, flat, horseshoe, informed, laplace, normal, scale_mixture, student_t."


def test_a_spec_comes_from_a_name_a_mapping_a_config_or_an_object():
    expected = Normal(0.3)
    for form in ({"name": "normal", "scale": 0.3}, keras.saving.serialize_keras_object(expected), Normal(0.3)):
        assert PRIORS.get(form) == expected
    assert PRIORS.get("normal") == Normal() != expected
    assert Normal() != ScaleMixture()
    assert len({Normal(0.3), Normal(0.3), Normal(0.4), ScaleMixture()}) == 3
    assert repr(expected) == "Normal(scale=0.3, empirical_bayes=False, hyperprior=None, shared=None)"


def test_a_mapping_is_left_as_it_is():
    mapping = {"name": "normal", "scale": 0.3}
    PRIORS.get(mapping)
    assert mapping == {"name": "normal", "scale": 0.3}


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        ("nomral", ValueError, f"Unknown prior 'nomral'. Did you mean 'normal'? Expected one of: {KNOWN}"),
        ("", ValueError, "Unknown prior ''. Expected one of"),
        ({"name": "spike"}, ValueError, f"Unknown prior 'spike'. Expected one of: {KNOWN}"),
        ({"name": None}, ValueError, "Unknown prior None."),
        ({"name": ["normal"]}, ValueError, "Unknown prior ['normal']."),
        ({"name": "normal", "scael": 1.0}, ValueError, "prior 'normal': 'scael'. Did you mean 'scale'?"),
        ({"name": "flat", "scale": 1.0}, ValueError, "The prior 'flat' takes no arguments, but got 'scale'."),
        ({"name": "normal", "scale": "big"}, ValueError, "`scale` of the prior 'normal' must be a finite number"),
        ({"scale": 1.0}, TypeError, "Cannot make a prior from {'scale': 1.0}."),
        (None, TypeError, "Cannot make a prior from None."),
        (Normal, TypeError, "Cannot make a prior from <class"),
        (HalfNormal(), TypeError, "Cannot make a prior from HalfNormal("),
        (
            keras.saving.serialize_keras_object(MeanFieldNormal()),
            TypeError,
            "Cannot make a prior from MeanFieldNormal(",
        ),
    ],
)
def test_what_makes_no_prior_is_refused(identifier, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PRIORS.get(identifier)


def test_a_name_is_registered_once():
    registry = Registry("thing")
    assert registry.register("one")("first") == "first"
    with pytest.raises(ValueError, match=r"The thing 'one' is already registered as 'first'\. Choose another name\."):
        registry.register("one")("second")
    registry.register("two")("second")
    assert list(registry) == ["one", "two"]
    assert len(registry) == 2
    assert "one" in registry
    assert "three" not in registry
    assert registry["two"] == "second"


def test_an_unregistered_subclass_is_refused():
    class Mine(Normal):
        pass

    with pytest.raises(TypeError, match="registered prior object"):
        PRIORS.get(Mine())
    assert PRIORS.name_of(Mine()) == "Mine"
    assert PRIORS.name_of(Normal()) == "normal"
    with pytest.raises(ValueError, match="`scale` of the prior 'Mine' must be a finite number larger than 0"):
        Mine(scale=-1.0)
    assert isinstance(PRIORS, SpecRegistry)


# === Arrays ===


def test_an_array_comes_back_in_float32():
    array = require_array("posterior", {"scale": [[0.25, 2]]}, "scale", (1, 2), least=0.25)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[0.25, 2.0]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loc": 1.0}, "The posterior needs the value 'scale', but got only ['loc']."),
        ({"scale": np.ones(3)}, "The posterior scale must have the shape (2,), but got an array of (3,)."),
        ({"scale": [1.0, 0.1]}, "must be finite and at least 0.25, but 1 of 2 values are not; the first is 0.1"),
        ({"scale": [np.nan, 1.0]}, "but 1 of 2 values are not; the first is nan at index (0,)."),
        ({"scale": [1e300, -1.0]}, "but 2 of 2 values are not; the first is inf at index (0,)."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        require_array("posterior", values, "scale", (2,), least=0.25)
