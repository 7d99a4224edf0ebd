"""What fine-tuning refuses, before anything is trained."""

from __future__ import annotations

import dataclasses
import re

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from zoo.datasets import DataMissingError, Split

from .fine_tuning_parts import DIABETES, KEEP, LENET, MLP, QUICK, refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inflate": 0.0}, "`inflate` got 0.0: Input should be greater than 0, or Input should be 'auto'"),
        ({"inflate": -1}, "`inflate` got -1: Input should be greater than 0"),
        ({"inflate": float("nan")}, "`inflate` got nan: Input should be a finite number"),
        ({"inflate": "autto"}, "Unknown inflate (or a number) 'autto'. Did you mean 'auto'?"),
        ({"head_scale": 0}, "`head_scale` got 0: Input should be greater than 0"),
        ({"head_scale": "aut"}, "Unknown head_scale (or a number) 'aut'. Did you mean 'auto'?"),
        ({"mix": 0.0}, "`mix` got 0.0: Input should be greater than 0"),
        ({"mix": 1.0}, "`mix` got 1.0: Input should be less than 1"),
        ({"mix": "0.1"}, "`mix` got '0.1': Input should be a valid number"),
        ({"head": "kep"}, "Unknown head 'kep'. Did you mean 'keep'?"),
        ({"head": "keep"}, "Got head_scale=0.5 with prior='posterior' and head='keep', where it has no effect"),
        ({"prior": "posteriro"}, "Unknown prior 'posteriro'. Did you mean 'posterior'?"),
        ({"prior": "lapplace"}, "Unknown prior 'lapplace'. Did you mean 'laplace'?"),
        ({"prior": "default"}, "Got inflate=10.0 with prior='default' and head='new', where it has no effect"),
        ({"freeze": ["dens1"]}, "Unknown layer to freeze 'dens1'. Did you mean 'dense1'?"),
        ({"freeze": "dens1"}, "Unknown layer to freeze 'dens1'. Did you mean 'dense1'?"),
        ({"freeze": ["logits"]}, "The layer 'logits' is new: frozen, it would never learn"),
        ({"steps": 0}, "`steps` got 0: Input should be greater than or equal to 1"),
        ({"batch_size": 0}, "`batch_size` got 0: Input should be greater than or equal to 1"),
        ({"batch_size": 2.5}, "`batch_size` got 2.5: Input should be a valid integer"),
        ({"learning_rate": 0.0}, "`learning_rate` got 0.0: Input should be greater than 0"),
        ({"seed": -1}, "`seed` got -1: Input should be greater than or equal to 0"),
        ({"seed": None}, "`seed` got None: Input should be a valid integer"),
    ],
)
def test_settings_out_of_range_are_refused(source, few, tmp_path, untrained, options, says):
    refused(says, source, few, **{**QUICK, **options}, out=tmp_path / "out")
    assert untrained == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prior", "says"),
    [
        ("informed", "the prior would be 'informed' without a posterior. Pass prior='posterior'"),
        ({"name": "laplace", "scal": 1.0}, "Did you mean 'scale'?"),
        ({"name": "laplace", "scale": -1.0}, "must be a finite number larger than 0"),
        ("flat", "improper"),
        (3, "Cannot make a prior from 3"),
        ({"class_name": "os.system"}, "a config of Keras is not accepted here"),
    ],
)
def test_priors_that_are_none_are_refused(source, few, untrained, prior, says):
    refused(says, source, few, prior=prior)
    assert untrained == []


def test_unknown_names_are_refused_with_the_nearest(few):
    refused("Did you mean 'mlp_flipout.digits'?", "mlp_flipout.digit", few)
    refused("Did you mean 'digits'?", MLP, "digts")
    refused("The dataset 'diabetes' is for regression, but the model has the likelihood Categorical()", MLP, "diabetes")
    refused("The dataset 'digits' is for classification", DIABETES, "digits")


def test_a_head_is_not_kept_for_classes_in_another_order():
    digits = zoo.load_dataset("digits")
    assert digits.class_names is not None
    swapped = dataclasses.replace(digits, class_names=digits.class_names[::-1])
    refused(
        "The classes of the dataset 'digits' are not those that the model was trained on", MLP, swapped, head="keep"
    )


def test_a_dataset_that_is_not_here_is_refused(monkeypatch, source):
    def missing(name):
        raise DataMissingError(f"The dataset {name!r} is not prepared.")

    monkeypatch.setattr("zoo.training.fine_tuning_settings.load_dataset", missing)
    refused("is not prepared", source, "digits", error=DataMissingError)


def test_models_that_are_not_of_the_zoo_are_refused(few):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    own = tfp_bnn.VariationalModel(inputs, tfp_bnn.layers.DenseFlipout(10)(flat), name="own")
    refused("Only models of the zoo can be fine-tuned here", own, few)
    refused("Got VariationalModel 'own'; use tfp_bnn.transfer.informed_prior or update", own, few)
    refused("Got Functional 'plain'", keras.Model(inputs, flat, name="plain"), few)
    sequential = tfp_bnn.VariationalSequential([inputs, tfp_bnn.layers.DenseFlipout(10)], name="stack")
    refused("Got VariationalSequential 'stack'", sequential, few)

    class Net(tfp_bnn.VariationalMixin, keras.Model):
        def call(self, inputs, training=None):
            return inputs

    refused("Got Net 'net'", Net(name="net"), few)
    refused("Got NoneType", None, few)


def test_a_model_of_the_zoo_without_a_posterior_is_refused(source, few):
    inputs = keras.Input((8, 8, 1))
    plain = tfp_bnn.VariationalModel(inputs, keras.layers.Dense(10, name="plain")(keras.layers.Flatten()(inputs)))
    plain.architecture = source.architecture
    refused("The model has no Bayesian layer whose posterior could be a prior. Its layers: ", plain, few)


def test_inputs_of_another_shape_are_refused_with_both(few):
    x, y = np.zeros((4, 28, 28, 1), np.uint8), np.arange(4)
    both = "The source takes inputs of shape (8, 8, 1), but the data have (28, 28, 1). "
    refused(both + "Pass adapt_inputs=True", LENET, (x, y))
    for adapt_inputs in (False, True):
        refused(both + "The first layer of 'mlp_flipout' takes no others", MLP, (x, y), adapt_inputs=adapt_inputs)
        channels = np.zeros((4, 8, 8, 2), np.uint8)
        refused("but the data have (8, 8, 2)", LENET, (channels, y), adapt_inputs=adapt_inputs)
    colours = np.zeros((4, 8, 8, 3), np.uint8)
    refused("but the data have (8, 8, 3). Pass adapt_inputs=True (--adapt-inputs)", LENET, (colours, y))
    refused("but the data have (64,)", MLP, (few[0].reshape(30, 64), few[1]))


def test_pixels_of_another_range_are_refused_with_both(few):
    x, y = few
    says = "The source takes pixels from 0 to 16, but those of the data go up to {}. Pass adapt_inputs=True"
    refused(says.format(255), LENET, (x.astype(np.uint8), y), **QUICK)
    refused(says.format(1), LENET, (x / 16, y), **QUICK)
    refused(says.format(0), LENET, (np.zeros_like(x), y), adapt_inputs=True)


def test_labels_that_a_kept_head_has_no_output_for_are_refused(source, few, five, untrained):
    x, y = few
    refused("The source has 10 outputs, but the data need 11", source, (x, y + (y == 9)), **KEEP)
    refused("The source has 10 outputs, but the data need 5", source, five, **KEEP)
    # Not all classes need be among the rows.
    assert zoo.fine_tune(source, (x, np.zeros_like(y)), **KEEP).model.output_shape == (None, 10)
    diabetes = zoo.load_dataset("diabetes").train
    refused("has 1 outputs, but the data need 2", DIABETES, (diabetes.x, np.tile(diabetes.y, 2)), **KEEP)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (x, y[:5]), "`x` has 30 rows, but `y` has the shape (5,)"),
        (lambda x, y: (x[:0], y[:0]), "`x` is empty"),
        (lambda x, y: (x[:1], y[:1]), "Cross-validation needs at least 2 row(s)"),
        (lambda x, y: (x * np.nan, y), "`x` has 1920 values that are NaN or infinite"),
        (lambda x, y: (x, y * np.nan), "`y` has 30 values that are NaN or infinite"),
        (lambda x, y: (x, y.astype(str)), "`y` holds <U21 values; numbers were expected"),
        (lambda x, y: (x.astype(str), y), "`x` holds <U32 values; numbers were expected"),
        (lambda x, y: (x, y - 5), "Labels out of range"),
        (lambda x, y: (x, y + 0.5), "Labels out of range"),
        (lambda x, y: (x, 10**6 * y), "num_outputs"),
        (
            lambda x, y: x,
            "a PyDataset or a generator of batches of them, but got ndarray",
        ),
    ],
)
def test_data_that_nothing_can_be_trained_on_are_refused(source, few, untrained, change, says):
    refused(says, source, change(*few))
    assert untrained == []


def test_groups_that_the_source_does_not_know_are_refused():
    rows = zoo.load_dataset("rotated_moons").train
    x = rows.x[:4].copy()
    x[2, -1] = 18
    refused("knows the groups 0 to 17", "hierarchical_mlp.rotated_moons", (x, rows.y[:4]), **KEEP)


def test_bad_out_of_distribution_data_are_refused(tmp_path, untrained):
    start = {"model": MLP, "inflate": 10.0, "head_scale": 0.5}
    recipe = {"name": "mlp_flipout.mine", "start_from": start, "dataset": "digits"}
    with pytest.raises(ValueError, match=r"'iris' has inputs of shape \(4,\), but 'digits' has"):
        zoo.train({**recipe, "evaluation": {"num_samples": 2, "out_of_distribution": "iris"}}, tmp_path / "out")
    assert untrained == []
    assert list(tmp_path.iterdir()) == []


def test_recipes_that_cannot_be_run_are_refused(few):
    start = {"model": MLP, "inflate": 10.0}
    recipe = {"name": "mlp_flipout.mine", "start_from": start}
    for change, says in (
        ({}, "The recipe 'mlp_flipout.mine' names no dataset"),
        ({"start_from": {"model": None}}, "starts from a model without a name"),
        ({"start_from": {**start, "inflat": 1.0}}, "the key 'start_from.inflat' is unknown"),
        ({"start_from": {**start, "inflate": -1.0}}, "start_from.inflate"),
        ({"epochs": 3}, "Unknown key 'epochs'"),
        ({"dataset": "digts"}, "Did you mean 'digits'?"),
        ({"evaluation": {"spread_seeds": [1]}}, "a fine-tuning is trained for one seed"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            zoo.train({**recipe, **change})
    with pytest.raises(ValueError, match="A fine-tuning trains on all rows"):
        zoo.train(recipe, data=few, validation_data=few)


@pytest.mark.slow
def test_a_head_that_is_kept_predicts_in_the_unit_of_its_source():
    source, rows = zoo.load_model(DIABETES), zoo.load_dataset("diabetes")
    source.target_units = ("mmHg",)
    few = dataclasses.replace(rows, train=Split(rows.train.x[:20], rows.train.y[:20]), target_units=("kPa",))
    how = {**KEEP, "steps": 1, "measure": False}
    refused("predicts in mmHg, as the source does, but the targets are in kPa", source, few, **how)
    done = zoo.fine_tune(source, dataclasses.replace(few, target_units=None), **how)
    assert done.model.target_units == ("mmHg",)
    assert done.about["target_units"] == ("mmHg",)
    assert done.model.posterior_predictive(rows.test.x[:1], num_samples=2).target_units == ("mmHg",)
