"""Which combinations exist, and that each is a case of this suite."""

from __future__ import annotations

import re

import keras
import pytest

from tfp_bnn.layers import VariationalLayer
from tfp_bnn.layers.estimators import COMBINATIONS
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS

from .cases import ESTIMATORS, GROUPED, LAYERS, OPERATIONS, UNGROUPED, Case, operation_of

POSTERIORS_OF = {
    "flipout": {"mean_field_normal", "delta"},
    "grouped flipout": {"mean_field_normal", "delta"},
    "reparameterization": {"mean_field_normal", "delta", "low_rank_normal", "radial"},
    "local reparameterization": {"mean_field_normal", "delta"},
}
MISSING = [Case(cls, name) for cls in LAYERS for name in POSTERIORS if name not in POSTERIORS_OF[cls.estimator.name]]


def test_every_layer_has_a_case_for_each_posterior_that_its_estimator_takes():
    assert len(set(UNGROUPED)) == len(UNGROUPED)
    assert set(UNGROUPED) == {Case(cls, name) for cls in LAYERS for name in POSTERIORS_OF[cls.estimator.name]}
    assert len(MISSING) == len(LAYERS) * len(POSTERIORS) - len(UNGROUPED)
    # None was lost.
    assert len(LAYERS) >= 18
    convolutions = [cls for cls in LAYERS if "Convolution" in cls.__name__ and cls.estimator.name == "flipout"]
    assert set(GROUPED) == {Case(cls, name, 4) for cls in convolutions for name in POSTERIORS_OF["grouped flipout"]}


def test_every_registered_layer_is_exported_and_has_an_operation():
    registered = {
        cls
        for name, cls in keras.saving.get_custom_objects().items()
        if name.startswith("tfp_bnn>") and issubclass(cls, VariationalLayer)
    }
    assert registered == set(LAYERS)
    operations = {operation_of(cls) for cls in LAYERS}
    assert operations <= set(OPERATIONS), "Say in cases.py what the new layers are fed."
    assert set(OPERATIONS) <= operations


def test_the_table_of_the_error_message_is_the_one_that_is_enforced():
    assert set(POSTERIORS) == set.union(*POSTERIORS_OF.values())
    for cls in LAYERS:
        taken = {case.posterior for case in UNGROUPED if case.layer is cls}
        assert taken == POSTERIORS_OF[cls.estimator.name]
        assert cls.__name__.endswith("".join(word.capitalize() for word in cls.estimator.name.split()))
    rows = {line.strip()[:25].strip(): line for line in COMBINATIONS.splitlines() if line.strip()}
    assert {name for name in POSTERIORS_OF if name in rows} == set(POSTERIORS_OF)
    assert rows["grouped flipout"].endswith(" as flipout")
    assert rows["reparameterization"].endswith(" all")
    assert rows["local reparameterization"].endswith(" mean_field_normal, delta")
    assert len(ESTIMATORS) + 1 == len(POSTERIORS_OF), "grouped flipout has no layers of its own"


def roles(case, role):
    """The arguments for the priors or posteriors of a layer, of which there is one at least."""
    arguments = list(case.of_all_weights(role, None))
    assert len(arguments) >= 1
    return arguments


@pytest.mark.parametrize("case", MISSING, ids=str)
def test_a_combination_that_does_not_exist_is_refused_for_every_weight(case):
    for argument in roles(case, "posterior"):
        with pytest.raises(TypeError) as refusal:
            case.layer(**case.operation.arguments, **{argument: case.posterior})
        message = str(refusal.value)
        assert message.startswith(f"The {case.estimator} estimator does not exist for {argument}=")
        assert type(POSTERIORS.get(case.posterior)).__name__ in message
        assert message.endswith(COMBINATIONS)


@pytest.mark.parametrize("case", [case for case in UNGROUPED if case.posterior != "delta"], ids=str)
def test_a_flat_prior_goes_with_no_posterior_that_has_spread(case):
    for argument in roles(case, "prior"):
        with pytest.raises(TypeError, match=rf"^{argument}=Flat\(\) is improper") as refusal:
            case.make(**{argument: "flat"})
        assert str(refusal.value).endswith(COMBINATIONS)


@pytest.mark.parametrize("case", [case for case in UNGROUPED if case.posterior == "delta"], ids=str)
def test_a_flat_prior_goes_with_a_delta_posterior(case):
    layer = case.build(**case.of_all_weights("prior", "flat"))
    assert layer.kl() == 0.0


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_every_posterior_goes_with_every_proper_prior(posterior, prior):
    case = next(case for case in UNGROUPED if case.estimator == "reparameterization" and case.posterior == posterior)
    if PRIORS[prior].improper and posterior != "delta":
        with pytest.raises(TypeError, match=re.escape(COMBINATIONS)):
            case.make(kernel_prior=prior)
    else:
        assert case.build(kernel_prior=prior).kl().shape == ()
