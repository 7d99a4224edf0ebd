"""Partial pooling against 18 separate networks and one pooled network, on groups of rotated noisy moons.

Run: `python benchmarks/hierarchical_moons.py --seeds 5`. Prints a table in Markdown; the exit code is 1 unless partial
pooling has a higher mean accuracy and a lower mean NLL on held-out rows than both others.

The data are those of `zoo.datasets.planar.rotated_moons`, generated again for each seed: 18 groups of 12 training
points, each rotated by its own angle. Seed s determines the data, the initial weights and the noise. All three methods
have the same hidden layer, N(0, PRIOR_SCALE^2) priors on all weights, including biases, mean-field normal posteriors,
the reparameterization estimator, and the same number of Adam steps on all training rows at once, with beta rising to 1.

- partial pooling: `HierarchicalDenseReparameterization`, the spread of the groups inferred with the hyperprior
  HalfNormal(1);
- separate networks: the same layer with its mean fixed at 0 and the prior above on the weights of each group, which
  start from a Glorot draw per group. These are 18 networks that share nothing and are trained in one step: the loss is
  the sum of their losses, no gradient flows from one to another, and Adam treats each weight separately;
- one pooled network: `DenseReparameterization`, which does not see the group.

PRIOR_SCALE is the value among 1, 4 and 16 that gave the separate networks the lowest NLL on other draws of the data.
`--split validation --first-seed 100` does not use the test rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization, HierarchicalDenseReparameterization
from zoo.datasets import Split
from zoo.datasets.planar import NUM_GROUPS, rotated_moons

HIDDEN = 16
ACTIVATION = "relu"
PRIOR_SCALE = 4.0
INITIAL_SCALE = 0.1
LEARNING_RATE = 3e-2
STEPS = 2000
WARMUP = 0.5
NUM_SAMPLES = 100
STEPS_AT_ONCE = 50

POSTERIOR = {"name": "mean_field_normal", "initial_scale": INITIAL_SCALE}

Build = Callable[[float], tuple[Any, keras.KerasTensor]]


def partial_pooling(prior_scale: float) -> tuple[Any, keras.KerasTensor]:
    prior = {"name": "normal", "scale": prior_scale}
    x, group = inputs = [keras.Input((2,)), keras.Input((), dtype="int32")]
    for units, activation in ((HIDDEN, ACTIVATION), (2, None)):
        layer = HierarchicalDenseReparameterization(
            units,
            NUM_GROUPS,
            activation,
            kernel_prior=prior,
            kernel_posterior=POSTERIOR,
            bias_prior=prior,
            bias_posterior=POSTERIOR,
            group_posterior=POSTERIOR,
        )
        x = layer([x, group])
    return inputs, x


def separate_networks(prior_scale: float) -> tuple[Any, keras.KerasTensor]:
    nothing = {"kernel_prior": "flat", "kernel_posterior": "delta", "bias_prior": "flat", "bias_posterior": "delta"}
    x, group = inputs = [keras.Input((2,)), keras.Input((), dtype="int32")]
    for units, activation in ((HIDDEN, ACTIVATION), (2, None)):
        layer = HierarchicalDenseReparameterization(
            units,
            NUM_GROUPS,
            activation,
            kernel_initializer="zeros",
            group_prior={"name": "normal", "scale": prior_scale},
            group_posterior=POSTERIOR,
            **nothing,
        )
        x = layer([x, group])
        layer.kernel.trainable = layer.bias.trainable = False
        of_groups = [keras.initializers.GlorotUniform()(layer.kernel.shape) for _ in range(NUM_GROUPS)]
        layer.group_kernel.assign(tf.stack(of_groups))
    return inputs, x


def pooled_network(prior_scale: float) -> tuple[Any, keras.KerasTensor]:
    prior = {"name": "normal", "scale": prior_scale}
    x, _ = inputs = [keras.Input((2,)), keras.Input((), dtype="int32")]
    for units, activation in ((HIDDEN, ACTIVATION), (2, None)):
        layer = DenseReparameterization(
            units,
            activation,
            kernel_prior=prior,
            kernel_posterior=POSTERIOR,
            bias_prior=prior,
            bias_posterior=POSTERIOR,
        )
        x = layer(x)
    return inputs, x


APPROACHES: dict[str, Build] = {
    "partial pooling": partial_pooling,
    "18 separate networks": separate_networks,
    "one pooled network": pooled_network,
}


def with_group(split: Split) -> list[np.ndarray]:
    return [split.x[:, :-1], split.x[:, -1].astype(np.int32)]


def train_and_score(build: Build, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Returns held-out accuracy and NLL of the posterior predictive, in nats."""
    data = rotated_moons(seed)
    keras.utils.set_random_seed(seed)
    inputs, outputs = build(arguments.prior_scale)
    warmup = {"name": "linear_warmup", "steps": max(1, round(WARMUP * arguments.steps))}
    model = tfp_bnn.VariationalModel(inputs, outputs, beta_schedule=warmup, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, arguments.steps)
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=min(STEPS_AT_ONCE, arguments.steps))
    # One batch with all rows, repeated.
    all_rows = tf.data.Dataset.from_tensors((tuple(with_group(data.train)), data.train.y)).repeat()
    model.fit(all_rows, num_examples=len(data.train), steps_per_epoch=arguments.steps, verbose=0)
    held_out = data.split(arguments.split)
    predictive = model.posterior_predictive(with_group(held_out), arguments.num_samples, seed, batch_size=len(held_out))
    accuracy = np.mean(predictive.mean().argmax(axis=-1) == held_out.y)
    return float(accuracy), float(-predictive.log_prob(held_out.y).mean(dtype=np.float64))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--prior-scale", type=float, default=PRIOR_SCALE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--num-samples", type=int, default=NUM_SAMPLES)
    arguments = parser.parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    scores = {
        name: np.array([train_and_score(build, seed, arguments) for seed in seeds])
        for name, build in APPROACHES.items()
    }
    ours, *others = scores
    print("| | accuracy | NLL (nats) | partial pooling is better: accuracy | NLL |")
    print("|---|---|---|---|---|")
    won = True
    for name, of_seeds in scores.items():
        mean, deviation = of_seeds.mean(axis=0), of_seeds.std(axis=0, ddof=min(1, len(seeds) - 1))
        cells = [name, *(f"{mean[i]:.3f} ± {deviation[i]:.3f}" for i in (0, 1)), "", ""]
        if name in others:
            # Positive where partial pooling is better.
            gains = (scores[ours] - of_seeds) * (1, -1)
            cells[3:] = [f"{int(count)} of {len(seeds)} seeds" for count in (gains > 0).sum(axis=0)]
            won = won and bool((gains.mean(axis=0) > 0).all())
        print(f"| {' | '.join(cells)} |")
    return 0 if won else 1


if __name__ == "__main__":
    sys.exit(main())
