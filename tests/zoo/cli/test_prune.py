"""The command `prune`."""

from __future__ import annotations

import json

import pytest

import tfp_bnn as library
import zoo


@pytest.mark.slow
def test_a_pruned_artifact_is_trained_measured_and_verified(run, tmp_path):
    out = tmp_path / "pruned"
    options = ["--fraction", 0.8, "--finetune-epochs", 1, "--rounds", 2, "--out", out]
    found = json.loads(run("prune", "mlp_flipout.iris", *options, "--json"))
    how = found["pruning"]
    loaded = zoo.load_artifact(out, trust=True)
    shares = library.compression.sparsity(loaded)
    assert how["sparsity"] == pytest.approx(shares)
    pruned = sum(int((~w.kept).sum()) for la in loaded.variational_layers for w in la.variational_weights.values())
    assert how["weights_before"] - how["weights_kept"] == pruned
    assert (loaded.calibration is not None) == (zoo.load_model("mlp_flipout.iris").calibration is not None)
    scores = json.loads(run("evaluate", out, "--trust", "--json"))
    assert scores["accuracy"] == pytest.approx(found["test"]["accuracy"])
    card = (out / "README.md").read_text("utf-8")
    assert "Pruned from `mlp_flipout.iris`: 0.8 of the weights of all layers together" in card
    assert "in 2 rounds, with 1 epochs of training between them, and then trained for 1 epochs" in card
    assert "tfp-bnn prune mlp_flipout.iris --fraction 0.8 --by signal_to_noise --scope global" in card
    assert ", 0 failed, 0 not re-measured" in run("verify", out)


@pytest.mark.slow
def test_units_make_a_smaller_network_that_is_exported(run, tmp_path):
    out = tmp_path / "small"
    text = run("prune", "mlp_flipout.iris", "--fraction", 0.5, "--units", "--layer", "dense1", "--out", out)
    units = zoo.load_artifact(out, trust=True).get_layer("dense1").units
    assert f"dense1               {units} units" in text
    run("export", out, "--trust", "--output", tmp_path / "export", "--num-samples", 2)
    assert (tmp_path / "export" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fraction", 1], "--fraction got 1.0: Input should be less than 1"),
        (["--fraction", "nan"], "--fraction got nan: Input should be"),
        (["--fraction", 0.5, "--rounds", 2], "give --finetune-epochs"),
        (["--below", 0], "--below got 0.0: Input should be greater than 0"),
        ([], "Give either --fraction, the share to remove, or --below"),
        (["--below", 1, "--rounds", 2, "--finetune-epochs", 1], "with --below there is one"),
        (["--fraction", 0.5, "--target", "y"], "give the table with --dataset"),
        (["--fraction", 0.5, "--by", "size"], "Unknown criterion of pruning 'size'"),
        (["--fraction", 0.5, "--layer", "dense7"], "Did you mean 'dense1'"),
        (["--fraction", 0.5, "--units", "--layer", "logits"], "they are outputs of the network"),
        (["--fraction", 0.9999], "Nothing would be left of 'dense1', 'logits'"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(options, message, tfp_bnn, tmp_path):
    out = tmp_path / "out"
    code, _, error = tfp_bnn("prune", "mlp_flipout.iris", *options, "--out", out)
    assert code == 2
    assert message in error
    assert not out.exists()
