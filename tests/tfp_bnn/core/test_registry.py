"""How a name, a config or an object becomes a spec (priors stand for all), and how things are registered."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from tfp_bnn.core.arguments import require_array
from tfp_bnn.core.origin import Origin
from tfp_bnn.core.registry import Registry, Spec, SpecRegistry
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.priors import PRIORS, Normal, ScaleMixture
from tfp_bnn.priors.hyperpriors import HalfNormal


def test_a_spec_comes_from_a_name_a_mapping_a_config_or_an_object():
    expected = Normal(0.3)
    for form in ({"name": "normal", "scale": 0.3}, keras.saving.serialize_keras_object(expected), Normal(0.3)):
        assert PRIORS.get(form) == expected
    assert PRIORS.get("normal") == Normal() != expected
    assert Normal() != ScaleMixture()
    assert len({Normal(0.3), Normal(0.3), Normal(0.4), ScaleMixture()}) == 3
    assert (
        repr(expected)
        == "Normal(scale=0.3, empirical_bayes=False, hyperprior=None, shared=None, loc=0.0, learn_loc=False)"
    )


def test_a_mapping_is_left_as_it_is():
    mapping = {"name": "normal", "scale": 0.3}
    PRIORS.get(mapping)
    assert mapping == {"name": "normal", "scale": 0.3}


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        ("nomral", ValueError, "Unknown prior 'nomral'. Did you mean 'normal'? Expected one of: "),
        ("", ValueError, "Unknown prior ''. Expected one of"),
        ({"name": "spike"}, ValueError, "Unknown prior 'spike'. Expected one of: "),
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


def test_an_unregistered_subclass_is_refused():
    class Mine(Normal):
        pass

    with pytest.raises(
        TypeError, match=r"Mine \(package .*is not registered: put @PRIORS\.register\('its_name'\) above"
    ):
        PRIORS.get(Mine())
    with pytest.raises(TypeError, match=r"or a registered prior object\. HalfNormal is a hyperprior\.$"):
        PRIORS.get(HalfNormal())
    assert PRIORS.name_of(Mine()) == "Mine"
    assert PRIORS.name_of(Normal()) == "normal"
    with pytest.raises(ValueError, match="`scale` of the prior 'Mine' must be a finite number larger than 0"):
        Mine(scale=-1.0)
    assert isinstance(PRIORS, SpecRegistry)


# === Registering ===


def defined(module, name="Thing", bases=(Spec,), **body):
    """A class as if defined at the top of a module."""
    return type(name, bases, {"__module__": module, "__qualname__": name, "__doc__": "A thing.", **body})


@pytest.fixture
def things():
    """A registry of specs, forgotten at Keras after the test."""
    registry = SpecRegistry("thing")
    yield registry
    for name in list(registry):
        registry.unregister(name)
    assert not [name for name in keras.saving.get_custom_objects() if ".things>" in name]


def test_a_name_is_registered_once_and_remembers_its_package():
    registry = Registry("thing")
    assert registry.register("one")(defined) is defined
    with pytest.raises(
        ValueError, match=r"The thing 'one' is already registered as \S+\.defined \(package 'tests'\), so "
    ):
        registry.register("one")(require_array)
    with pytest.raises(
        ValueError, match=r"so tfp_bnn\.core\S+ \(package 'tfp_bnn'\) cannot use this name\. Choose another name\."
    ):
        registry.register("one")(require_array)
    registry.register("two")(require_array)
    assert list(registry) == ["one", "two"]
    assert len(registry) == 2
    assert "one" in registry
    assert "three" not in registry
    assert registry["two"] is require_array
    assert (registry.package_of("one"), registry.package_of("two")) == ("tests", "tfp_bnn")
    registry.unregister("one")
    assert list(registry) == ["two"]
    with pytest.raises(ValueError, match="Unknown thing 'one'"):
        registry.unregister("one")


@pytest.mark.parametrize("name", ["", None, 3])
def test_what_is_no_name_is_not_registered(name):
    with pytest.raises(ValueError, match="A thing is registered under a name, but got"):
        Registry("thing").register(name)(defined)


def test_the_origin_can_be_given_for_things_that_do_not_know_it():
    registry = Registry("thing")
    registry.register("one", Origin("theirs.module", "name"))("first")
    assert str(registry.origin_of("one")) == "theirs.module.name (package 'theirs')"


def test_a_class_is_registered_at_keras_under_its_own_package(things):
    ours, theirs = defined("tfp_bnn.core.x"), defined("theirs.deep.module")
    things.register("ours")(ours)
    things.register("theirs")(theirs)
    assert keras.saving.get_registered_name(ours) == "tfp_bnn.things>Thing"
    assert keras.saving.get_registered_name(theirs) == "theirs.things>Thing"
    for cls in (ours, theirs):
        assert type(things.get(keras.saving.serialize_keras_object(cls()))) is cls


def test_our_classes_have_the_names_that_saved_files_have():
    assert keras.saving.get_registered_name(Normal) == "tfp_bnn.priors>Normal"
    assert keras.saving.get_registered_name(HalfNormal) == "tfp_bnn.hyperpriors>HalfNormal"
    assert keras.saving.get_registered_name(MeanFieldNormal) == "tfp_bnn.posteriors>MeanFieldNormal"


def test_a_name_that_keras_knows_already_is_refused_and_nothing_is_registered(things):
    first, second = defined("theirs.one"), defined("theirs.two")
    things.register("one")(first)
    message = "Keras already knows theirs.one.Thing (package 'theirs') as 'theirs.things>Thing', so theirs.two.Thing"
    with pytest.raises(ValueError, match=re.escape(message)):
        things.register("two")(second)
    assert list(things) == ["one"]
    assert keras.saving.get_custom_objects()["theirs.things>Thing"] is first


def test_a_taken_name_leaves_nothing_at_keras(things):
    things.register("one")(defined("theirs.one"))
    with pytest.raises(ValueError, match=r"'one' is already registered as theirs\.one\.Thing"):
        things.register("one")(defined("others.one", "Other"))
    assert "others.things>Other" not in keras.saving.get_custom_objects()


def test_what_is_no_spec_class_is_refused(things):
    with pytest.raises(TypeError, match="The thing 'one' must be a class made from `Spec`, but got <class 'int'>"):
        things.register("one")(int)
    assert not list(things)


def test_the_same_definition_may_be_registered_again_and_replaces_the_old_one(things):
    old, new = defined("theirs.one"), defined("theirs.one")
    things.register("one")(old)
    things.register("one")(new)
    assert things["one"] is new
    assert type(things.get(keras.saving.serialize_keras_object(old()))) is new
    with pytest.raises(TypeError, match="is not registered"):
        things.get(old())


def test_a_class_in_a_function_is_never_the_same_definition(things):
    def make():
        class Local(Spec):
            pass

        return Local

    things.register("one")(make())
    with pytest.raises(ValueError, match="'one' is already registered"):
        things.register("one")(make())


def test_a_file_from_when_all_packages_were_registered_as_ours_finds_their_class(things):
    ours, theirs = defined("tfp_bnn.things"), defined("theirs.one")
    things.register("ours")(ours)
    old = {"module": "theirs.one", "class_name": "Thing", "config": {}, "registered_name": "tfp_bnn.things>Thing"}
    with pytest.raises(TypeError, match=r"no such class is registered\. Import the package that registers it"):
        things.get(old)
    things.register("theirs")(theirs)
    assert type(things.get(old)) is theirs
    # The module of one of ours may have moved since.
    assert type(things.get({**old, "module": "tfp_bnn.older"})) is ours


def test_a_class_that_takes_our_name_at_keras_is_not_used_in_its_place():
    config = keras.saving.serialize_keras_object(Normal(0.3))
    custom = {"tfp_bnn.priors>Normal": defined("theirs.one", "Normal")}
    with keras.saving.custom_object_scope(custom):
        assert PRIORS.get(config) == Normal(0.3)


# === Arguments ===


class Base(Spec):
    def __init__(self, width, height=1.0):
        self.width, self.height = width, height

    def get_config(self):
        return {"width": self.width, "height": self.height}


class PassesOn(Base):
    def __init__(self, depth=2.0, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth


class Fixes(Base):
    def __init__(self, **kwargs):
        super().__init__(width=3.0, **kwargs)


class TakesAll(Spec):
    def __init__(self, **options):
        self.options = options


class Fails(Spec):
    def __init__(self):
        raise TypeError("of its own")


@pytest.mark.parametrize(("cls", "width"), [(Base, 2.0), (PassesOn, 2.0), (Fixes, 3.0)])
def test_arguments_are_taken_by_name(cls, width, things):
    things.register("one")(cls)
    arguments = {} if cls is Fixes else {"width": 2.0}
    made = things.get({"name": "one", **arguments, "height": 5.0})
    assert (made.width, made.height) == (width, 5.0)
    with pytest.raises(ValueError, match=r"argument of the thing 'one': 'heigth'\. Did you mean 'height'\?"):
        things.get({"name": "one", "heigth": 5.0})


@pytest.mark.parametrize("cls", [Base, PassesOn])
@pytest.mark.parametrize(
    ("identifier", "example"),
    [
        ("one", "{'name': 'one', 'width': ...}"),
        ({"name": "one"}, "{'name': 'one', 'width': ...}"),
        ({"name": "one", "height": 2.0}, "{'name': 'one', 'height': ..., 'width': ...}"),
    ],
)
def test_a_missing_argument_is_named_with_the_way_to_pass_it(cls, identifier, example, things):
    things.register("one")(cls)
    message = f"The thing 'one' needs a value for 'width'. Pass a mapping, {example}, or an object of the class "
    with pytest.raises(ValueError, match=re.escape(message)):
        things.get(identifier)


def test_a_constructor_may_take_any_argument(things):
    things.register("one")(TakesAll)
    assert things.get({"name": "one", "anything": 1}).options == {"anything": 1}


def test_an_error_of_the_constructor_itself_is_left_alone(things):
    things.register("one")(Fails)
    with pytest.raises(TypeError, match="of its own"):
        things.get("one")


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
