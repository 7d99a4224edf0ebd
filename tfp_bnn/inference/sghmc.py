"""Stochastic gradient Hamiltonian Monte Carlo as a Keras optimizer, for posteriors that no single model describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_number, require_integer, require_positive
from tfp_bnn.core.layer_tree import index_in_optimizer
from tfp_bnn.core.noise import Noise, require_seed

_DECAY = 0.99
_LEAST_SCALE = 1e-8


@keras.saving.register_keras_serializable(package="tfp_bnn")
class SGHMC(keras.optimizers.Optimizer):
    """Samples variables by stochastic gradient Hamiltonian Monte Carlo: momentum with friction and noise.

        v <- (1 - friction) * v - rate * N * gradient + noise,   noise ~ N(0, 2 * friction * rate * temperature)
        w <- w + v,   rate = learning_rate / (N * s)

    The loss is -log p(w | data) / N in nats, up to a constant: the mean NLL of a batch minus log p(w) / N. Once the
    steps are small and many, the states are draws from p(w | data)^(1 / temperature). The scale s of a variable is 1,
    or with `adaptation_steps` the root mean square of its gradient, over all entries; 1 while that is 0. It is
    estimated in these first steps and then fixed, and the learning rate is in the units of Adam's. Only states of later
    steps are draws. No step is rejected, and the noise of the batches widens the posterior: its estimate, B in Chen et
    al., is taken as 0.

    Use it where the target is not the posterior of one model, such as for the generators and discriminators of a
    Bayesian GAN, each of which is the likelihood of the others. For one network, `sgld` and `hmc` return `Chains`.

    Args:
        learning_rate: Step of the mean loss, a float > 0 or a schedule.
        num_examples: N, the number of examples that the loss is a mean over.
        friction: Share of the momentum that is lost in a step, in (0, 1].
        temperature: T >= 0. 1 is the posterior; at 0 this is gradient descent with momentum.
        adaptation_steps: Number of first steps in which s is estimated. Default: 0, no scales.
        seed: Integer seed of the noise, which also depends on the step and the variable.
        name: Name of the optimizer.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> import keras, tensorflow as tf, tfp_bnn
        >>> w = keras.Variable(tf.zeros(1000))
        >>> optimizer = tfp_bnn.inference.SGHMC(learning_rate=0.1, friction=0.5)
        >>> for _ in range(100):
        ...     optimizer.apply([w.value], [w])  # the loss w^2 / 2 of a standard normal
        >>> bool(0.8 < tf.math.reduce_std(w.value) < 1.2)
        True

    References:
        Chen et al. 2014, Stochastic Gradient Hamiltonian Monte Carlo, https://arxiv.org/abs/1402.4102; for the scales,
        Springenberg et al. 2016, Bayesian Optimization with Robust Bayesian Neural Networks; for Bayesian GANs, Saatchi
        and Wilson 2017, https://arxiv.org/abs/1705.09558
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        num_examples: int = 1,
        friction: float = 0.1,
        temperature: float = 1.0,
        adaptation_steps: int = 0,
        seed: int = 0,
        name: str = "sghmc",
    ) -> None:
        if is_number(learning_rate):
            # Keras takes no numbers of NumPy.
            learning_rate = require_positive("`SGHMC`", "learning_rate", learning_rate)
        super().__init__(learning_rate=learning_rate, name=name)
        self.num_examples = require_integer("num_examples", num_examples, 1)
        if not is_number(friction) or not 0 < friction <= 1:
            raise ValueError(f"`friction` must be a number above 0 and at most 1, but got {friction!r}.")
        if not is_number(temperature) or not 0 <= temperature < float("inf"):
            raise ValueError(f"`temperature` must be a finite number of at least 0, but got {temperature!r}.")
        self.friction = float(friction)
        self.temperature = float(temperature)
        self.adaptation_steps = require_integer("adaptation_steps", adaptation_steps, 0)
        self.seed = int(require_seed(seed))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        own = ("num_examples", "friction", "temperature", "adaptation_steps", "seed", "name")
        return {"learning_rate": super().get_config()["learning_rate"], **{key: getattr(self, key) for key in own}}

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the momentum of each variable, and the mean of its squared gradient.

        Args:
            variables: Variables to sample.
        """
        if self.built:
            return
        super().build(list(variables))
        self._momenta = self.add_optimizer_variables(variables, "momentum")
        self._squares = [
            self.add_variable((), dtype="float32", name=f"square_{index}") for index in range(len(variables))
        ]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Moves one variable by one step, given the gradient of the loss."""
        index = index_in_optimizer(self, variable)
        # The noise is in every entry, so a sparse gradient, as of an embedding, has to be dense.
        gradient, momentum = tf.cast(tf.convert_to_tensor(gradient), tf.float32), self._momenta[index]
        rate = tf.cast(learning_rate, tf.float32) / self._scale(gradient, index)
        noise = Noise(tf.constant([self.seed, index], tf.int64)).fold_in(self.iterations.value)
        spread = tf.sqrt(2.0 * self.friction * self.temperature / self.num_examples * rate)
        moved = (1.0 - self.friction) * tf.cast(momentum.value, tf.float32) - rate * gradient
        moved += spread * noise.normal("weights", variable.shape)
        momentum.assign(tf.cast(moved, momentum.dtype))
        variable.assign_add(tf.cast(moved, variable.dtype))

    def _scale(self, gradient: tf.Tensor, index: int) -> tf.Tensor:
        """The scale s of a variable."""
        if not self.adaptation_steps:
            return tf.constant(1.0)
        square = self._squares[index]
        step = tf.cast(self.iterations.value, tf.float32)
        adapts = step < self.adaptation_steps
        average = _DECAY * square.value + (1.0 - _DECAY) * tf.reduce_mean(gradient**2)
        square.assign(tf.where(adapts, average, square.value))
        number = tf.minimum(step + 1.0, self.adaptation_steps)
        root = tf.sqrt(square.value / (1.0 - _DECAY**number))
        # A variable that has had no gradient has no scale of its own: next to 0, it would be thrown far away.
        return tf.where(root > 0, root + _LEAST_SCALE, 1.0)
