"""The processes that train a model together, on one machine or several, as the variable TF_CONFIG names them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import tensorflow as tf

_TRY_AGAIN_SECONDS = 0.1
_BYTES = 4


class WorkerMissingError(TimeoutError):
    """Raised if a worker does not come, or goes away. The message names it, if it is known."""


@dataclass(frozen=True)
class Workers:
    """The processes of a training.

    Attributes:
        addresses: Addresses `host:port`, the chief first; empty for a single process.
        index: Position of this process.
        tasks: Names of the processes in TF_CONFIG, such as `worker 0`. By default all are workers.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0
    tasks: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of_environment(cls) -> Workers:
        """Reads TF_CONFIG. Without it, or with one worker, this process trains alone.

        Raises:
            ValueError: If it does not name this process among `chief` and `worker`.
        """
        if not os.environ.get("TF_CONFIG"):
            return cls()
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        cluster = resolver.cluster_spec().as_dict()
        tasks = [(role, index) for role in ("chief", "worker") for index in range(len(cluster.get(role, [])))]
        this = (resolver.task_type, resolver.task_id)
        if len(tasks) < 2:
            return cls()
        if this not in tasks:
            raise ValueError(
                f"TF_CONFIG says that this process is {this[0]!r} number {this[1]}, but its cluster has "
                f"{', '.join(f'{role} {index}' for role, index in tasks)}. Set 'task' to one of these."
            )
        addresses = tuple(cluster[role][index] for role, index in tasks)
        return cls(addresses, tasks.index(this), tuple(f"{role} {index}" for role, index in tasks))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the checkpoints; also if it is alone."""
        return self.index == 0

    @property
    def name(self) -> str:
        """What TF_CONFIG calls this process, such as `worker 0`."""
        return self._name_of(self.index)

    def _name_of(self, index: int) -> str:
        return self.tasks[index] if self.tasks else f"worker {index}"

    def strategy(self, patience: float = 300.0) -> tf.distribute.Strategy:
        """Waits for all workers, and returns the strategy under which they train together.

        To be called once, before anything else of TensorFlow. TensorFlow itself does not say who is missing. SIGTERM
        still ends the process, or calls its handler, if this is called in the main thread.

        Args:
            patience: Seconds to wait.

        Raises:
            WorkerMissingError: If a worker did not come. The message names all that are missing. Or if TensorFlow
                could not connect those that came.
        """
        if not self.addresses:
            return tf.distribute.get_strategy()
        self.meet(patience)
        try:
            with _kept_handler_of_sigterm():
                return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            all_of_them = ", ".join(f"{self._name_of(k)} at {address}" for k, address in enumerate(self.addresses))
            raise WorkerMissingError(
                f"{self.name.capitalize()} met all workers ({all_of_them}), but TensorFlow could not connect them: one "
                f"went away, or was too slow to answer. Start all of them again. TensorFlow says: {error.message}"
            ) from error

    def meet(self, patience: float) -> None:
        """Returns when each worker has heard of every other, at the addresses where they will train.

        Raises:
            WorkerMissingError: As for `strategy`.
            OSError: If this process cannot listen at its address.
        """
        everyone = set(range(len(self.addresses)))
        heard, reached = {self.index}, {self.index}
        end = time.monotonic() + patience
        # A worker leaves when it has heard all others, so none of them can miss it afterwards.
        with socket.create_server(("", _host_and_port(self.addresses[self.index])[1]), backlog=128) as server:
            server.settimeout(_TRY_AGAIN_SECONDS)
            while heard != everyone or reached != everyone:
                if time.monotonic() > end:
                    missing = sorted(everyone - (heard & reached))
                    raise WorkerMissingError(
                        f"{self.name.capitalize()} waited for {patience:g} seconds, but did not meet "
                        f"{', '.join(f'{self._name_of(k)} at {self.addresses[k]}' for k in missing)}. Start all of "
                        "TF_CONFIG, each with its own 'task', and see that they can reach each other's ports."
                    )
                reached |= {other for other in everyone - reached if self._greet(other)}
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(1.0)
                        heard |= {int.from_bytes(connection.recv(_BYTES), "big")} & everyone

    def _greet(self, other: int) -> bool:
        with contextlib.suppress(OSError):
            address = _host_and_port(self.addresses[other])
            with socket.create_connection(address, timeout=1.0) as connection:
                connection.sendall(self.index.to_bytes(_BYTES, "big"))
                return True
        return False


@contextlib.contextmanager
def _kept_handler_of_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM in a block in which TensorFlow sets its own, which notes the signal and goes on."""
    # Python sets handlers in the main thread only, and has none of other origin.
    handler = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
