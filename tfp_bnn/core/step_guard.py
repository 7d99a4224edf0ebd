"""Decides on the device whether a training step is applied, and tells the host why not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.checks import CollectedChecks, collect_checks
from tfp_bnn.core.values import values_of

Values = Sequence[tuple[keras.Variable, tf.Tensor]]


class StepGuard:
    """Applies a step only if all its checks hold, and keeps the first that did not until the host asks.

    An assertion would do on a CPU, but XLA removes it. So the checks of a step are collected and decided by a branch,
    and the first failure is kept in a variable, which the host reads after each execution. While there is a failure, no
    later step of the same execution is applied either.

    The variable is not part of the model: it is in no file and in no list of weights.
    """

    def __init__(self) -> None:
        # The number of the message, from 1, or 0 for none; and the numbers in the message.
        self._failure = keras.Variable(
            "zeros",
            shape=(3,),
            dtype="float64",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="first_failure",
        )
        self._messages: list[str] = []
        self._watched = False

    # === On the host ===

    def watch(self, execute: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Wraps a function that executes steps, so that it raises the first failure as a ValueError."""

        def watched(iterator: Any) -> Any:
            self._watched = True
            try:
                return execute(iterator)
            finally:
                self._watched = False
                self._raise_failure()

        return watched

    def _raise_failure(self) -> None:
        number, *numbers = values_of(self._failure)
        if number:
            self._failure.assign(np.zeros(3))
            raise ValueError(self._messages[int(number) - 1].format(*numbers))

    # === Within a step ===

    @contextlib.contextmanager
    def collect(self) -> Iterator[CollectedChecks | None]:
        """Collects the checks of a step, or gives None where nobody would read a failure, so that they are asserted.

        That is a step which a user calls, or compiles, without `fit` and its kind.
        """
        if not self._watched:
            yield None
            return
        with collect_checks() as checks:
            yield checks

    @staticmethod
    def values_of(variables: Sequence[keras.Variable]) -> Values:
        """The variables with their present values, to be restored if the step is refused."""
        # Without an aggregation, a replica can neither change nor restore a variable.
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        return [(v, tf.convert_to_tensor(v)) for v in variables if not several or v.aggregation != "none"]

    def decide(
        self,
        checks: CollectedChecks | None,
        apply: Callable[..., None] = lambda: None,
        arguments: Sequence[Any] = (),
        before: Values = (),
    ) -> None:
        """Applies a step if all checks hold, in all replicas; otherwise notes the first that failed.

        Args:
            checks: What `collect` gave.
            apply: Function that updates variables; by default nothing is to be updated.
            arguments: Its arguments: tensors, which may differ between replicas.
            before: Variables that the step has already changed, and the values to give back to them.
        """
        if not checks:
            apply(*arguments)
            return
        replica = tf.distribute.get_replica_context()
        replicas = replica.num_replicas_in_sync
        gathered: tuple[tf.Tensor, ...] = ()
        if replicas > 1:
            table = replica.all_gather(checks.table()[:, tf.newaxis], axis=1)
            gathered = (tf.reshape(table, [-1, 3]),)
            holds = gathered[0][:, 0] > 0
        else:
            holds = tf.stack([check.holds for check in checks])
        sound = tf.reduce_all(holds) & tf.equal(tf.convert_to_tensor(self._failure)[0], 0)
        numbers = [self._number_of(check.message) for check in checks for _ in range(replicas)]

        def refuse(holds: tf.Tensor, *known: tf.Tensor) -> None:
            # On one replica the table is made here: it costs more than the checks, and only this branch needs it.
            rows = known[0] if gathered else checks.table()
            # The first row that does not hold. If all do, an earlier step was refused.
            first = tf.reduce_min(tf.where(holds, len(numbers) - 1, tf.range(len(numbers))))
            number = tf.gather(tf.constant(numbers, tf.float64), [first])
            earlier = tf.convert_to_tensor(self._failure)
            failure = tf.concat([number, tf.gather(rows, first)[1:]], axis=0)
            self._failure.assign(tf.where(earlier[0] > 0, earlier, failure))
            for (variable, _), value in zip(before, known[len(gathered) :], strict=True):
                variable.assign(value)

        def branch(strategy: Any, sound: Any, arguments: Any, known: Any) -> None:
            def run(function: Callable[..., None], values: Any) -> tf.Tensor:
                strategy.extended.call_for_each_replica(function, args=values)
                return tf.constant(0)

            (sound, *_) = strategy.experimental_local_results(sound)
            tf.cond(sound, lambda: run(apply, arguments), lambda: run(refuse, known))

        # An optimizer merges the replicas, which it cannot do from a branch within one of them.
        known = (holds, *gathered, *(value for _, value in before))
        replica.merge_call(branch, args=(sound, tuple(arguments), known))

    def _number_of(self, message: str) -> int:
        if message not in self._messages:
            self._messages.append(message)
        return self._messages.index(message) + 1
