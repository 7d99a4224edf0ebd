"""The whole way from a user's own files: fine-tuned or trained, judged, reported, predicted and exported."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw

import zoo
from zoo.datasets.own_files import dataset_from_files

SHORT = ("--inflate", 1, "--head-scale", 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "photos"
    rng = np.random.default_rng(0)
    for name in ("circle", "square", "triangle"):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            image = Image.new("RGB", (96, 96), tuple(rng.integers(0, 100, 3).tolist()))
            draw, colour = ImageDraw.Draw(image), tuple(rng.integers(150, 256, 3).tolist())
            if name == "circle":
                draw.ellipse((20, 20, 70, 70), fill=colour)
            else:
                draw.regular_polygon((48, 48, 30), 3 + (name == "square"), fill=colour)
            image.save(folder / name / f"{index}.png")
    return folder


def assert_same_predictions(found, expected):
    """They are the same to the last of six digits, which rounding may change."""
    rows = [list(csv.DictReader(text.splitlines())) for text in (found, expected)]
    assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
    numbers = [[[float(row[name]) for name in row if name != "prediction"] for row in part] for part in rows]
    np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_photographs_become_a_model_that_is_judged_reported_and_exported(photos, tmp_path, tfp_bnn, eager_steps):
    out, near = tmp_path / "shapes", ("--dataset", photos, "--trust", "--num-samples", 2)
    with eager_steps():
        code, _, err = tfp_bnn(
            "finetune", "lenet5_flipout.digits", "--dataset", photos, "--out", out, *SHORT, "--steps", 2
        )
    assert code == 0, err
    assert f"to be saved in {out}" in err
    config = json.loads((out / "config.json").read_text())
    settings = config["config"]
    assert (settings["input_shape"], settings["grey"], settings["pixel_max"]) == ([96, 96, 3], True, 255.0)
    assert config["data"]["class_names"] == ["circle", "square", "triangle"]
    code, printed, err = tfp_bnn("evaluate", out, *near, "--report", tmp_path / "report", "--json")
    assert code == 0, err
    assert {"accuracy", "nll", "report"} <= json.loads(printed).keys()
    assert json.loads(tfp_bnn("evaluate", out, *near, "--split", "all", "--json")[1])["accuracy"] <= 1
    code, printed, err = tfp_bnn("predict", out, photos / "square", "--trust", "--num-samples", 3)
    rows = list(csv.DictReader(printed.splitlines()))
    assert [row["input"] for row in rows] == [str(path) for path in sorted((photos / "square").iterdir())]
    assert {row["prediction"] for row in rows} <= {"circle", "square", "triangle"}
    # What a loaded model sees is what the predictions are made of.
    pixels = np.stack([np.asarray(Image.open(row["input"])) for row in rows])
    mean = zoo.load_artifact(out, trust=True).posterior_predictive(pixels, num_samples=3).mean()
    np.testing.assert_allclose([float(row["mean_square"]) for row in rows], mean[:, 1], rtol=1e-4)
    assert tfp_bnn("export", out, "--trust", "--output", tmp_path / "served", "--num-samples", 2)[0] == 0
    assert (tmp_path / "served" / "saved_model.pb").exists()


@pytest.mark.slow
def test_a_table_is_trained_on_and_its_columns_are_found_by_name(tmp_path, tfp_bnn, eager_steps):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2)).astype(np.float32)
    y = x @ [3.0, -1.0] + 100
    header, rows = "area,rooms,price", [f"{a},{b},{c}" for (a, b), c in zip(x, y, strict=True)]
    (tmp_path / "flats.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "swapped.csv").write_text("\n".join(["note,rooms,area", *(f"?,{b},{a}" for a, b in x)]))
    table = ("--dataset", tmp_path / "flats.csv", "--target", "price")
    options = (*table, "--target-unit", "kEUR", "--epochs", 1, "--seeds", 1)
    with eager_steps():
        code, _, err = tfp_bnn("train", "mlp_flipout.diabetes", *options, "--out", tmp_path / "flats")
    assert code == 0, err
    recipe = zoo.load_recipe(tmp_path / "flats" / "recipe.yaml")
    assert recipe.dataset is None
    assert recipe.name == "mlp_flipout.flats"
    assert "`epistemic_std` in kEUR" in (tmp_path / "flats" / "README.md").read_text()
    config = json.loads((tmp_path / "flats" / "config.json").read_text())["data"]
    assert (config["dataset"], config["feature_names"], config["source"]) == (
        None,
        ["area", "rooms"],
        "own files: flats.csv",
    )
    code, printed, err = tfp_bnn(
        "predict",
        tmp_path / "flats",
        tmp_path / "swapped.csv",
        "--trust",
        "--num-samples",
        5,
        "--json",
        "--draws",
        tmp_path / "draws.npy",
    )
    assert code == 0, err
    rows = json.loads(printed)
    assert {row["unit"] for row in rows} == {"kEUR"}
    predictive = zoo.load_artifact(tmp_path / "flats", trust=True).posterior_predictive(x, num_samples=5)
    for name, expected in {
        "mean": predictive.mean(),
        "std": np.sqrt(predictive.aleatoric() + predictive.epistemic()),
        "lower_90": predictive.interval(0.9)[0],
        "upper_90": predictive.interval(0.9)[1],
        "epistemic_std": np.sqrt(predictive.epistemic()),
    }.items():
        np.testing.assert_allclose([row[name] for row in rows], expected[:, 0], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(np.load(tmp_path / "draws.npy"), predictive.samples, rtol=1e-5)
    report = ("--report", tmp_path / "report", "--num-samples", 2)
    assert tfp_bnn("evaluate", tmp_path / "flats", *table, "--trust", *report)[0] == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "kEUR" in page
    assert "units of the target" not in page
    code, _, err = tfp_bnn("evaluate", tmp_path / "flats", "--trust")
    assert (code, "Give it with --dataset" in err) == (2, True)


@pytest.mark.slow
def test_series_with_channels_are_trained_on_judged_and_predicted(tmp_path, tfp_bnn, eager_steps):
    np.savez(tmp_path / "x.npz", x=np.sin(np.arange(720.0)).reshape(40, 6, 3), y=np.arange(40) % 2)
    recipe = {"name": "lstm_flipout.own", "architecture": "lstm_flipout", "epochs": 1, "model": {"units": [2]}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    data, out = ("--dataset", tmp_path / "x.npz"), tmp_path / "series"
    with eager_steps():
        code, _, err = tfp_bnn("train", tmp_path / "recipe.yaml", *data, "--seeds", 1, "--out", out)
        assert code == 0, err
        tuned = tfp_bnn("finetune", out, *data, "--steps", 1, "--inflate", 1, "--head-scale", 1, "--trust")
        assert tuned[0] == 0, tuned[2]
    assert json.loads((out / "config.json").read_text())["config"]["input_shape"] == [6, 3]
    for command in (("evaluate", out, *data), ("predict", out, tmp_path / "x.npz")):
        code, _, err = tfp_bnn(*command, "--trust", "--num-samples", 2)
        assert code == 0, err


def test_predictions_come_from_the_standard_input_and_do_not_depend_on_the_batch(tmp_path, tfp_bnn, monkeypatch):
    flowers = zoo.load_dataset("iris").test.x[:3]
    np.savez(tmp_path / "x.npz", x=flowers)
    monkeypatch.setattr("zoo.cli.prediction._BATCH_SIZE", 2)
    code, expected, err = tfp_bnn("predict", "mlp_flipout.iris", tmp_path / "x.npz", "--num-samples", 3)
    assert code == 0, err
    lines = "\n".join(",".join(map(str, row)) for row in flowers)
    (tmp_path / "x.csv").write_text(lines)
    with (tmp_path / "x.csv").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("zoo.cli.prediction._BATCH_SIZE", 1024)
        assert_same_predictions(tfp_bnn("predict", "mlp_flipout.iris", "-", "--num-samples", 3)[1], expected)
    of_test = tfp_bnn("predict", "mlp_flipout.iris", "iris", "--num-samples", 3)[1].splitlines()
    assert_same_predictions("\n".join(of_test[:4]), expected)
    assert len(of_test) == 31


def test_names_of_files_that_are_no_text_are_shown_and_stored_with_escapes(tmp_path, tfp_bnn):
    image, table = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.png", b"caf\xe9.csv"))
    pixels = zoo.load_dataset("digits").test.x[0, :, :, 0] * 255 / 16
    Image.fromarray(pixels.astype(np.uint8)).save(image)
    code, printed, err = tfp_bnn("predict", "mlp_flipout.digits", image, "--num-samples", 2, "--json")
    assert code == 0, err
    assert json.loads(printed)[0]["input"] == f"{tmp_path}/caf\\udce9.png"
    table.write_text("a,b,c\n" + "1,2,3.5\n2,1,4.5\n" * 5)
    data = dataset_from_files(table, "c")
    network = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, hidden=(2,), likelihood="normal")
    zoo.save_artifact(network, tmp_path / "model", data={"task": data.task, "source": data.source})
    code, card, err = tfp_bnn("show", tmp_path / "model")
    assert code == 0, err
    assert "own files: caf\\udce9.csv" in card
    assert "own files: caf\\udce9.csv" in (tmp_path / "model" / "README.md").read_text("utf-8")


def test_a_file_that_could_not_be_written_keeps_what_is_there(tmp_path, tfp_bnn):
    (tmp_path / "x.csv").write_text("5.1,3.5,1.4,0.2\n1,2,3,nan\n")
    (tmp_path / "out.csv").write_text("precious")
    code, _, err = tfp_bnn("predict", "mlp_flipout.iris", tmp_path / "x.csv", "--out", tmp_path / "out.csv")
    assert code == 2, err
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "x.csv"]
