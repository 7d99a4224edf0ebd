"""The command line, run as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import main


def test_list_and_show_as_text_and_json(run):
    assert "lenet5_flipout.digits" in run("list")
    names = [entry["name"] for entry in json.loads(run("list", "lenet5*", "--json"))]
    assert names == [f"lenet5_flipout.{tag}" for tag in ("digits", "fashion_mnist", "mnist")]
    assert run("show", "mlp_flipout.iris").startswith("# mlp_flipout.iris\n")
    assert json.loads(run("show", "mlp_flipout.iris", "--json"))["config"]["architecture"] == "mlp_flipout"


def test_list_does_not_import_tensorflow():
    code = "import sys; from zoo.cli import app; app(['list'], standalone_mode=False); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "lenet5_flipout.digits" in modules
    for heavy in ("tensorflow", "keras", "numpy", "sklearn"):
        assert f"'{heavy}'" not in modules


def test_evaluate_measures_the_card(run):
    measured = json.loads(run("evaluate", "mlp_flipout.iris", "--json"))
    card = json.loads(run("show", "mlp_flipout.iris", "--json"))["metrics"]["test"]
    assert {name: measured[name] for name in card} == pytest.approx(card, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_train_writes_an_artifact_that_evaluates(tmp_path, run, eager_steps):
    out = tmp_path / "made"
    with eager_steps():
        text = run("train", "mlp_flipout.iris", "--out", out, "--epochs", 2, "--seeds", 1, "--json")
    assert json.loads(text)["path"] == str(out)
    assert "accuracy" in run("evaluate", out, "--trust")


def test_predict_csv_with_header(tmp_path, run):
    x = zoo.load_dataset("iris").test.x[:5]
    path, out = tmp_path / "flowers.csv", tmp_path / "out.csv"
    path.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in x))
    rows = list(csv.DictReader(io.StringIO(run("predict", "mlp_flipout.iris", path, "--num-samples", 30))))
    expected = zoo.load_model("mlp_flipout.iris").posterior_predictive(x, num_samples=30)
    assert len(rows) == 5
    names = zoo.load_dataset("iris").class_names
    for index, row in enumerate(rows):
        got = [float(row[f"mean_{name}"]) for name in names]
        np.testing.assert_allclose(got, expected.mean()[index], rtol=1e-4, atol=1e-6)
        assert float(row["entropy"]) == pytest.approx(expected.entropy()[index], rel=1e-4)
        assert float(row["epistemic"]) == pytest.approx(expected.epistemic()[index], rel=1e-3, abs=1e-6)
        assert row["prediction"] == names[int(np.argmax(got))]
    run("predict", "mlp_flipout.iris", path, "--num-samples", 30, "--out", out)
    assert list(csv.DictReader(io.StringIO(out.read_text()))) == rows
    assert sorted(file.name for file in tmp_path.iterdir()) == ["flowers.csv", "out.csv"]


def test_predict_regression(tmp_path, run):
    np.save(tmp_path / "x.npy", zoo.load_dataset("diabetes").test.x[:3])
    rows = list(csv.DictReader(io.StringIO(run("predict", "mlp_flipout.diabetes", tmp_path / "x.npy"))))
    numbers = ["mean", "std", "lower_90", "upper_90", "aleatoric_std", "epistemic_std", "entropy"]
    assert list(rows[0]) == ["input", *numbers]
    assert all(np.isfinite(float(row["mean"])) for row in rows)


@pytest.mark.slow
def test_predict_images_agrees_with_pixels(tmp_path, run):
    digits = zoo.load_dataset("digits").test
    paths = []
    for index in range(4):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray((digits.x[index, :, :, 0] * 255 / 16).round().astype("uint8")).save(paths[-1])
    rows = list(csv.DictReader(io.StringIO(run("predict", "lenet5_flipout.digits", *paths))))
    expected = zoo.load_model("lenet5_flipout.digits").posterior_predictive(digits.x[:4]).mean()
    got = [[float(row[f"mean_{name}"]) for name in range(10)] for row in rows]
    # 8-bit rounding moves a pixel by up to 0.2 % of its range.
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert [row["input"] for row in rows] == [str(path) for path in paths]


def test_doctor_is_fine(run):
    report = json.loads(run("doctor", "--json"))
    assert report["problems"] == []
    assert set(report["models"].values()) == {"verified"}


@pytest.mark.slow
def test_demo_does_the_main_job(tmp_path, run):
    out = tmp_path / "figure.png"
    text = run("demo", "--epochs", 1, "--num-samples", 5, "--out", out)
    assert "least certain test images" in text
    assert "trained again" in text
    assert "The pretrained posterior names" in text
    with Image.open(out) as image:
        assert image.width > 500


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "lenet5_flipout.digit"], "Did you mean 'lenet5_flipout.digits'"),
        (["train", "mlp_flipout.irs"], "Did you mean 'mlp_flipout.iris'"),
        (["demo", "mlp_flipout.irs"], "Did you mean 'mlp_flipout.iris'"),
        (["demo", "mlp_flipout.iris"], "The demo shows images"),
        (["evaluate", "../../nowhere"], "not a name of the zoo"),
        (["predict", "mlp_flipout.iris", "nowhere.csv"], "There is no file"),
        (["evaluate", "mlp_flipout.iris", "--num-samples", "0"], "num-samples"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfp-bnn", *arguments])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err
    assert "Traceback" not in output.err
