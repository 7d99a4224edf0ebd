"""Fine-tuning: what the posterior of one model does for the next, what is refused, and what is saved."""

from __future__ import annotations

import dataclasses
import re
import shlex
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions
from tfp_bnn.priors import Informed
from tfp_bnn.transfer import Tuner
from zoo.datasets import DataMissingError, Split
from zoo.evaluation.verification import Status, verify
from zoo.hub.reading import read_artifact

MLP, LENET, DIABETES = "mlp_flipout.digits", "lenet5_flipout.digits", "mlp_flipout.diabetes"
QUICK = {"inflate": 10.0, "head_scale": 0.5, "steps": 5}
KEEP = {"inflate": 2.0, "head": "keep", "steps": 5}


@pytest.fixture(scope="module")
def digits():
    return zoo.load_dataset("digits")


@pytest.fixture(scope="module")
def few(digits):
    """Arrays: 30 digits of all classes."""
    return digits.train.x[:30], digits.train.y[:30]


@pytest.fixture(scope="module")
def five(digits):
    """The digits 0 to 4 as a dataset in memory, of 60 rows for training and 40 for testing."""

    def low(split, rows):
        return Split(split.x[split.y < 5][:rows], split.y[split.y < 5][:rows])

    return dataclasses.replace(
        digits,
        train=low(digits.train, 60),
        validation=low(digits.validation, 40),
        test=low(digits.test, 40),
        class_names=digits.class_names[:5],
    )


@pytest.fixture(scope="module")
def source():
    return zoo.load_model(MLP)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A model fine-tuned by names on the whole of digits, with its result. Nobody may change the folder."""
    options = {"inflate": 10.0, "head_scale": 0.5, "freeze": ["dense1"]}
    options |= {"steps": 20, "batch_size": 64, "learning_rate": 3e-3, "seed": 7}
    return zoo.fine_tune(MLP, "digits", **options, out=tmp_path_factory.mktemp("artifacts") / "tuned")


@pytest.fixture
def untrained(monkeypatch):
    """Models end as they would have started; the numbers of rows that they would have been trained on."""
    fits = []

    def fit(model, data, *, num_examples, **arguments):
        fits.append(num_examples)
        model.num_examples = num_examples
        return SimpleNamespace(history={})

    monkeypatch.setattr(tfp_bnn.VariationalModel, "fit", fit)
    return fits


def assert_same_arrays(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def prior_specs(model):
    return {weight.prior_spec for layer in model.variational_layers for weight in layer.variational_weights.values()}


def everything(model):
    return [np.array(variable.numpy()) for variable in [*model.variables, *model.noise_variables.values()]]


# === What is trained ===


def test_the_body_gets_the_inflated_posterior_and_the_head_a_prior_of_its_own(artifact):
    known = weight_distributions(zoo.load_model(MLP))
    found = weight_distributions(artifact.model)
    for layer in ("dense1", "dense2"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        np.testing.assert_allclose(
            found[f"{layer}/kernel/prior_scale"], 10.0 * known[f"{layer}/kernel/scale"], rtol=1e-6
        )
    np.testing.assert_array_equal(found["logits/kernel/prior_loc"], np.zeros((64, 10)))
    np.testing.assert_array_equal(found["logits/kernel/prior_scale"], np.full((64, 10), 0.5, np.float32))
    assert {spec.mix for spec in prior_specs(artifact.model)} == {0.0}
    # Frozen, against learned.
    np.testing.assert_array_equal(found["dense1/kernel/loc"], known["dense1/kernel/loc"])
    np.testing.assert_array_equal(found["dense1/bias"], known["dense1/bias"])
    np.testing.assert_allclose(found["dense1/kernel/scale"], known["dense1/kernel/scale"], rtol=1e-6)
    assert (found["dense2/kernel/loc"] != known["dense2/kernel/loc"]).mean() > 0.9
    assert (artifact.inflate, artifact.head_scale, artifact.candidates) == (10.0, 0.5, [])
    assert artifact.model.num_examples == 1149
    assert artifact.metrics["test"]["accuracy"] > 0.15


def test_the_source_stays_as_it_is(source, few):
    before = everything(source)
    done = zoo.fine_tune(source, few, **KEEP)
    tuned = done.model
    for one, other in zip(before, everything(source), strict=True):
        np.testing.assert_array_equal(one, other)
    assert source.calibration is not None
    assert tuned.calibration is None
    assert not source.compiled
    assert {id(v) for v in tuned.variables}.isdisjoint(id(v) for v in source.variables)
    # A head that is kept is informed like the body.
    known, found = weight_distributions(source), weight_distributions(tuned)
    for layer in ("dense1", "dense2", "logits"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        assert (found[f"{layer}/kernel/loc"] != known[f"{layer}/kernel/loc"]).mean() > 0.5
    assert (done.inflate, done.head_scale) == (2.0, None)
    assert tuned.architecture.config.num_outputs == 10


def test_another_prior_changes_the_prior_and_keeps_the_start(source, few, untrained):
    known = weight_distributions(source)
    prior = tfp_bnn.priors.Laplace(0.3)
    for wanted in (prior, {"name": "laplace", "scale": 0.3}):
        done = zoo.fine_tune(source, few, prior=wanted, head="keep")
        assert prior_specs(done.model) == {prior}
        for name, value in weight_distributions(done.model).items():
            np.testing.assert_allclose(value, known[name], rtol=1e-5)
    assert (done.inflate, done.head_scale, done.candidates) == (None, None, [])
    assert untrained == [30, 30]
    # Several thousand weights, and not one of the old head's.
    new = zoo.fine_tune(source, few, prior="normal").model
    assert (weight_distributions(new)["logits/kernel/loc"] != known["logits/kernel/loc"]).all()


def test_the_default_prior_is_that_of_the_source_and_is_learned_again(source, few, untrained):
    done = zoo.fine_tune(source, few, prior="default", steps=5)
    assert prior_specs(done.model) == prior_specs(source)
    assert (done.inflate, done.head_scale) == (None, None)
    # Empirical Bayes begins where it began for the source.
    start = source.variational_layers[0].variational_weights["kernel"].prior_spec.scale
    assert weight_distributions(done.model)["dense1/kernel/prior_scale"] == pytest.approx(start, rel=1e-5)
    assert weight_distributions(source)["dense1/kernel/prior_scale"] != pytest.approx(start, rel=1e-2)


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 1, 2, 3, 4], 5), ([0, 0], 2), ([0, 11], 12), (np.eye(7), 7), ([[2], [3]], 4)]
)
def test_a_new_head_has_as_many_outputs_as_the_labels_need(source, few, untrained, labels, classes):
    done = zoo.fine_tune(source, (few[0][: len(labels)], np.array(labels)), **QUICK)
    assert done.model.output_shape == (None, classes)


def test_images_of_another_size_are_resized_and_rescaled_within_the_model(digits):
    x, y = digits.train.x[:12], digits.train.y[:12]
    # As large as those of MNIST, with as many levels.
    large = np.pad(np.kron(x, np.ones((1, 3, 3, 1))), [(0, 0), (2, 2), (2, 2), (0, 0)])
    large = (large * 255 / 16).astype(np.uint8)
    done = zoo.fine_tune(LENET, (large, y), adapt_inputs=True, **QUICK)
    config = done.model.architecture.config
    assert (config.input_shape, config.resize, config.pixel_max) == ((28, 28, 1), (28, 28), 255.0)
    predicted = done.model.posterior_predictive(large, num_samples=4).mean()
    assert predicted.shape == (12, 10)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-5)
    assert done.model.network.get_layer("rescale").scale == pytest.approx(1 / 255)


def test_what_fits_already_is_not_adapted(few, untrained):
    darker = few[0] * 15 / 16
    assert zoo.fine_tune(LENET, (darker, few[1]), adapt_inputs=True, **QUICK).model.architecture.config.pixel_max == 16
    brighter = few[0] / 16
    assert zoo.fine_tune(LENET, (brighter, few[1]), adapt_inputs=True, **QUICK).model.architecture.config.pixel_max == 1


def test_a_regression_is_kept_with_its_units_or_gets_those_of_new_targets(untrained):
    data = zoo.load_dataset("diabetes")
    source = zoo.load_model(DIABETES)
    kept = zoo.fine_tune(source, data, measure=False, **KEEP).model
    assert kept.architecture.config.target_mean == source.architecture.config.target_mean
    learned = weight_distributions(source)["likelihood/scale"]
    np.testing.assert_allclose(weight_distributions(kept)["likelihood/scale"], learned, rtol=1e-6)
    two = np.concatenate([data.train.y / 100, 7 - data.train.y], axis=1)
    config = zoo.fine_tune(source, (data.train.x, two), **QUICK).model.architecture.config
    assert config.num_outputs == 2
    np.testing.assert_allclose(config.target_mean, two.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(config.target_variance, two.var(axis=0), rtol=1e-5)
    assert config.likelihood["initial_scale"] == pytest.approx(np.sqrt(two.var(axis=0).mean()), rel=1e-5)
    assert config.input_mean == source.architecture.config.input_mean


def test_a_regression_learns_and_is_measured():
    done = zoo.fine_tune(DIABETES, zoo.load_dataset("diabetes"), **KEEP)
    assert done.metrics["test"]["rmse"] < 70
    assert done.metrics["training_seeds"] == [0]


def test_groups_are_informed_too(untrained):
    rows = zoo.load_dataset("rotated_moons").train
    source = zoo.load_model("hierarchical_mlp.rotated_moons")
    done = zoo.fine_tune(source, (rows.x, rows.y), **KEEP)
    known, found = weight_distributions(source), weight_distributions(done.model)
    for name in [name for name in known if name.endswith("/loc")]:
        np.testing.assert_array_equal(found[name.replace("/loc", "/prior_loc")], known[name])


# === What is refused ===


def refused(says, *arguments, error=ValueError, **options):
    with pytest.raises(error, match=re.escape(says)):
        zoo.fine_tune(*arguments, **{**options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inflate": 0.0}, "`inflate` of fine_tune must be a finite number larger than 0, but got 0.0"),
        ({"inflate": -1}, "`inflate` of fine_tune must be a finite number larger than 0, but got -1"),
        ({"inflate": float("nan")}, "`inflate` of fine_tune"),
        ({"inflate": "autto"}, "Unknown inflate (or a number) 'autto'. Did you mean 'auto'?"),
        ({"head_scale": 0}, "`head_scale` of fine_tune must be a finite number larger than 0, but got 0"),
        ({"head_scale": "aut"}, "Unknown head_scale (or a number) 'aut'. Did you mean 'auto'?"),
        ({"mix": 0.0}, "`mix` must lie between 0 and 1, or be None for no broad component, but got 0.0"),
        ({"mix": 1.0}, "`mix` must lie between 0 and 1"),
        ({"mix": "0.1"}, "`mix` must lie between 0 and 1"),
        ({"head": "kep"}, "Unknown head 'kep'. Did you mean 'keep'?"),
        ({"head": "keep"}, "Got head_scale=0.5 with prior='posterior' and head='keep', where it has no effect"),
        ({"prior": "posteriro"}, "Unknown prior 'posteriro'. Did you mean 'posterior'?"),
        ({"prior": "lapplace"}, "Unknown prior 'lapplace'. Did you mean 'laplace'?"),
        ({"prior": "default"}, "Got inflate=10.0 with prior='default' and head='new', where it has no effect"),
        ({"freeze": ["dens1"]}, "Unknown layer to freeze 'dens1'. Did you mean 'dense1'?"),
        ({"freeze": "dens1"}, "Unknown layer to freeze 'dens1'. Did you mean 'dense1'?"),
        ({"freeze": ["logits"]}, "The layer 'logits' is new: frozen, it would never learn"),
        ({"steps": 0}, "`steps` must be an integer >= 1, but got 0"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1, but got 0"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer >= 1, but got 2.5"),
        ({"learning_rate": 0.0}, "`learning_rate` of fine_tune must be a finite number larger than 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0, but got -1"),
        ({"seed": None}, "`seed` must be an integer >= 0, but got None"),
    ],
)
def test_settings_out_of_range_are_refused(source, few, tmp_path, untrained, options, says):
    refused(says, source, few, **{**QUICK, **options}, out=tmp_path / "out")
    assert untrained == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prior", "says"),
    [
        ("informed", "the prior would be 'informed', but by nothing. Pass prior='posterior'"),
        ({"name": "laplace", "scal": 1.0}, "Did you mean 'scale'?"),
        ({"name": "laplace", "scale": -1.0}, "must be a finite number larger than 0"),
        ("flat", "improper"),
        (3, "Cannot make a prior from 3"),
        ({"class_name": "os.system"}, "a config of Keras is not taken here"),
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


def test_a_dataset_that_is_not_here_is_refused(monkeypatch, source):
    def missing(name):
        raise DataMissingError(f"The dataset {name!r} is not prepared.")

    monkeypatch.setattr("zoo.training.fine_tuning.load_dataset", missing)
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
        colours = np.zeros((4, 8, 8, 3), np.uint8)
        refused("but the data have (8, 8, 3)", LENET, (colours, y), adapt_inputs=adapt_inputs)
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
        (lambda x, y: x, "Expected a dataset, its name, or a pair of arrays (x, y), but got ndarray"),
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


# === What is saved ===


def test_the_artifact_is_the_model_with_its_prior(artifact, digits):
    loaded = zoo.load_artifact(artifact.path, trust=True)
    assert_same_arrays(
        {name: value for name, value in weight_distributions(artifact.model).items() if "/prior_" in name},
        {name: value for name, value in weight_distributions(loaded).items() if "/prior_" in name},
    )
    x = digits.test.x[:50]
    predictions = [model.posterior_predictive(x, num_samples=10, seed=1).mean() for model in (artifact.model, loaded)]
    np.testing.assert_allclose(*predictions, rtol=1e-6, atol=1e-6)
    assert float(loaded.kl()) == pytest.approx(float(artifact.model.kl()), rel=0.01)
    assert loaded.num_examples == 1149


def test_the_card_tells_how_and_by_which_command(artifact):
    found = read_artifact(artifact.path)
    card = " ".join(found["card"].split())
    assert "- prior of the kernels: `{'name': 'informed', 'mix': 0.0}`" in card
    assert (
        "The prior of the body is the posterior of `mlp_flipout.digits`, its standard deviations times 10, and that of "
        "the new head is N(0, 0.5^2). Median prior scale: "
    ) in card
    (command,) = re.findall(r"`(tfp-bnn finetune [^`]*)` does it again\.", card)
    assert shlex.split(command) == shlex.split(
        "tfp-bnn finetune mlp_flipout.digits --dataset digits --inflate 10.0 --head-scale 0.5 --head new "
        "--freeze dense1 --steps 20 --batch-size 64 --learning-rate 0.003 --seed 7"
    )
    # Nothing that a reader could take for a prior's scale that was learned.
    assert "learned `" not in card
    assert found["metrics"]["test"] == pytest.approx(artifact.metrics["test"])


def test_the_artifact_verifies_and_evaluates(artifact):
    checks = verify(artifact.path, full=True)
    assert {check.status for check in checks} == {Status.PASSED}
    assert {check.quantity for check in checks} >= {"golden", "test/nll", "quick/nll", "kl/dense1", "validation/nll"}


def test_settings_are_chosen_by_the_training_rows_alone_and_written_down(source, five, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.fine_tuning.INFLATES", (1.0, 30.0))
    monkeypatch.setattr("zoo.training.fine_tuning.HEAD_SCALES", (1.0, 2.0))
    fits = []
    fit = Tuner.fit

    def noted(tuner, x, y, *settings):
        fits.append((x, y, *settings))
        return fit(tuner, x, y, *settings)

    monkeypatch.setattr(Tuner, "fit", noted)
    messages = []
    done = zoo.fine_tune(source, five, steps=3, seed=3, out=tmp_path / "tuned", tell=messages.append)
    best, *others = done.candidates
    assert (done.inflate, done.head_scale) == (best.inflate, best.head_scale)
    assert [best.nll, *(other.nll for other in others)] == sorted(c.nll for c in done.candidates)
    assert {(c.inflate, c.head_scale) for c in done.candidates} == {(1.0, 1.0), (30.0, 1.0), (best.inflate, 2.0)}
    assert messages == [f"chosen by cross-validation: inflate {done.inflate:g}, head_scale {done.head_scale:g}"]
    assert len(fits) == 3 * len(done.candidates) + 1
    known = {row.tobytes() for row in five.train.x}
    assert all(row.tobytes() in known for x, *_ in fits for row in x)
    assert {len(x) for x, *_ in fits[:-1]} == {40}
    np.testing.assert_array_equal(fits[-1][0], five.train.x)
    np.testing.assert_array_equal(fits[-1][1], five.train.y)
    assert fits[-1][2:] == (done.inflate, done.head_scale)
    assert done.model.output_shape == (None, 5)
    assert done.metrics["num_examples"] == 40
    config = read_artifact(done.path)["config"]
    how = config["data"]["fine_tuning"]
    assert how["candidates"] == [dataclasses.asdict(candidate) for candidate in done.candidates]
    assert [how["inflate"], how["head_scale"]] == [done.inflate, done.head_scale]
    card = (done.path / "README.md").read_text("utf-8")
    assert "Chosen by cross-validation on the training rows:" in card
    assert all(f"| {c.inflate:g} | {c.head_scale:g} | {c.nll:.4f} |" in card for c in done.candidates)
    # Neither the model nor the data could be had by a name.
    assert "is the posterior of a model that had no name" in card
    assert "The data were those of a dataset in memory, `digits`." in card
    assert "tfp-bnn finetune" not in card
    # A dataset in memory is not taken for the one of its name.
    assert config["data"]["dataset"] is None
    assert config["data"]["class_names"] == list("01234")
    golden, refusal = verify(done.path)
    assert golden.status is Status.PASSED
    assert refusal.status is Status.FAILED
    assert "The card does not name a dataset" in refusal.message


def test_arrays_are_saved_without_numbers_and_a_mixture_with_its_share(source, few, tmp_path, untrained):
    done = zoo.fine_tune(source, few, mix=0.1, out=tmp_path / "tuned", **QUICK)
    found = read_artifact(done.path)
    assert found["metrics"] == done.metrics == {}
    np.testing.assert_array_equal(found["golden"]["inputs"], few[0][:4])
    loaded = zoo.load_artifact(done.path, trust=True)
    assert loaded.output_shape == (None, 10)
    assert prior_specs(loaded) == {Informed(mix=0.1)}
    assert "and that of the new head is N(0, 0.5^2). A share of 0.1 of each prior is N(0, 1) instead." in found["card"]


def test_a_fine_tuned_model_is_fine_tuned_again(artifact, few, tmp_path, untrained):
    with pytest.raises(ValueError, match="trust=True"):
        zoo.fine_tune(artifact.path, few, **KEEP)
    done = zoo.fine_tune(artifact.path, few, trust=True, out=tmp_path / "again", **KEEP)
    known, found = weight_distributions(artifact.model), weight_distributions(done.model)
    for layer in ("dense1", "dense2", "logits"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        np.testing.assert_allclose(
            found[f"{layer}/kernel/prior_scale"], 2.0 * known[f"{layer}/kernel/scale"], rtol=1e-5
        )
    # The layer that was frozen may learn again.
    assert not artifact.model.network.get_layer("dense1").trainable_variables
    assert done.model.network.get_layer("dense1").trainable_variables
    # The data were arrays: there is no command that could do it again.
    assert "tfp-bnn finetune" not in read_artifact(done.path)["card"]
    refused("the prior would be 'informed', but by nothing", done.model, few, prior="default")


def test_existing_folders_are_refused_before_training(source, few, tmp_path, untrained):
    (tmp_path / "mine").mkdir()
    refused("It is not an artifact; choose another folder", source, few, out=tmp_path / "mine", overwrite=True)
    made = zoo.fine_tune(source, few, out=tmp_path / "made", **QUICK).path
    untrained.clear()
    refused("Pass overwrite=True", source, few, out=made, **QUICK)
    assert untrained == []
    manifest = (made / "manifest.json").read_bytes()
    zoo.fine_tune(source, few, out=made, overwrite=True, **{**QUICK, "inflate": 3.0})
    assert (made / "manifest.json").read_bytes() != manifest


def test_a_failure_on_the_way_leaves_nothing(source, few, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "fit", fail)
        refused("the disk is full", source, few, out=tmp_path / "out", error=OSError, **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "fit", lambda *arguments: {})
        patch.setattr("zoo.hub.artifacts.model_card", fail)
        refused("the disk is full", source, few, out=tmp_path / "out", error=OSError, **QUICK)
    assert list(tmp_path.iterdir()) == []
