"""Every inference method uses the same functions: trained, evaluated, reported, saved, loaded, verified."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import zoo
from tfp_bnn.inference import Ensemble, ensemble, way_of
from tfp_bnn.models.weight_record import weight_distributions
from zoo.evaluation.verification import Status
from zoo.hub.manifest import describe_files
from zoo.hub.members import WAYS_IN_ARTIFACTS
from zoo.hub.reading import read_artifact
from zoo.recipes import change_recipe, load_recipe
from zoo.training import TrainingInterrupted, build
from zoo.training.inference import member_recipes

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

TINY = {
    "name": "mlp_flipout.tiny",
    "architecture": "mlp_flipout",
    "dataset": "iris",
    "model": {"hidden": [8], "kernel_prior": {"name": "normal", "scale": 0.5}},
    "standardize_inputs": True,
    "batch_size": 32,
    "epochs": 3,
    "evaluation": {"num_samples": 10, "spread_seeds": []},
}
LENET = {
    "name": "lenet5_flipout.digits_tiny",
    "architecture": "lenet5_flipout",
    "dataset": "digits",
    "model": {
        "pixel_max": 16.0,
        "resize": [12, 12],
        "widths": [2, 3, 8, 6],
        "kernel_prior": {"name": "normal", "scale": 0.3},
    },
    "batch_size": 128,
    "epochs": 1,
    "evaluation": {"num_samples": 10, "spread_seeds": []},
}
SHORT = {"num_samples": 6, "burn_in": 30, "num_chains": 2, "step_size": 0.005}
OF_WAY = {
    "variational": {},
    "map": {"inference": "map"},
    "mc_dropout": {"inference": "mc_dropout", "model.dropout": 0.2},
    "ensemble": {"inference": "ensemble", "members": 3},
    "maximum_likelihood": {"inference": "maximum_likelihood", "model.kernel_prior": "flat"},
    "vbll": {"inference": "vbll"},
    "swag": {"inference": "swag", "swag.epochs": 4, "swag.rank": 3, "swag.learning_rate": 0.05},
    "laplace": {"inference": "laplace", "laplace.layers": "all"},
    "full_rank": {"inference": "full_rank", "full_rank.num_steps": 20, "full_rank.num_draws": 4},
    "mean_field": {"inference": "mean_field", "mean_field.num_steps": 20, "mean_field.num_draws": 4},
    "hmc": {"inference": "hmc", **{f"hmc.{key}": value for key, value in {**SHORT, "num_leapfrog_steps": 3}.items()}},
    "nuts": {"inference": "nuts", **{f"nuts.{key}": value for key, value in {**SHORT, "max_tree_depth": 3}.items()}},
    "sgld": {"inference": "sgld", "sgld.num_samples": 6, "sgld.num_steps": 40, "sgld.num_chains": 2},
}
POINTS = ("map", "maximum_likelihood")
# What has a KL to the prior, or minus the log of the prior in its place.
WITH_KL = ("variational", "vbll", "mc_dropout", *POINTS)
WITH_SCALES = ("variational", "vbll")
WITH_DIAGNOSTICS = ("laplace", "hmc", "nuts", "sgld")


def recipe_of(way, base=TINY, **changes):
    recipe = change_recipe(load_recipe(base), {**OF_WAY[way], **changes})
    return recipe.model_copy(update={"overrides": {}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that gives the run of a way, trained when it is first asked for."""
    done = {}

    def run(way):
        if way not in done:
            done[way] = zoo.train(recipe_of(way), tmp_path_factory.mktemp("runs") / way)
        return done[way]

    return run


def untrained(seed=0):
    """A point network with fresh weights."""
    import keras

    keras.utils.set_random_seed(seed)
    return build(recipe_of("map", seed=seed), zoo.load_dataset("iris"))


@pytest.fixture(scope="module")
def point_artifact(tmp_path_factory):
    return zoo.save_artifact(untrained(), tmp_path_factory.mktemp("point") / "out")


# === The whole way ===


def goes_all_the_way(run, way, folder):
    """Fails unless a run was measured, and its artifact can be loaded, evaluated, reported and verified."""
    assert way_of(run.model) == way
    number = {**dict.fromkeys(POINTS, 1), "ensemble": 3}.get(way, 10)
    assert run.metrics["num_samples"] == run.metrics["quick"]["num_samples"] == number
    assert ("kl" in run.metrics) is (way in WITH_KL)
    assert ("posterior" in run.metrics) is (way in WITH_SCALES)
    assert ("beta" in run.metrics) is (way in WITH_KL)
    assert ("diagnostics" in run.metrics) is (way in WITH_DIAGNOSTICS)

    loaded = zoo.load_artifact(run.path, trust=True)
    assert way_of(loaded) == way
    assert loaded.num_examples == run.model.num_examples
    data = zoo.load_dataset(run.recipe.dataset)
    x = data.test.x[:20]
    expected = run.model.posterior_predictive(x, num_samples=10).mean()
    # The scale of a variational posterior is not trained in natural units.
    atol = 1e-5 if way in WITH_SCALES else 1e-6
    np.testing.assert_allclose(loaded.posterior_predictive(x, num_samples=10).mean(), expected, rtol=0, atol=atol)
    assert zoo.evaluate(loaded, data, num_samples=10) == pytest.approx(run.metrics["test"], rel=1e-5)

    report = zoo.write_evaluation_report(loaded, data, "test", folder / "report", num_samples=10)
    assert report.metrics == pytest.approx(run.metrics["test"], rel=1e-5)
    checks = zoo.verify(run.path, full=True)
    assert {check.status for check in checks} == {Status.PASSED}
    assert {check.quantity for check in checks} >= {"golden", "test/nll", "quick/nll", "validation/accuracy"}
    assert any(check.quantity.startswith("kl/") for check in checks) is (way in WITH_KL)

    loaded.calibration = {"name": "temperature", "temperature": 0.7}
    again = zoo.save_artifact(loaded, folder / "again", recipe=run.recipe, metrics=run.metrics, data=run.about)
    twice = zoo.load_artifact(again, trust=True)
    assert twice.calibration == loaded.calibration
    assert way_of(twice) == way
    np.testing.assert_allclose(
        twice.posterior_predictive(x, num_samples=10, calibrated=False).mean(), expected, atol=1e-5
    )
    assert read_artifact(run.path)["config"]["inference"] == way


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS_IN_ARTIFACTS)
def test_every_way_is_trained_judged_reported_saved_loaded_and_verified(runs, way, tmp_path):
    goes_all_the_way(runs(way), way, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["map", "mc_dropout", "ensemble"])
def test_so_is_every_way_for_a_convolutional_network(way, tmp_path):
    goes_all_the_way(zoo.train(recipe_of(way, LENET), tmp_path / "out"), way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "subject", "draws"),
    [
        ("variational", "A variational posterior over the", "with 10 Monte Carlo samples of the weights (seed 0)"),
        ("map", "A maximum a posteriori estimate of the", "with the one set of weights"),
        ("mc_dropout", "Monte Carlo dropout with the", "with 10 Monte Carlo samples of the dropout masks (seed 0)"),
        ("ensemble", "An ensemble of 3, together the", "averaged over all 3 members"),
        ("maximum_likelihood", "A maximum likelihood estimate, without a prior, of", "with the one set of weights"),
        (
            "vbll",
            "A variational posterior over the last layer, with points below",
            "10 Monte Carlo samples of the weights",
        ),
        ("swag", "SWAG, a normal posterior from 4 iterates of SGD", "10 Monte Carlo samples of the weights"),
        ("laplace", "A Laplace approximation around a maximum a posteriori", "10 Monte Carlo samples of the weights"),
        ("full_rank", "A normal posterior with a covariance between all", "10 Monte Carlo samples of the weights"),
        ("mean_field", "A normal posterior of independent weights", "10 Monte Carlo samples of the weights"),
        ("hmc", "Hamiltonian Monte Carlo, 2 chains of 6 states each", "averaged over 10 states of the chains"),
        ("nuts", "The No-U-Turn sampler, 2 chains of 6 states each", "averaged over 10 states of the chains"),
        ("sgld", "Stochastic gradient Langevin dynamics, 2 chains of 6", "averaged over 10 states of the chains"),
    ],
)
def test_the_card_says_what_the_posterior_is(runs, way, subject, draws):
    card = read_artifact(runs(way).path)["card"]
    assert subject in card
    assert draws in card
    assert ("median posterior scale" in card) is (way in WITH_SCALES)
    assert ("KL(posterior || prior)" in card) is (way in WITH_SCALES)
    assert ("-log p(weights)" in card) is (way in (*POINTS, "mc_dropout"))
    assert ("largest R-hat" in card) is (way in ("hmc", "nuts", "sgld"))
    assert ("log marginal likelihood, nats" in card) is (way == "laplace")
    assert ("dropout after hidden layers: 0.2" in card) is (way == "mc_dropout")


# === Ensembles ===


@pytest.mark.slow
def test_members_are_trained_from_seeds_of_their_own_as_by_themselves(runs):
    run = runs("ensemble")
    assert [recipe.seed for recipe in member_recipes(run.recipe)] == [0, 1, 2]
    alone = zoo.train(recipe_of("map", seed=1), measure=False)
    for name, value in weight_distributions(alone.model).items():
        np.testing.assert_array_equal(weight_distributions(run.model.members[1])[name], value)
    assert set(run.history) == {f"member_{k}/{name}" for k in range(3) for name in alone.history}


def test_ensembles_of_other_seeds_share_no_member():
    seeds = [
        {recipe.seed for recipe in member_recipes(recipe_of("ensemble", seed=seed, members=4))} for seed in (0, 1, 2)
    ]
    assert len(set.union(*seeds)) == 12
    with pytest.raises(ValueError, match="The seed 1000000000 is too large for 3 members"):
        member_recipes(recipe_of("ensemble", seed=10**9))


@pytest.mark.thorough
def test_an_ensemble_that_was_killed_is_resumed_to_the_same_bits(runs, tmp_path):
    """Stopped within the second member."""
    import keras

    class Kill(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            import signal

            Kill.steps += 1
            if Kill.steps == 14:
                signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "out"
    with pytest.raises(TrainingInterrupted):
        zoo.train(recipe_of("ensemble"), out, callbacks=[Kill()], checkpoint_seconds=0)
    assert not out.exists()
    zoo.train(recipe_of("ensemble"), out, resume=True)
    for name in ("weights.safetensors", "metrics.json", "log.csv"):
        assert (out / name).read_bytes() == (runs("ensemble").path / name).read_bytes()


def test_an_ensemble_of_models_of_the_zoo_is_saved_without_a_recipe(tmp_path):
    members = [untrained(seed) for seed in range(2)]
    path = zoo.save_artifact(ensemble(members), tmp_path / "out")
    loaded = zoo.load_artifact(path, trust=True)
    assert isinstance(loaded, Ensemble)
    x = np.zeros((3, 4))
    np.testing.assert_array_equal(
        loaded.posterior_predictive(x).mean(), ensemble(members).posterior_predictive(x).mean()
    )


def test_an_ensemble_of_other_models_is_not_saved(tmp_path):
    data = zoo.load_dataset("iris")
    one, other = build(recipe_of("map"), data), build(recipe_of("map", **{"model.hidden": [5]}), data)
    with pytest.raises(ValueError, match=r"Only models made by zoo\.create_model"):
        zoo.save_artifact(ensemble([one, other]), tmp_path / "out")


# === Refusals ===


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": "laplac"}, "inference"),
        ({"members": 3}, "members is for inference: ensemble only"),
        ({"inference": "ensemble", "members": 0}, "members"),
        ({"inference": "ensemble", "members": 101}, "members"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        change_recipe(load_recipe(TINY), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": "mc_dropout"}, "inference: mc_dropout needs dropout, but `model` has none"),
        (
            {"inference": "map", "model.dropout": 0.1},
            "inference: map needs one set of weights, but `model` has dropout",
        ),
        ({"inference": "map", "model.kernel_posterior": "mean_field_normal"}, "needs points, but `model` has"),
        ({"model.kernel_posterior": "delta"}, "inference: variational needs a posterior with a spread"),
        ({"inference": "map", "model.kernel_prior.empirical_bayes": True}, "learns its scale, but kernel_posterior="),
        ({"model.kernel_posterior": "radial"}, "The flipout estimator does not exist for kernel_posterior=Radial"),
        ({"model.kernel_posterior": "delt"}, "Did you mean 'delta'?"),
        ({"model.dropout": 1.0}, "dropout"),
    ],
)
def test_networks_that_contradict_the_way_are_refused_before_training(changes, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.train(change_recipe(load_recipe(TINY), changes), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def tampered(path, folder, **changes):
    """A copy of an artifact with another config, for which its manifest vouches."""
    import shutil

    copy = shutil.copytree(path, folder / "tampered")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(copy)}))
    return copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": "variational"}, "says inference 'variational', but describes a network with"),
        ({"inference": "laplac"}, "'inference' is 'laplac'; expected one of variational, map"),
        ({"inference": "laplace"}, "posterior.safetensors: 'weights' must be names of the weights"),
        ({"inference": ["map"]}, "'inference' got ['map']"),
        ({"inference": "ensemble", "members": 1}, "is not of one of the 1 members"),
        ({"inference": "ensemble", "members": 10**9}, "must be an integer from 1 to 100, but is 1000000000"),
        ({"inference": "ensemble", "members": True}, "'members' got True"),
        ({"inference": "ensemble"}, "must be an integer from 1 to 100, but is None"),
    ],
)
def test_an_artifact_that_contradicts_itself_is_refused(point_artifact, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.load_artifact(tampered(point_artifact, tmp_path, **changes), trust=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 1}, "is not of one of the 1 members"),
        ({"members": 3}, "describes a network of"),
        ({"inference": "map"}, "is not the name of a weight"),
    ],
)
def test_an_ensemble_whose_members_are_not_those_it_says_is_refused(tmp_path, changes, message):
    path = zoo.save_artifact(ensemble([untrained(seed) for seed in range(2)]), tmp_path / "two")
    assert len(zoo.load_artifact(path, trust=True)) == 2
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.load_artifact(tampered(path, tmp_path, **changes), trust=True)


@pytest.mark.slow
def test_an_ensemble_cannot_be_fine_tuned(runs):
    with pytest.raises((TypeError, ValueError), match="Ensemble"):
        zoo.fine_tune(runs("ensemble").model, "iris")
