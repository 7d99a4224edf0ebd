"""What the command line answers without TensorFlow: lists, cards, help, and whatever it refuses."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from enum import EnumType
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from zoo.cli import app

# Runs commands one after another in one process, and prints for each its exit code, output, and what it imported.
RUN_ALL = """
import contextlib, io, json, sys
from zoo.cli import main
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["tfp-bnn", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue(), [m for m in ("tensorflow", "keras") if m in sys.modules]]))
"""

ANSWERED = {
    ("--help",): "Usage: tfp-bnn",
    ("-h",): "Usage: tfp-bnn",
    ("train", "-h"): "--seeds",
    ("--version",): "tfp-bnn",
    ("list",): "lenet5_flipout.digits",
    ("list", "lenet5*", "*.iris", "--sort", "accuracy", "--json"): "mlp_flipout.iris",
    ("show", "mlp_flipout.iris"): "# mlp_flipout.iris",
}
REFUSED = {
    ("show", "lenet5_flipout.digit"): "Did you mean 'lenet5_flipout.digits'",
    ("show", "nowhere/at_all"): "not a name of the zoo",
    ("list", "--sort", "acuracy"): "Did you mean 'accuracy'",
    ("evaluate", "lenet5_flipout"): "an architecture without weights",
    ("evaluate", "mlp_flipout.irs"): "Did you mean 'mlp_flipout.iris'",
    ("evaluate", "mlp_flipout.iris", "--dataset", "irs"): "Did you mean 'iris'",
    ("evaluate", "mlp_flipout.iris", "--split", "tets"): "Did you mean 'test'",
    ("evaluate", "mlp_flipout.iris", "--dataset", "no/photos"): "There is no file or folder 'no/photos'",
    ("evaluate", "mlp_flipout.iris", "--dataset", "flats.csv"): "It has the columns ['area', 'price']",
    ("evaluate", "mlp_flipout.iris", "--suite", "--out", "no/suite.csv"): "There is no folder 'no'",
    ("evaluate", "artifact"): "give --trust",
    ("predict", "artifact", "flats.csv"): "give --trust",
    ("predict", "mlp_flipout.irs", "flats.csv"): "Did you mean 'mlp_flipout.iris'",
    ("predict", "mlp_flipout.iris", "no.csv"): "There is no file 'no.csv'",
    ("predict", "mlp_flipout.iris", "*.tif"): "No file matches '*.tif'",
    ("predict", "mlp_flipout.iris", "mine.yaml"): "Expected one .csv, .parquet, .npy or .npz file, or images",
    ("predict", "mlp_flipout.iris", "empty"): "no images in the folder 'empty'",
    ("predict", "mlp_flipout.iris", "flats.csv", "--out", "no/out.csv"): "There is no folder 'no'",
    ("predict", "mlp_flipout.iris", "flats.csv", "--num-samples", "0"): "num-samples",
    ("finetune", "mlp_flipout.irs", "--dataset", "wine"): "Did you mean 'mlp_flipout.iris'",
    ("finetune", "mlp_flipout.iris", "--dataset", "wines"): "Did you mean 'wine'",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--inflate", "much"): "must be a number or auto",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--out", "empty"): "It is not an artifact",
    ("train", "mlp_flipout.irs"): "Did you mean 'mlp_flipout.iris'",
    ("train", "mlp_flipout.iris", "--out", "mlp_flipout.iris"): "is the name of a bundled model",
    ("prune", "mlp_flipout.iris", "--fraction", "0.5", "--out", "mlp_flipout.iris"): "such as runs/mlp_flipout.iris",
    ("train", "no.yaml"): "There is no recipe file",
    ("train", "mlp_flipout.iris", "--set", "epochs"): "KEY=VALUE was expected",
    ("train", "mlp_flipout.iris", "--set", "optimiser.name=sgd"): "Did you mean 'optimizer'",
    ("train", "mlp_flipout.iris", "--set", "optimizer.learning_rat=1"): "Did you mean 'learning_rate'",
    ("train", "mlp_flipout.iris", "--set", "optimizer.name=adm"): "Did you mean 'adam'",
    ("train", "mlp_flipout.iris", "--set", "inference=laplac"): "Did you mean 'laplace'",
    ("train", "mlp_flipout.iris", "--set", "epochs=many"): "epochs got 'many': Input should be a valid integer",
    ("train", "mlp_flipout.iris", "--set", "epochs=0"): "epochs got 0: Input should be greater than or equal to 1",
    ("train", "mlp_flipout.iris", "--set", "batch_size=2.5"): "batch_size got 2.5: Input should be a valid integer",
    ("train", "mlp_flipout.iris", "--set", "optimizer.learning_rate=-1"): "learning_rate got -1: Input should be",
    ("train", "mlp_flipout.iris", "--set", "evaluation.spread_seeds=[1, -2]"): "spread_seeds got [1, -2]: Input",
    ("train", "mlp_flipout.iris", "--set", "model.hidden=[0]"): "hidden got [0]: Input should be greater",
    ("train", "mlp_flipout.iris", "--set", "optimizer=3"): "optimizer got 3: Input should be a mapping of keys",
    ("train", "mlp_flipout.iris", "--set", "beta=null"): "beta got None: Input should be a valid number",
    ("train", "mlp_flipout.iris", "--epochs", "1000000"): "epochs got 1000000: Input should be less than",
    ("train", "mlp_flipout.iris", "--seed", "-1"): "seed got -1: Input should be greater",
    ("train", "mlp_flipout.iris", "--strategy", "miror"): "Did you mean 'mirrored'",
    ("train", "mlp_flipout.iris", "--set", "architecture=mlp_flip"): "Did you mean 'mlp_flipout'",
    ("train", "mlp_flipout.iris", "--set", "model.hiden=[5]"): "Did you mean 'hidden'",
    ("train", "mlp_flipout.iris", "--set", "model.estimator=flipuot"): "Did you mean 'flipout'",
    ("train", "mlp_flipout.iris", "--set", "model.kernel_prior=norml"): "Did you mean 'normal'",
    ("train", "mlp_flipout.iris", "--set", "model.kernel_prior.scal=1"): "Did you mean 'scale'",
    ("train", "mlp_flipout.iris", "--set", "model.kernel_prior.hyperprior=half_norml"): "Did you mean 'half_normal'",
    ("train", "mlp_flipout.iris", "--set", "model.kernel_posterior=radail"): "Did you mean 'radial'",
    ("train", "mlp_flipout.iris", "--set", "model.likelihood=categorial"): "Did you mean 'categorical'",
    ("train", "mlp_flipout.iris", "--set", "evaluation.out_of_distribution=wien"): "Did you mean 'wine'",
    ("train", "mine.yaml"): "Did you mean 'batch_size'",
    ("compare", "mlp_flipout.iris", "--out", "compared", "--inference", "mpa"): "Did you mean 'map'",
    ("compare", "mlp_flipout.iris", "--out", "compared", "--grid", "optimizer.name=[adm]"): "Did you mean 'adam'",
    ("compare", "mlp_flipout.iris", "--out", "compared", "--grid", "beta=[1, 11]"): "beta got 11: Input should be",
    ("compare", "mlp_flipout.iris", "--out", "compared", "--grid", "beta=1"): "a list of values was expected",
    ("compare", "mlp_flipout.iris", "--out", "compared", "--epochs", "0"): "epochs got 0",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--mix", "1"): "--mix got 1.0: Input should be less than 1",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--inflate", "-1"): "or Input should be 'auto'",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--steps", "0"): "--steps got 0",
    ("prune", "mlp_flipout.iris", "--fraction", "1.2"): "--fraction got 1.2: Input should be less than 1",
    ("prune", "mlp_flipout.iris", "--fraction", ".5", "--layer", "dens1"): "Did you mean 'dense1'",
    ("evaluate", "mlp_flipout.iris", "--seed", "-1"): "--seed got -1",
    ("predict", "mlp_flipout.iris", "flats.csv", "--seed", "9999999999999"): "--seed got 9999999999999",
    ("export", "mlp_flipout.iris", "--output", "served", "--samples", "0"): "--samples",
    ("demo", "--epochs", "1000000"): "--epochs got 1000000",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--prior", "postrior"): "Did you mean 'posterior'",
    ("finetune", "mlp_flipout.iris", "--dataset", "wine", "--freeze", "dens1"): "Did you mean 'dense1'",
    ("train", "mlp_flipout.iris", "--target", "price"): "give the table with --dataset",
    ("train", "mlp_flipout.iris", "--target-unit", "EUR"): "give them with --dataset",
    ("train", "mlp_flipout.iris", "--out", "artifact"): "--overwrite",
    ("compare", "mlp_flipout.irs", "--out", "compared"): "Did you mean 'mlp_flipout.iris'",
    ("export", "mlp_flipout.irs", "--output", "served"): "Did you mean 'mlp_flipout.iris'",
    ("verify", "mlp_flipout.irs"): "Did you mean 'mlp_flipout.iris'",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a table, a recipe, an empty folder, and something that has the manifest of an artifact."""
    (tmp_path / "flats.csv").write_text("area,price\n50,100\n")
    (tmp_path / "mine.yaml").write_text("name: mlp_flipout.mine\narchitecture: mlp_flipout\nbatchsize: 8\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "manifest.json").write_text("{}")
    return tmp_path


def test_answers_and_refusals_do_not_import_tensorflow(place):
    commands = [*ANSWERED, *REFUSED]
    command = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    found = dict(zip(commands, map(json.loads, done.stdout.splitlines()), strict=True))
    for words, says in ANSWERED.items():
        code, out, err, _ = found[words]
        assert (code, err) == (0, ""), words
        assert says in out
    # No command is described by half a sentence.
    assert "..." not in found["--help",][1].partition("Commands:")[2]
    for words, says in REFUSED.items():
        code, out, err, _ = found[words]
        assert (code, out) == (2, ""), (words, err)
        assert says in err, words
        assert len(err) < 700, words
    assert {words: imported for words, (*_, imported) in found.items() if imported} == {}
    assert sorted(path.name for path in place.iterdir()) == ["artifact", "empty", "flats.csv", "mine.yaml"]
    (best, *_) = json.loads(found["list", "lenet5*", "*.iris", "--sort", "accuracy", "--json"][1])
    assert best["name"] == "mlp_flipout.iris"


def test_the_library_as_a_program_answers_without_tensorflow_too(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "tfp_bnn", "show", "mlp_flipout.irs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'mlp_flipout.iris'" in done.stderr
    assert "tensorflow" not in done.stderr


@pytest.mark.slow
def test_the_library_as_a_program_imports_itself_for_what_needs_it(tmp_path):
    (tmp_path / "flowers.csv").write_text("5.1,3.5,1.4,0.2\n")
    command = [sys.executable, "-m", "tfp_bnn", "predict", "mlp_flipout.iris", "flowers.csv", "--num-samples", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 2), done.stderr


def test_every_value_of_a_command_has_a_name_and_every_number_bounds():
    for command in app.registered_commands:
        source = inspect.getsource(command.callback)
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *options = get_args(hint) or (hint,)
            kinds = {kind, *get_args(kind)}
            for option in options:
                assert option.metavar or bool in kinds or isinstance(kind, EnumType), (command.callback, name)
            if kinds & {int, float}:
                # Checked by a schema: as an option, or among the changes of a recipe.
                of_schema = f'("--{name.replace("_", "-")}", {name}', f'{{"{name}": {name}', f'"{name}": {name}}}'
                checked = any(text in source for text in of_schema)
                assert checked or options[0].min is not None, (command.callback, name)
