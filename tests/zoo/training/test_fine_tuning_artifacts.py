"""Results of a fine-tuning: its artifact, its card, and a recipe that repeats it."""

from __future__ import annotations

import dataclasses
import re
import shlex

import numpy as np
import pytest

import zoo
from tfp_bnn.models.weight_record import weight_distributions
from tfp_bnn.priors import Informed
from tfp_bnn.transfer import Tuner
from zoo.evaluation.verification import Status, verify
from zoo.hub.reading import read_artifact

from .fine_tuning_parts import KEEP, MLP, QUICK, prior_specs, refused


def assert_same_arrays(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_the_artifact_is_the_model_with_its_prior(fine_tuned, digits):
    loaded = zoo.load_artifact(fine_tuned.path, trust=True)
    assert_same_arrays(
        {name: value for name, value in weight_distributions(fine_tuned.model).items() if "/prior_" in name},
        {name: value for name, value in weight_distributions(loaded).items() if "/prior_" in name},
    )
    x = digits.test.x[:50]
    predictions = [model.posterior_predictive(x, num_samples=10, seed=1).mean() for model in (fine_tuned.model, loaded)]
    np.testing.assert_allclose(*predictions, rtol=1e-6, atol=1e-6)
    assert float(loaded.kl()) == pytest.approx(float(fine_tuned.model.kl()), rel=0.01)
    assert loaded.num_examples == 1149


def test_the_card_tells_how_and_by_which_command(fine_tuned):
    found = read_artifact(fine_tuned.path)
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
    assert found["metrics"]["test"] == pytest.approx(fine_tuned.metrics["test"])


@pytest.mark.slow
def test_the_artifact_verifies_and_evaluates(fine_tuned):
    checks = verify(fine_tuned.path, full=True)
    assert {check.status for check in checks} == {Status.PASSED}
    assert {check.quantity for check in checks} >= {"golden", "test/nll", "quick/nll", "kl/dense1", "validation/nll"}


@pytest.mark.thorough
def test_settings_are_chosen_by_the_training_rows_alone_and_written_down(source, five, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.fine_tuning_settings.INFLATES", (1.0, 30.0))
    monkeypatch.setattr("zoo.training.fine_tuning_settings.HEAD_SCALES", (1.0, 2.0))
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
    _, *left, chosen = messages
    assert [message.partition(" fits")[0] for message in left] == [
        f"cross-validation: {fit} of 9" for fit in range(1, 9)
    ]
    assert chosen == f"chosen by cross-validation: inflate {done.inflate:g}, head_scale {done.head_scale:g}"
    assert len(fits) == 3 * len(done.candidates)
    known = {row.tobytes() for row in five.train.x}
    assert all(row.tobytes() in known for x, *_ in fits for row in x)
    assert {len(x) for x, *_ in fits} == {40}
    assert done.model.num_examples == 60
    start = done.recipe.start_from
    assert (start.inflate, start.head_scale) == (done.inflate, done.head_scale)
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
    assert "is the posterior of a model without a name" in card
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


def test_a_fine_tuned_model_is_fine_tuned_again(fine_tuned, few, tmp_path, untrained):
    with pytest.raises(ValueError, match="trust=True"):
        zoo.fine_tune(fine_tuned.path, few, **KEEP)
    done = zoo.fine_tune(fine_tuned.path, few, trust=True, out=tmp_path / "again", **KEEP)
    known, found = weight_distributions(fine_tuned.model), weight_distributions(done.model)
    for layer in ("dense1", "dense2", "logits"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        np.testing.assert_allclose(
            found[f"{layer}/kernel/prior_scale"], 2.0 * known[f"{layer}/kernel/scale"], rtol=1e-5
        )
    # The layer that was frozen may learn again.
    assert not fine_tuned.model.network.get_layer("dense1").trainable_variables
    assert done.model.network.get_layer("dense1").trainable_variables
    # The data were arrays: there is no command that could do it again.
    assert "tfp-bnn finetune" not in read_artifact(done.path)["card"]
    refused("the prior would be 'informed' without a posterior", done.model, few, prior="default")


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


def test_a_failure_on_the_way_leaves_no_artifact(source, few, tmp_path, monkeypatch, untrained):
    def fail(*arguments, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr("zoo.hub.artifacts.model_card", fail)
    refused("the disk is full", source, few, out=tmp_path / "out", error=OSError, **QUICK)
    # What is left is the run, to go on with.
    assert [path.name for path in tmp_path.iterdir()] == ["out.training"]
    refused("holds an unfinished run", source, few, out=tmp_path / "out", **QUICK)


# === The run ===


@pytest.mark.slow
def test_its_recipe_is_run_again_by_train_with_the_same_bits(fine_tuned, tmp_path):
    path = fine_tuned.path / "recipe.yaml"
    recipe = zoo.load_recipe(path)
    assert recipe == fine_tuned.recipe
    assert (recipe.start_from.model, recipe.dataset, recipe.steps, recipe.start_from.inflate) == (MLP, "digits", 20, 10)
    assert "`tfp-bnn train recipe.yaml` runs it" in (fine_tuned.path / "README.md").read_text("utf-8")
    again = zoo.train(path, tmp_path / "again")
    assert_same_arrays(weight_distributions(again.model), weight_distributions(fine_tuned.model))
    assert again.metrics == fine_tuned.metrics
    assert repr(again.history) == repr(fine_tuned.history)
    for name in ("weights.safetensors", "metrics.json", "recipe.yaml", "log.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (fine_tuned.path / name).read_bytes(), name


@pytest.mark.slow
def test_a_run_is_resumed_with_the_same_bits_and_without_choosing_again(tiny, source, few, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.fine_tuning_settings.INFLATES", (1.0, 30.0))
    options = {"head": "keep", "steps": 13, "checkpoint_seconds": 0.0, "tensorboard": tmp_path / "log"}
    whole = zoo.fine_tune(source, few, out=tmp_path / "whole", **options)
    assert {len(values) for values in whole.history.values()} == {7}
    assert (tmp_path / "whole" / "log.csv").read_text() == whole.log
    killed = [tiny.At("on_train_batch_end", 4, tiny.die)]
    with pytest.raises(tiny.Killed):
        zoo.fine_tune(source, few, out=tmp_path / "killed", callbacks=killed, **options)
    refused("holds an unfinished run", source, few, out=tmp_path / "killed", **options)
    refused(
        "recipe.steps was 13 and is 14", source, few, out=tmp_path / "killed", resume=True, **{**options, "steps": 14}
    )
    monkeypatch.setattr(Tuner, "fit", None)
    told = []
    resumed = zoo.fine_tune(source, few, out=tmp_path / "killed", resume=True, tell=told.append, **options)
    chosen = f"chosen by cross-validation: inflate {whole.inflate:g}"
    assert told == [chosen, "resuming after epoch 1, step 1"]
    assert resumed.candidates == whole.candidates
    assert repr(resumed.history) == repr(whole.history)
    assert_same_arrays(weight_distributions(resumed.model), weight_distributions(whole.model))
    assert not (tmp_path / "killed.training").exists()
    assert (tmp_path / "log" / "seed-0" / "train").is_dir()


def test_a_run_is_saved_later_with_what_is_known_of_it(fine_tuned, tmp_path):
    folder = zoo.save_artifact(fine_tuned, tmp_path / "later", name=fine_tuned.path.name)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in fine_tuned.path.iterdir())
    for path in folder.iterdir():
        assert path.read_bytes() == (fine_tuned.path / path.name).read_bytes(), path.name
    loaded = zoo.load_artifact(folder, trust=True)
    assert loaded.class_names == tuple("0123456789")
    assert loaded.card["config"]["data"]["fine_tuning"]["source"] == MLP
