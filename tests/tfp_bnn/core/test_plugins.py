"""When plug-ins are loaded, and what is left of one that fails: nothing."""

from __future__ import annotations

import re
import sys

import keras
import pytest

from tfp_bnn.core.plugins import PluginError, load_plugins
from tfp_bnn.priors import PRIORS, Normal

PRIOR = """
from tfp_bnn.priors import PRIORS, Prior

@PRIORS.register("{name}")
class {cls}(Prior):
    "A prior."
"""


def prior(name, cls="Theirs"):
    return PRIOR.format(name=name, cls=cls)


def test_a_name_that_is_unknown_is_looked_for_in_the_plugins(plugins):
    plugins.write(theirs=prior("theirs"))
    with pytest.raises(ValueError, match="Unknown prior 'theirs'"):
        PRIORS.get("theirs")
    plugins.name("theirs", " ")
    assert type(PRIORS.get("theirs")).__module__ == "theirs"
    assert PRIORS.package_of("theirs") == "theirs"


def test_the_plugins_of_installed_packages_are_found(plugins):
    plugins.write(theirs=prior("theirs"))
    plugins.install("their-dist", whatever="theirs")
    assert "theirs" in PRIORS


def test_a_config_of_keras_is_looked_for_in_the_plugins(plugins):
    plugins.write(theirs=prior("theirs"))
    plugins.name("theirs")
    config = {"module": "theirs", "class_name": "Theirs", "config": {}, "registered_name": "theirs.priors>Theirs"}
    assert PRIORS.name_of(PRIORS.get(config)) == "theirs"


def test_a_known_name_loads_no_plugin(plugins):
    plugins.write(theirs="raise RuntimeError('imported')")
    plugins.name("theirs")
    assert PRIORS.get("normal") == Normal()
    assert list(PRIORS)
    assert "theirs" not in sys.modules


def test_a_plugin_is_loaded_once_whoever_names_it(plugins):
    plugins.write(theirs=prior("theirs"), counted="import sys; sys.count = getattr(sys, 'count', 0) + 1")
    plugins.install("their-dist", one="counted", two="counted")
    plugins.name("counted", "counted")
    try:
        load_plugins("counted")
        load_plugins()
        assert sys.count == 1
    finally:
        del sys.count


def test_a_plugin_may_look_names_up_while_it_is_imported(plugins):
    plugins.write(theirs="from tfp_bnn.priors import PRIORS; assert 'no_such' not in PRIORS" + prior("theirs"))
    plugins.name("theirs")
    assert "theirs" in PRIORS


def test_nothing_is_left_of_a_plugin_that_fails_and_it_can_be_fixed(plugins):
    broken = "import theirs.priors\nfrom no_such_package import x"
    layer = "import keras\n@keras.saving.register_keras_serializable('theirs')\nclass Layer(keras.Layer): pass\n"
    plugins.write(theirs__init=broken, theirs__priors=layer + prior("theirs"))
    plugins.install("their-dist", whatever="theirs")
    known = dict(keras.saving.get_custom_objects())
    message = (
        "The plug-in 'theirs', named by the distribution their-dist 1.0, could not be loaded: ModuleNotFoundError: No "
        "module named 'no_such_package'. Nothing of it was registered."
    )
    for _ in range(2):
        with pytest.raises(PluginError, match=re.escape(message)):
            PRIORS.get("theirs")
        assert "theirs" not in list(PRIORS)
        assert keras.saving.get_custom_objects() == known
        assert not [name for name in sys.modules if name.startswith("theirs")]
    plugins.write(theirs__init="import theirs.priors")
    assert "theirs" in PRIORS
    assert "theirs>Layer" in keras.saving.get_custom_objects()


def test_a_plugin_interrupted_leaves_nothing_either(plugins):
    plugins.write(theirs=prior("theirs") + "raise KeyboardInterrupt")
    plugins.name("theirs")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()
    assert "theirs" not in list(PRIORS)


def test_what_another_package_registers_meanwhile_stays(plugins):
    plugins.write(known__init="", known__part=prior("of_known"), theirs="import known.part\n" + "raise ValueError")
    import known  # noqa: F401

    plugins.name("theirs")
    with pytest.raises(PluginError, match="ValueError"):
        load_plugins()
    assert "of_known" in list(PRIORS)
    assert "known.part" in sys.modules


def test_what_a_plugin_registers_of_another_package_does_not_stay(plugins):
    plugins.write(
        known="from tfp_bnn.priors import Prior\nclass Known(Prior): pass",
        theirs="import known\nfrom tfp_bnn.priors import PRIORS\nPRIORS.register('one')(known.Known)\nraise ValueError",
    )
    plugins.name("theirs")
    with pytest.raises(PluginError, match="ValueError"):
        load_plugins()
    assert "one" not in list(PRIORS)


def test_two_plugins_that_register_one_name_are_both_named(plugins):
    plugins.write(first=prior("theirs"), second=prior("second") + prior("theirs", "Other"))
    plugins.name("first", "second")
    message = (
        "The plug-in 'second', named by the environment variable TFP_BNN_PLUGINS, could not be loaded: ValueError: The "
        "prior 'theirs' is already registered as first.Theirs (package 'first'), so second.Other (package 'second') "
        "cannot use this name."
    )
    with pytest.raises(PluginError, match=re.escape(message)):
        PRIORS.get("second")
    assert PRIORS.package_of("theirs") == "first"
    assert "second" not in list(PRIORS)


def test_two_installed_plugins_of_one_name_are_both_named(plugins):
    plugins.write(first=prior("first"), second=prior("second"))
    plugins.install("dist-one", same="first")
    plugins.install("dist-two", same="second")
    with pytest.raises(PluginError, match="Two plug-ins are called 'same'") as refusal:
        load_plugins()
    for name in ("'first' of the distribution dist-one 1.0", "'second' of the distribution dist-two 1.0"):
        assert name in str(refusal.value)
    assert "first" not in sys.modules


def test_an_entry_point_that_names_no_module_is_refused(plugins):
    plugins.write(theirs="def register(): pass")
    plugins.install("their-dist", whatever="theirs:register")
    with pytest.raises(PluginError, match=r"'theirs:register'; a module was expected\. .*: whatever = 'theirs'\."):
        load_plugins()


def test_a_plugin_cannot_take_our_names_at_keras(plugins):
    plugins.write(
        theirs="""
            import keras

            @keras.saving.register_keras_serializable("tfp_bnn.priors")
            class Normal(keras.Layer):
                pass
        """
    )
    plugins.name("theirs")
    with pytest.raises(PluginError, match=r"Keras knows tfp_bnn\.priors\.normal\.Normal .* so theirs\.Normal"):
        load_plugins()
    assert keras.saving.get_custom_objects()["tfp_bnn.priors>Normal"] is Normal


def test_modules_named_in_the_call_are_loaded(plugins):
    plugins.write(theirs=prior("theirs"))
    load_plugins("theirs")
    assert "theirs" in list(PRIORS)
    with pytest.raises(PluginError, match="'no_such', named by --plugin, could not be loaded: ModuleNotFoundError"):
        load_plugins("no_such", source="--plugin")
