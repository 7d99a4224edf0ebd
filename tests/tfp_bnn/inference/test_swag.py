"""SWAG: the moments of the iterates, and draws that have them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.inference import SwagIterates, map_estimate, swag
from tfp_bnn.inference.point_weights import point_variables
from tfp_bnn.layers import DenseFlipout, MCDropout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)


def point_network(*more, seed=0, units=2, name="net"):
    keras.utils.set_random_seed(seed)
    hidden = DenseFlipout(4, activation="tanh", name="hidden", kernel_posterior="delta")
    outputs = DenseFlipout(units, name="outputs", kernel_posterior="delta")
    return tfp_bnn.VariationalSequential([keras.Input((3,)), hidden, *more, outputs], seed=seed, name=name)


def weights_of(model):
    return np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in point_variables(model).values()])


def collected(number=7, rank=4, spread=0.1):
    """A network, what was collected from iterates around large weights, and the iterates."""
    model, iterates = point_network(), SwagIterates(rank)
    iterates.set_model(model)
    rng = np.random.default_rng(1)
    trajectory = []
    for _ in range(number):
        for variable in point_variables(model).values():
            variable.assign(3.0 + rng.normal(scale=spread, size=variable.shape))
        iterates.collect()
        trajectory.append(weights_of(model))
    return model, iterates, np.stack(trajectory)


def test_mean_and_covariance_are_those_of_the_iterates():
    """The differences of squares of the paper would lose spreads of 1e-4 around weights of 3 in float32."""
    for spread in (0.1, 1e-4):
        model, iterates, trajectory = collected(number=7, rank=4, spread=spread)
        posterior = swag(model, iterates)
        np.testing.assert_allclose(posterior.mean_weights, trajectory.mean(axis=0), rtol=1e-6)
        running = np.cumsum(trajectory, axis=0) / np.arange(1, 8)[:, np.newaxis]
        deviations = (trajectory - running)[-4:].T
        expected = np.diag(trajectory.var(axis=0)) / 2 + deviations @ deviations.T / (2 * (4 - 1))
        np.testing.assert_allclose(posterior.covariance(), expected, rtol=1e-4, atol=1e-5 * spread**2)
        assert (posterior.rank, posterior.num_iterates) == (4, 7)


def test_a_draw_is_the_network_with_these_weights(injected_noise):
    model, iterates, trajectory = collected()
    posterior = swag(model, iterates)
    found = posterior.mean_weights + posterior.perturbation(injected_noise).numpy()
    z1, z2 = injected_noise.drawn["diagonal"], injected_noise.drawn["low_rank"]
    running = np.cumsum(trajectory, axis=0) / np.arange(1, 8)[:, np.newaxis]
    deviations = (trajectory - running)[-4:].T
    expected = trajectory.mean(axis=0) + (trajectory.std(axis=0) * z1 + deviations @ z2 / np.sqrt(3)) / np.sqrt(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    before = weights_of(model)
    of_draw = posterior._network(X, found)
    of_mean = posterior._network(X, posterior.mean_weights)
    np.testing.assert_array_equal(weights_of(model), before)
    start = 0
    for variable in point_variables(model).values():
        variable.assign(found[start : start + np.prod(variable.shape)].reshape(variable.shape))
        start += int(np.prod(variable.shape))
    np.testing.assert_allclose(of_draw, model(X), atol=1e-5)
    assert start == posterior.num_weights == 3 * 4 + 4 + 4 * 2 + 2
    np.testing.assert_allclose(posterior.plug_in_draws()(0)(X), of_mean, rtol=1e-5)


@pytest.mark.slow
def test_every_epoch_or_every_second_is_collected():
    for every, number in ((1, 5), (2, 2)):
        model, iterates = point_network(), SwagIterates(rank=3, every=every)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.fit(X, LABELS, epochs=5, batch_size=32, callbacks=[iterates], verbose=0)
        assert iterates.number == number
        assert len(iterates.deviations) == min(number, 3)
    assert np.ptp(swag(model, iterates).posterior_predictive(X, 5).mean()) > 0


def test_epochs_are_counted_over_all_calls_of_fit():
    iterates = SwagIterates(rank=3, every=2)
    iterates.set_model(point_network())
    # What `fit` does with one epoch.
    for _ in range(4):
        iterates.on_train_begin()
        iterates.on_epoch_end(0)
    assert (iterates.epochs, iterates.number) == (4, 2)


def test_what_has_no_iterates_is_refused():
    model, iterates, _ = collected(number=1)
    with pytest.raises(ValueError, match="needs at least 2 iterates, but 1 were collected"):
        swag(model, iterates)
    with pytest.raises(TypeError, match="`iterates` must be a SwagIterates, but got list"):
        swag(model, [])
    for wrong in ({"rank": 1}, {"every": 0}):
        with pytest.raises(ValueError, match="must be an integer >="):
            SwagIterates(**wrong)
    model, iterates, _ = collected(number=3)
    with pytest.raises(ValueError, match=r"those of 26 weights .* but 'wide' has 31"):
        swag(point_network(units=3, name="wide"), iterates)
    iterates.set_model(point_network(units=3, name="wide"))
    with pytest.raises(ValueError, match="Use one SwagIterates for each model"):
        iterates.collect()


def test_layers_whose_statistics_belong_to_one_set_of_weights_are_refused():
    def begin(model):
        iterates = SwagIterates()
        iterates.set_model(model)
        iterates.on_train_begin()

    with pytest.raises(ValueError, match="The layers norm keep statistics"):
        begin(point_network(keras.layers.BatchNormalization(name="norm")))
    frozen = keras.layers.BatchNormalization(name="norm", trainable=False)
    begin(point_network(frozen))
    with pytest.raises(ValueError, match="the layers drop of 'net' are random"):
        begin(point_network(MCDropout(0.5, name="drop")))
    random = tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(2, name="dense")], seed=0)
    with pytest.raises(ValueError, match="`swag` starts from one set of weights, but the layers dense"):
        begin(random)
    begin(map_estimate(random))
