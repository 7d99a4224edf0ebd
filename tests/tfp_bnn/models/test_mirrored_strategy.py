"""Two replicas of a `tf.distribute.MirroredStrategy`: other noise in each, one KL, and the ELBO of one replica.

The measurements are those of the script `two_replicas.py`, made once, in a process with two logical CPUs.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import tfp_bnn

pytestmark = pytest.mark.thorough

# What is drawn for a flipout layer with a Bayesian bias and an inferred, shared prior scale.
NAMES = {"kernel", "bias", "input_signs", "output_signs", "prior_scale"}
SHARED_SCALE = {"all_prior_untransformed_scale", "all_prior_untransformed_spread"}


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of `tfp_bnn/two_replicas.py` in a process with two logical CPUs. Takes half a minute."""
    found = tmp_path_factory.mktemp("two replicas") / "found.pickle"
    path = os.pathsep.join([str(Path(tfp_bnn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).parents[1] / "two_replicas.py"), str(found)]
    # With oneDNN, an eager convolution of no rows returns the shape of its inputs: a fault of TensorFlow 2.21.
    environment = {**os.environ, "PYTHONPATH": path, "TF_ENABLE_ONEDNN_OPTS": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    # The file was just written by that process.
    return pickle.loads(found.read_bytes())  # noqa: S301


@pytest.fixture
def trained(two_replicas):
    return two_replicas["trained"]


@pytest.fixture
def draws(two_replicas):
    """The noise of two steps by (replica, name, step); a weight asks for that of its prior's scale twice a step."""
    by_name: dict[tuple[int, str], list[np.ndarray]] = {}
    for replica, name, value in two_replicas["drawn"]:
        by_name.setdefault((replica, name), []).append(value)
    draws = {}
    for key, values in by_name.items():
        distinct = [values[0], *(b for a, b in itertools.pairwise(values) if not np.array_equal(a, b))]
        assert len(distinct) == 2, f"{key}: expected one draw in each of two steps"
        draws |= {(*key, step): value for step, value in enumerate(distinct)}
    return draws


def check_terms(logs, beta, penalty, prefix="", number=33):
    """`loss - nll == beta * kl / N + penalty`, and the KL is weighty enough that another scale would show."""
    loss, nll, kl, elbo = (float(logs[prefix + name]) for name in ("loss", "nll", "kl", "elbo"))
    assert kl / number > 0.5
    assert loss == pytest.approx(nll + beta * kl / number + penalty, rel=1e-5)
    assert elbo == pytest.approx(-nll - kl / number, rel=1e-5)


# === Training and evaluation ===


def test_fit_and_evaluate_see_every_row(trained):
    history = trained["history"]
    terms = {"loss", "nll", "kl", "elbo", "beta", "accuracy"}
    assert set(history) == terms | {f"val_{term}" for term in terms}
    assert np.isfinite(list(history.values())).all()
    assert history["loss"][-1] < history["loss"][0]
    assert trained["num_examples"] == trained["rows_seen"] == 33
    assert all(trained["moved"])
    # Above all none that the rows of an epoch are not N.
    assert [message for message in trained["warnings"] if "`shuffle=True` was passed" not in message] == []


def test_a_batch_that_is_bad_for_one_replica_is_refused_in_both(two_replicas):
    found = two_replicas["refused"]
    assert found["message"].startswith("The inputs of a batch have NaN or infinite values")
    assert found["iterations"] == 1
    for first, second in found["copies"]:
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(first, second)


def test_the_loss_has_the_kl_and_the_regularizers_once(trained):
    assert trained["history"]["beta"] == pytest.approx([0.3] * 3)
    assert trained["beta"] == pytest.approx(0.3)
    check_terms(trained["evaluated"], beta=1.0, penalty=trained["penalty"])
    last = {name: values[-1] for name, values in trained["history"].items()}
    check_terms(last, beta=1.0, penalty=trained["penalty"], prefix="val_")
    # Over the steps of an epoch the penalty changes a little.
    means = {name: values[-1] for name, values in trained["history"].items()}
    excess = means["loss"] - means["nll"] - 0.3 * means["kl"] / 33
    assert excess == pytest.approx(trained["penalty"], rel=0.2)


def test_both_replicas_keep_equal_variables(two_replicas, trained):
    steps = two_replicas["steps"].values()
    pairs = [*trained["copies"].values(), *(pair for step in steps for pair in step["copies"])]
    assert len(pairs) > 20
    for first, second in pairs:
        np.testing.assert_array_equal(first, second)


def test_a_model_trained_on_replicas_is_saved_for_one(trained):
    loaded = trained["loaded"]
    assert loaded["num_examples"] == 33
    np.testing.assert_allclose(loaded["predicted"], trained["predicted"], rtol=1e-5)
    for name, state in trained["noise"].items():
        np.testing.assert_array_equal(loaded["noise"][name], state)
        assert state[1] > 0


# === Noise ===


def test_replicas_draw_different_noise_in_every_step(draws):
    assert {name for _, name, _ in draws} == NAMES
    for name in NAMES:
        values = [draws[replica, name, step] for replica in (0, 1) for step in (0, 1)]
        for first, second in itertools.combinations(values, 2):
            assert not np.array_equal(first, second)
            assert not np.array_equal(first, -second)


@pytest.mark.statistical
def test_noise_of_replicas_is_uncorrelated_and_of_the_right_distribution(draws):
    """Each of 2 x 2 draws has 4,096 normals for the kernel and 1,024 signs; 20 tests at 5e-8: 1e-6 in all."""
    tail = 5e-8
    for replica, step in itertools.product((0, 1), (0, 1)):
        assert scipy.stats.kstest(draws[replica, "kernel", step].ravel(), "norm").pvalue > tail
        for name in ("input_signs", "output_signs"):
            signs = draws[replica, name, step].ravel()
            assert set(signs) == {-1.0, 1.0}
            assert scipy.stats.binomtest(int((signs > 0).sum()), signs.size).pvalue > tail
    for step in (0, 1):
        first, second = (draws[replica, "kernel", step].ravel() for replica in (0, 1))
        assert scipy.stats.pearsonr(first, second).pvalue > tail
        for name in ("input_signs", "output_signs"):
            agree = int((draws[0, name, step] == draws[1, name, step]).sum())
            assert scipy.stats.binomtest(agree, draws[0, name, step].size).pvalue > tail


def test_grouped_flipout_trains_on_replicas_with_noise_of_their_own(two_replicas):
    found = two_replicas["grouped"]
    assert np.isfinite(found["history"]["loss"]).all()
    for first, second in found["copies"]:
        np.testing.assert_array_equal(first, second)
    kernels = [value for _, name, value in found["noise"] if name == "kernel" and value.shape == (2, 1, 8)]
    assert len({kernel.tobytes() for kernel in kernels}) == 2 * 3, "two replicas, three steps"
    assert {replica for replica, name, _ in found["noise"] if name == "bias_signs"} == {0, 1}


def test_masks_of_dropout_differ_between_replicas(two_replicas):
    masks = two_replicas["masks"]
    assert set(np.unique(list(masks.values()))) == {0.0, 2.0}
    # Two replicas, two calls and two rows of each: 2^-64 is the chance that two masks are the same.
    rows = [*masks["first"].reshape(4, 64), *masks["second"].reshape(4, 64)]
    predicted = masks["predicted"]
    np.testing.assert_array_equal(predicted[:, 0], predicted[:, 1])
    for first, second in itertools.combinations([*rows, *predicted[:, 0]], 2):
        assert not np.array_equal(first, second)


# === The KL ===


def test_the_gradient_of_a_closed_form_kl_is_that_of_one_replica(two_replicas):
    step = two_replicas["steps"]["closed form"]
    assert len(step["moved"]) == 4
    for path, start, moved, by_one in zip(
        step["paths"], step["at_start"], step["moved"], step["moved by one"], strict=True
    ):
        if path.endswith("kernel_loc"):
            # d KL / d loc = loc / prior_scale^2, with N = 4 and a rate of 1.
            np.testing.assert_allclose(moved, -start / 0.5**2 / 4, rtol=1e-4, atol=1e-6)
        assert np.abs(moved).max() > 1e-3
        np.testing.assert_allclose(moved, by_one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["closed form", "estimated", "inferred", "shared", "shared and estimated"])
def test_the_step_of_a_kl_is_its_mean_over_the_draws_of_the_replicas(two_replicas, kind):
    step = two_replicas["steps"][kind]
    assert not np.array_equal(*step["seeds"])
    (kl,) = step["history"]["kl"]
    assert kl == pytest.approx(np.mean(step["kls"]), rel=1e-5)
    if kind != "closed form":
        assert abs(np.diff(step["kls"])) > 1e-3
    for path, moved, gradient in zip(step["paths"], step["moved"], step["gradients"], strict=True):
        assert np.abs(moved).max() > 1e-4, path
        np.testing.assert_allclose(moved, -gradient / 4, rtol=1e-3, atol=1e-6, err_msg=path)


def test_a_prior_that_layers_share_is_one_and_counts_once(two_replicas, trained):
    assert {path.partition("/")[2] for path in trained["of_model"]} == SHARED_SCALE
    owned = [path for path in trained["variables"] if "prior_untransformed" in path]
    assert sorted(owned) == sorted(trained["of_model"])
    assert [name for name in trained["kl_by_layer"] if name.startswith("prior/")] == ["prior/all"]
    assert len(trained["kl_by_layer"]) == 3
    for kind in ("shared", "shared and estimated"):
        paths = two_replicas["steps"][kind]["paths"]
        assert len(paths) == 6
        assert set(paths) >= SHARED_SCALE


# === The ELBO ===


def test_without_noise_two_replicas_train_like_one(two_replicas):
    two, one, with_two_draws = two_replicas["without noise"]
    for found in (two, with_two_draws):
        assert found["rows_seen"] == one["rows_seen"] == 19
        assert set(found["history"]) == set(one["history"]) > {"loss", "nll", "kl", "elbo", "beta"}
        for name, values in one["history"].items():
            np.testing.assert_allclose(found["history"][name], values, rtol=1e-5, err_msg=name)
        for first, second in zip(found["weights"], one["weights"], strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_the_importance_weighted_bound_refuses_replicas_that_have_a_part_of_the_data_each(two_replicas):
    assert "needs all N examples in each batch, on one device" in two_replicas["parts of the data"]


def test_the_natural_gradient_of_two_replicas_is_that_of_one(two_replicas):
    two, one = two_replicas["natural gradient"]
    assert len(one) == 3
    for first, second in zip(two, one, strict=True):
        assert np.abs(second).max() > 1e-3
        np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.statistical
def test_the_expected_terms_are_those_of_one_replica(two_replicas):
    """y = 0 ~ N(w, 1) and w ~ N(0, 1): nll = log(2 pi) / 2 + w^2 / 2 in each of 300 steps and 2 replicas.

    The mean over an epoch of w^2 is chi-square of 600 degrees by 600. False failures: 1e-6.
    """
    logs = {name: values[0] for name, values in two_replicas["many steps"].items()}
    mean_square = 2 * logs["nll"] - np.log(2 * np.pi)
    degrees = 600
    low, high = scipy.stats.chi2.interval(1 - 1e-6, degrees)
    assert low < degrees * mean_square < high
    # The estimate log q(w) - log p(w) of the KL to N(0, 4) at the w of the outputs.
    assert logs["kl"] == pytest.approx(np.log(2.0) - mean_square / 2 + mean_square / 8, rel=1e-4)
    assert logs["elbo"] == pytest.approx(-logs["nll"] - logs["kl"] / degrees, rel=1e-5)
    assert logs["loss"] == pytest.approx(-logs["elbo"], rel=1e-5)


# === A mistake of peers: see tests/tfp_bnn/test_peer_mistakes.py ===


def test_the_replicas_of_a_distributed_step_do_not_share_their_noise(two_replicas):
    drawn = two_replicas["drawn"]
    for name in ("kernel", "bias", "input_signs", "output_signs", "prior_scale"):
        of_first, of_second = ([value for replica, n, value in drawn if (replica, n) == (r, name)] for r in (0, 1))
        assert len(of_first) == len(of_second) >= 2
        for one, other in itertools.product(of_first, of_second):
            assert not np.array_equal(one, other), name
