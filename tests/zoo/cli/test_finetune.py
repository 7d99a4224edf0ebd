"""The command `finetune`, run as a user runs it: what it does, prints and rejects, and how it ends."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import zoo

QUICK = ("--inflate", 10, "--head-scale", 1, "--steps", 3)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fine-tuned from Python, by names. Tests must not change it."""
    out = tmp_path_factory.mktemp("artifacts") / "tuned"
    zoo.fine_tune("mlp_flipout.iris", "iris", inflate=3.0, head_scale=2.0, freeze=["dense1"], steps=60, seed=5, out=out)
    return out


@pytest.mark.slow
def test_the_command_of_the_card_gives_the_same_bits(artifact, tmp_path, tfp_bnn):
    code, card, _ = tfp_bnn("show", artifact)
    assert code == 0
    (command,) = re.findall(r"`tfp-bnn (finetune [^`]*)` does it again", card)
    # Whatever the process did before.
    np.random.default_rng(0)
    zoo.load_model("mlp_flipout.iris").posterior_predictive(np.array([[5.1, 3.5, 1.4, 0.2]]), num_samples=2)
    code, output, errors = tfp_bnn(*shlex.split(command), "--out", tmp_path / "again")
    assert code == 0
    assert "fine-tuning mlp_flipout.iris on iris; to be saved in" in errors
    assert [line.split()[0] for line in output.splitlines()[:3]] == ["inflate", "head_scale", "accuracy"]
    assert output.splitlines()[-1] == f"saved: {tmp_path / 'again'}"
    for file in ("weights.safetensors", "metrics.json", "golden.safetensors"):
        assert (artifact / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert (
        json.loads((artifact / "config.json").read_text())["data"]
        == json.loads((tmp_path / "again" / "config.json").read_text())["data"]
    )


def test_show_tells_of_the_informed_prior(artifact, tfp_bnn):
    _, card, _ = tfp_bnn("show", artifact)
    assert "- prior of the kernels: `{'name': 'informed', 'mix': 0.0}`" in card
    assert "The prior of the body is the posterior of `mlp_flipout.iris`, its standard deviations times 3, and" in card
    _, text, _ = tfp_bnn("show", artifact, "--json")
    assert json.loads(text)["config"]["data"]["fine_tuning"]["inflate"] == 3.0


def test_the_other_verbs_take_the_artifact(artifact, tmp_path, tfp_bnn):
    code, output, _ = tfp_bnn("verify", artifact)
    assert (code, output.splitlines()[-1]) == (0, "24 passed, 0 failed, 0 not re-measured: data missing")
    code, output, _ = tfp_bnn("evaluate", artifact, "--trust", "--json")
    assert code == 0
    card = json.loads((artifact / "metrics.json").read_text())["test"]
    measured = json.loads(output)
    assert {name: measured[name] for name in card} == pytest.approx(card, rel=1e-4, abs=1e-5)
    np.save(tmp_path / "x.npy", zoo.load_dataset("iris").test.x[:3])
    code, output, _ = tfp_bnn("predict", artifact, tmp_path / "x.npy", "--trust", "--num-samples", 5)
    assert (code, len(output.splitlines())) == (0, 4)
    assert output.startswith("input,prediction,mean_setosa,")


@pytest.mark.slow
def test_a_folder_is_fine_tuned_again_with_a_prior_in_yaml(artifact, tmp_path, tfp_bnn, eager_steps):
    out = tmp_path / "again"
    arguments = ("finetune", artifact, "--dataset", "iris", "--prior", "{name: laplace, scale: 1e-1}", "--steps", 2)
    code, _, errors = tfp_bnn(*arguments)
    assert code == 2
    assert "trust" in errors
    with eager_steps():
        code, output, _ = tfp_bnn(*arguments, "--trust", "--out", out, "--json")
    assert code == 0
    done = json.loads(output)
    assert (done["inflate"], done["head_scale"], done["path"]) == (None, None, str(out))
    assert (done["source"], done["dataset"]) == (str(artifact), "iris")
    assert set(done["test"]) >= {"accuracy", "nll"}
    prior = {"name": "laplace", "scale": 0.1}
    assert json.loads((out / "config.json").read_text())["config"]["kernel_prior"] == prior
    card = (out / "README.md").read_text("utf-8")
    assert f"Training began at the posterior of `{artifact}`; the prior is another." in card
    (command,) = re.findall(r"`tfp-bnn (finetune [^`]*)` does it again", card)
    words = shlex.split(command)
    assert words[1] == str(artifact)
    assert "--trust" in words
    assert json.loads(words[words.index("--prior") + 1]) == prior


@pytest.mark.slow
def test_the_recipe_repeats_a_fine_tuning_on_a_table_with_columns_in_another_order(tmp_path, tfp_bnn, eager_steps):
    model, moons = zoo.load_model("mlp_flipout.moons"), zoo.load_dataset("moons").train
    names = model.class_names
    rows = [f"{b},{a},{names[label]}" for (a, b), label in zip(moons.x[:50], moons.y[:50], strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["x2,x1,label", *rows]))
    table, first, again = (
        ("--dataset", tmp_path / "own.csv", "--target", "label"),
        tmp_path / "first",
        tmp_path / "again",
    )
    with eager_steps():
        options = (*table, "--head", "keep", "--inflate", 1, "--steps", 2)
        assert tfp_bnn("finetune", "mlp_flipout.moons", *options, "--out", first)[0] == 0
        code, _, errors = tfp_bnn("train", first / "recipe.yaml", *table, "--out", again)
    assert code == 0, errors
    for file in ("weights.safetensors", "metrics.json", "golden.safetensors"):
        assert (first / file).read_bytes() == (again / file).read_bytes(), file
    assert json.loads((again / "metrics.json").read_text())["test"]["accuracy"] > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("mlp_flipout.irs", (), "Did you mean 'mlp_flipout.iris'?"),
        ("mlp_flipout.iris", ("--dataset", "iriss"), "Did you mean 'iris'?"),
        ("mlp_flipout.iris", ("--dataset", "diabetes"), "for regression, but the model has the likelihood Categorical"),
        ("mlp_flipout.iris", ("--dataset", "digits"), "inputs of shape (4,), but the data have (8, 8, 1)"),
        ("mlp_flipout.iris", ("--prior", "posteriro"), "Did you mean 'posterior'?"),
        ("mlp_flipout.iris", ("--prior", "{name: lapace}"), "Did you mean 'laplace'?"),
        ("mlp_flipout.iris", ("--prior", "{name: laplace"), "--prior '{name: laplace' is not valid YAML: "),
        ("mlp_flipout.iris", ("--prior", "default", "--inflate", 3), "Got inflate=3.0 with prior='default'"),
        ("mlp_flipout.iris", ("--inflate", "autto"), "--inflate must be a number or auto, but got 'autto'"),
        ("mlp_flipout.iris", ("--inflate", 0), "--inflate got 0.0: Input should be greater than 0, or"),
        ("mlp_flipout.iris", ("--inflate", "nan"), "--inflate got nan: Input should be a finite number"),
        ("mlp_flipout.iris", ("--head-scale", "one"), "--head-scale must be a number or auto, but got 'one'"),
        ("mlp_flipout.iris", ("--head-scale", -1), "--head-scale got -1.0: Input should be greater"),
        ("mlp_flipout.iris", ("--mix", 1), "--mix got 1.0: Input should be less than 1"),
        ("mlp_flipout.iris", ("--mix", "some"), "Invalid value for '--mix'"),
        ("mlp_flipout.iris", ("--freeze", "dens1"), "Did you mean 'dense1'?"),
        ("mlp_flipout.iris", ("--freeze", "logits"), "The layer 'logits' is new"),
        ("mlp_flipout.iris", ("--head", "kep"), "Did you mean 'keep'?"),
        ("mlp_flipout.iris", ("--steps", 0), "--steps got 0"),
        ("mlp_flipout.iris", ("--batch-size", 0), "--batch-size got 0"),
        ("mlp_flipout.iris", ("--learning-rate", 0), "--learning-rate got 0.0"),
        ("mlp_flipout.iris", ("--seed", -1), "--seed got -1"),
        ("mlp_flipout.iris", ("--freez", "dense1"), "No such option: --freez"),
    ],
)
def test_a_slip_is_one_clear_line_and_2(tmp_path, tfp_bnn, name, options, says):
    given = options if "--dataset" in options else ("--dataset", "iris", *options)
    code, output, errors = tfp_bnn("finetune", name, *given, "--out", tmp_path / "out")
    assert (code, output) == (2, "")
    assert says in errors
    lines = [line for line in errors.splitlines() if line.startswith("tfp-bnn: ")]
    # What is no number at all is the parser's to refuse.
    assert errors.splitlines()[-1] in lines or "finetune [OPTIONS]" in errors
    assert len(lines) <= 1
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_kept_without_overwrite(tmp_path, tfp_bnn):
    (tmp_path / "notes").mkdir()
    arguments = ("finetune", "mlp_flipout.iris", "--dataset", "iris", *QUICK, "--out", tmp_path / "notes")
    code, _, errors = tfp_bnn(*arguments, "--overwrite")
    assert code == 2
    assert "It is not an artifact; choose another folder" in errors


def test_missing_data_end_with_1(tmp_path, tfp_bnn, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    code, _, errors = tfp_bnn("finetune", "lenet5_flipout.mnist", "--dataset", "kmnist", *QUICK)
    assert code == 1
    assert "kmnist" in errors.splitlines()[-1]


def test_the_help_names_every_option_with_its_default(tfp_bnn):
    code, text, _ = tfp_bnn("finetune", "--help")
    assert code == 0
    for option in (
        "dataset",
        "out",
        "prior",
        "inflate",
        "head-scale",
        "mix",
        "freeze",
        "head",
        "adapt-inputs",
        "steps",
    ):
        assert re.search(rf"^ +--{option} ", text, re.MULTILINE), option
    assert "Cross-validation (auto) only uses the training split" in text


def test_inputs_are_adapted_to_a_folder_of_images_and_not_to_a_dataset_of_its_name(tfp_bnn, tmp_path, monkeypatch):
    adapted = []

    def fine_tune(*_, adapt_inputs, **__):
        adapted.append(adapt_inputs)
        raise ValueError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo.training.fine_tuning.fine_tune", fine_tune)
    monkeypatch.setattr("zoo.cli.training.load_files_like", lambda *_, **__: None)
    for name in ("iris", "photos"):
        Path(name).mkdir()
        code, _, errors = tfp_bnn("finetune", "mlp_flipout.iris", "--dataset", name)
        assert (code, errors.splitlines()[-1]) == (2, "tfp-bnn: enough")
    assert adapted == [False, True]
