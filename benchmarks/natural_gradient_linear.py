"""The natural gradient on a linear-Gaussian model, whose mean-field posterior is known.

Run: `python benchmarks/natural_gradient_linear.py`. Prints the two tables of `docs/natural_gradient.md`.

50 rows y = X w + noise, three columns and a bias, with noise of known scale 0.5. The minimizer of E[nll] + beta KL / N
over independent normals has the mean of the full posterior and the precision of each weight given the others. In the
first table all rows are used 128 times in each step, each time with their own draw, and rates decay to 0 by a cosine.
In the second one 64 outputs are fitted to the same data, each with one draw in a step, at a constant curvature rate.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseLocalReparameterization, DenseReparameterization

NUMBER, NOISE, PRIOR_SCALE, BIAS_PRIOR_SCALE = 50, 0.5, 0.7, 1.0
DRAWS, STEPS = 128, 1500
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUMBER, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5] + 0.3 + NOISE * RNG.normal(size=NUMBER)).astype(np.float32)[:, np.newaxis]
CONSTANT_RATES = (0.3, 0.1, 0.03, 0.01)


@dataclass(frozen=True)
class Goal:
    """A posterior to be found.

    Attributes:
        beta: Weight of the KL.
        temperature: Temperature of a cold posterior.
    """

    beta: float = 1.0
    temperature: float = 1.0

    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and scales of the best independent normals, kernel first, in float64."""
        design = np.column_stack([X, np.ones(NUMBER)]).astype(np.float64)
        prior = np.array([PRIOR_SCALE] * 3 + [BIAS_PRIOR_SCALE])
        # Per row, as in the loss: the mean curvature of the NLL, and beta times the precision of the prior by N.
        curvature = design.T @ design / NOISE**2 / NUMBER + np.diag(self.beta / NUMBER / prior**2)
        mean = np.linalg.solve(curvature, design.T @ Y[:, 0] / NOISE**2 / NUMBER)
        return mean, np.sqrt(self.beta * self.temperature / NUMBER / np.diag(curvature))


def fit(
    goal: Goal, optimizer: keras.optimizers.Optimizer, local: bool = True, units: int = 1, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """The means and scales that an optimizer finds, of shape `(4, units)`."""
    keras.utils.set_random_seed(0)
    layer = (DenseLocalReparameterization if local else DenseReparameterization)(
        units,
        kernel_prior={"name": "normal", "scale": PRIOR_SCALE},
        bias_prior={"name": "normal", "scale": BIAS_PRIOR_SCALE},
        bias_posterior="mean_field_normal",
    )
    model = tfp_bnn.VariationalSequential(
        [keras.Input((3,)), layer],
        likelihood={"name": "normal", "scale": NOISE},
        beta_schedule={"name": "constant", "beta": goal.beta},
        seed=0,
    )
    model.compile(optimizer, steps_per_execution=100)
    # Repeated rows count once in N.
    rows = tf.data.Dataset.from_tensors((X, np.tile(Y, (1, units)))).repeat()
    data = rows.rebatch((DRAWS if local else 1) * NUMBER)
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    assert model.num_examples == NUMBER
    parameters = [weight.posterior_parameters() for weight in layer.variational_weights.values()]
    loc, scale = (np.concatenate([np.atleast_2d(p[role]) for p in parameters]) for role in ("loc", "scale"))
    return loc, scale


def annealed(goal: Goal) -> tuple[np.ndarray, np.ndarray]:
    decay = keras.optimizers.schedules.CosineDecay
    return fit(goal, tfp_bnn.NaturalGradient(decay(0.2, STEPS), decay(0.1, STEPS), temperature=goal.temperature))


def by_adam(goal: Goal) -> tuple[np.ndarray, np.ndarray]:
    return fit(goal, keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, STEPS)))


def errors(goal: Goal, found: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """The largest error of a mean, in exact scales, and the largest relative error of a scale."""
    mean, scale = goal.exact()
    return float(np.abs((found[0][:, 0] - mean) / scale).max()), float(np.abs(found[1][:, 0] / scale - 1).max())


def bias(rate: float) -> float:
    """The mean relative error of the scales at a constant curvature rate, over 4 weights of 64 outputs."""
    steps = int(1000 + 5 / rate) // 100 * 100
    _, scale = fit(Goal(), tfp_bnn.NaturalGradient(0.02, rate), local=False, units=64, steps=steps)
    return float((scale / Goal().exact()[1][:, np.newaxis]).mean() - 1)


def main() -> None:
    print("| optimizer | beta | temperature | largest error of a mean (scales) | largest error of a scale |")
    print("|---|---|---|---|---|")
    for name, how, goal in (
        ("natural gradient", annealed, Goal()),
        ("natural gradient", annealed, Goal(beta=0.3)),
        ("Adam", by_adam, Goal(beta=0.3)),
        ("natural gradient", annealed, Goal(temperature=0.3)),
    ):
        mean, scale = errors(goal, how(goal))
        print(f"| {name} | {goal.beta:g} | {goal.temperature:g} | {mean:.4f} | {scale:.2%} |", flush=True)
    print("\n| constant curvature rate | mean error of the scales |\n|---|---|")
    for rate in CONSTANT_RATES:
        print(f"| {rate:g} | {bias(rate):+.1%} |", flush=True)


if __name__ == "__main__":
    main()
