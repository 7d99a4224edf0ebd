"""The command `train`, run as a user runs it: what it records, rejects and prints, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
import typer

import zoo
from zoo.cli.models import print_numbers
from zoo.cli.training import _resumable, says_how_to_go_on
from zoo.recipes import recipe_text

# What the command does around the steps is tested here; tests in `training` compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

RECIPE = {
    "name": "mlp_flipout.cli",
    "architecture": "mlp_flipout",
    "dataset": "iris",
    "model": {"hidden": [4]},
    "batch_size": 50,
    "epochs": 2,
    "evaluation": {"num_samples": 2, "spread_seeds": []},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(zoo.load_recipe(RECIPE)))
    return path


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """A function that has something done to the model in the middle of the second step of the next training."""

    def at_second_step(act: Callable[[Any], None]) -> None:
        class Act(keras.callbacks.Callback):
            steps = 0

            def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
                self.steps += 1
                if self.steps == 2:
                    act(self.model)

        @contextlib.contextmanager
        def progress(fits: int) -> Iterator[list[keras.callbacks.Callback]]:
            yield [Act()]

        monkeypatch.setattr("zoo.cli.training.training_progress", progress)

    return at_second_step


@pytest.mark.slow
def test_changes_are_recorded_in_the_artifact(recipe, tmp_path, tfp_bnn):
    out = tmp_path / "out"
    options = ["--epochs", 1, "--seed", 3, "--seeds", 2, "--set", "optimizer.learning_rate=1e-2", "--set", "beta=.5"]
    code, output, errors = tfp_bnn("train", recipe, "--out", out, *options, "--json")
    assert code == 0
    assert "epoch 1/1" in errors
    assert json.loads(output)["training_seeds"] == [3, 4]
    made = zoo.load_recipe(out / "recipe.yaml")
    changes = {
        "epochs": 1,
        "seed": 3,
        "evaluation.spread_seeds": [4],
        "optimizer.learning_rate": 1e-2,
        "beta": 0.5,
    }
    assert made.overrides == changes
    # By its name the recipe would be another one.
    assert "`tfp-bnn train recipe.yaml` runs it" in (out / "README.md").read_text("utf-8")
    assert (made.epochs, made.seed, made.beta, made.optimizer.learning_rate) == (1, 3, 0.5, 1e-2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]
    lines = (out / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1"]
    assert "log.csv" in json.loads((out / "manifest.json").read_text())["files"]


def test_resume_without_a_folder_does_not_start_anew(recipe, tfp_bnn):
    code, _, errors = tfp_bnn("train", recipe, "--resume")
    assert code == 2
    assert "nothing to resume without a folder" in errors


def test_seeds_count_from_the_seed_that_was_set():
    from zoo.training.planning import planned, seeds_of

    with pytest.raises(ValueError, match="learning_rate") as caught:
        planned(RECIPE, {"seed": 7, "optimizer.learning_rate": -1.0}, seeds=3)
    assert "-1.0" in str(caught.value)
    assert seeds_of(planned(RECIPE, {"seed": 7}, seeds=3)) == [7, 8, 9]
    # The recipe counts 0, 1, 2: there are as many after another seed, unless the others are named.
    assert seeds_of(planned("mlp_flipout.iris", seed=1)) == [1, 2, 3]
    assert seeds_of(planned("mlp_flipout.iris", {"evaluation.spread_seeds": [1, 2]}, seed=1)) == [1, 2]
    assert "evaluation.spread_seeds" not in planned("mlp_flipout.iris", seed=0).overrides


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "epoch=3"], "Did you mean 'epochs'"),
        (["--set", "epochs"], "KEY=VALUE was expected"),
        (["--set", "optimizer.learning_rate=fast"], "'optimizer.learning_rate' got 'fast'"),
        (["--set", "optimizer.learning_rate=nan"], "optimizer.learning_rate"),
        (["--epochs", "0"], "'epochs' got 0"),
        (["--epochs", "many"], "--epochs"),
        (["--seed", "-1"], "'seed' got -1"),
        (["--seeds", "0"], "--seeds"),
        (["--resume"], "nothing to resume"),
        (["--strategy", "mirorred"], "Did you mean 'mirrored'"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_written(recipe, tmp_path, tfp_bnn, options, says):
    code, output, errors = tfp_bnn("train", recipe, "--out", tmp_path / "out", *options)
    assert code == 2
    assert output == ""
    assert says in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_t3_interrupted_then_refused_then_resumed_by_the_command_it_prints(
    recipe, tmp_path, tfp_bnn, during, signum, expected
):
    out = tmp_path / "out"
    during(lambda model: os.kill(os.getpid(), signum))
    code, output, errors = tfp_bnn("train", recipe, "--out", out, "--epochs", 3)
    assert code == expected
    assert output == ""
    # The step was the last of its epoch, which was validated too.
    assert "interrupted after epoch 1, step 0 of 2; a checkpoint is written. To continue:" in errors
    program, *command = shlex.split(errors.strip().splitlines()[-1])
    assert program == "tfp-bnn"
    assert command == ["train", str(recipe), "--out", str(out), "--epochs", "3", "--resume"]
    during(lambda model: None)
    code, _, errors = tfp_bnn(*command[:-1])
    assert code == 2
    assert "holds an unfinished run" in errors
    code, output, errors = tfp_bnn(*command)
    assert code == 0
    assert "resuming after epoch 1, step 0" in errors
    assert f"saved: {out}" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]


@pytest.mark.slow
def test_t5_a_full_disk_ends_with_1_and_leaves_the_checkpoint_of_before(recipe, tmp_path, tfp_bnn, during, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    during(lambda model: monkeypatch.setattr("zoo.training.checkpoints.os.fsync", full))
    code, output, errors = tfp_bnn("train", recipe, "--out", tmp_path / "out")
    assert code == 1
    assert output == ""
    assert "tfp-bnn: [Errno 28] The checkpoint after 4 steps could not be written" in errors
    assert "No space left on device" in errors
    (generation,) = (tmp_path / "out.training" / "seed-0").glob("generation-*")
    assert generation.name == "generation-0000000000"
    assert not list(tmp_path.rglob(".writing-*"))
    assert not (tmp_path / "out").exists()


def test_t5_a_file_where_a_folder_should_be_ends_with_1(recipe, tmp_path, tfp_bnn):
    (tmp_path / "file").write_text("")
    code, _, errors = tfp_bnn("train", recipe, "--out", tmp_path / "file" / "out")
    assert code == 1
    assert str(tmp_path / "file") in errors


@pytest.mark.slow
def test_a_training_that_diverges_is_warned_of_in_words(recipe, tfp_bnn):
    # Each step of Adam moves every weight of a linear model by about 10, and inputs are up to 8.
    changes = ("model.hidden=[]", "optimizer.learning_rate=10.0", "optimizer.decay=null")
    code, output, errors = tfp_bnn("train", recipe, *(word for change in changes for word in ("--set", change)))
    assert code == 0, errors
    assert "accuracy" in output
    assert "warning: the training with seed 0 diverged: at its end the validation NLL is" in errors
    assert "Lower the learning rate: --set optimizer.learning_rate=" in errors


@pytest.mark.slow
def test_t4_numbers_that_are_not_finite_end_with_1_and_name_the_place(recipe, tmp_path, tfp_bnn, during):
    during(lambda model: model.network.get_layer("logits").bias.assign([0.0, float("nan"), 0.0]))
    code, output, errors = tfp_bnn("train", recipe, "--out", tmp_path / "out")
    assert code == 1
    assert output == ""
    assert "tfp-bnn: Stopped in epoch 1, batch 2 of 2: The negative log-likelihood" in errors
    assert "NaN or infinite are the weights of the layer 'logits'" in errors
    assert "Nothing was saved since the last checkpoint" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_t15_odd_paths_c_locale_no_home_and_no_temporary_folder(tmp_path):
    folder = tmp_path / "with spaces and ünïcödé 雪"
    folder.mkdir()
    (folder / "mein Rezept ß.yaml").write_text(recipe_text(zoo.load_recipe({**RECIPE, "epochs": 1})), "utf-8")
    kept = ("PATH", "TFDS_DATA_DIR", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"LC_ALL": "C", "TMPDIR": str(tmp_path / "nowhere")}
    command = [sys.executable, "-c", "from zoo.cli import main; main()", "train", "mein Rezept ß.yaml"]
    done = subprocess.run(
        [*command, "--out", "Ausgabe 1 雪"], cwd=folder, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert sorted(path.name for path in folder.iterdir()) == ["Ausgabe 1 雪", "mein Rezept ß.yaml"]
    assert zoo.load_artifact(folder / "Ausgabe 1 雪", trust=True).num_examples == 96
    assert "saved: " in done.stdout.decode(errors="surrogateescape")


@pytest.mark.thorough
def test_tensorboard_has_a_log_of_the_training(tfp_bnn, recipe, tmp_path):
    code, _, _ = tfp_bnn("train", recipe, "--tensorboard", tmp_path / "log")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "log" / "seed-0").iterdir() if path.is_dir()) == [
        "train",
        "validation",
    ]


def test_a_log_for_tensorboard_that_cannot_be_written_is_one_line(tfp_bnn, recipe):
    code, _, err = tfp_bnn("train", recipe, "--tensorboard", recipe / "log")
    assert code == 1
    told, message = err.strip().splitlines()
    assert "nothing will be saved" in told
    assert message.startswith("tfp-bnn: ")
    assert "recipe.yaml" in message


@pytest.mark.parametrize(
    ("has_checkpoint", "says"), [(True, "To continue:"), (False, "There is nothing to go on with")]
)
def test_an_interruption_promises_to_resume_only_what_it_can(tmp_path, capfd, has_checkpoint, says):
    if has_checkpoint:
        (tmp_path / "out.training" / "seed-0").mkdir(parents=True)
    with pytest.raises(typer.Exit) as caught, says_how_to_go_on(_resumable(tmp_path / "out")):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert says in capfd.readouterr().err


def test_numbers_of_small_units_are_shown_in_their_digits(capsys):
    print_numbers({"rmse": 1.234567e-5, "nll": -9.87654321, "ece": 0.0})
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1.235e-05", "-9.8765", "0.0000"]
