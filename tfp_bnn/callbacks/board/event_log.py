"""The event file of one run folder, as TensorBoard reads it. Needs the package `tensorboard`."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as session_summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.pr_curve import summary as pr_curve_summary
from tensorboard.plugins.scalar import summary_v2 as scalar_summary
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.util import tensor_util

from tfp_bnn.callbacks.board.tags import meaning

_NUM_BUCKETS = 30
_NUM_THRESHOLDS = 101
# In addition to the time and the process, to distinguish two files of the same second.
_serial = itertools.count()


class EventLogError(OSError):
    """Error for an event file that cannot be written."""


class EventLog:
    """Writer of one event file. Only one may be open per folder, because TensorBoard only follows the newest file.

    The first entry follows the mark of a new session, at which TensorBoard drops entries of earlier files in the folder
    from that step on. A killed and resumed run thus replaces the steps that it repeats.

    Args:
        folder: Folder of the run, created if necessary.

    Raises:
        EventLogError: If the folder or the file cannot be written, here and in all methods.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._started = False
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}"
        with _failures_told(folder):
            tf.io.gfile.makedirs(folder)
            self._file = tf.io.TFRecordWriter(os.path.join(folder, name))
        self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.flush()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number."""
        self._add(step, scalar_summary.scalar_pb(tag, value, meaning(tag)))

    def histogram(self, tag: str, values: npt.NDArray[Any], step: int) -> None:
        """Writes a histogram of finite numbers, with 30 buckets of equal width."""
        counts, edges = np.histogram(np.asarray(values, np.float64), bins=_NUM_BUCKETS)
        buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
        self._add_tensor(step, tag, histogram_metadata.create_summary_metadata(None, meaning(tag)), buckets)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Writes an image, given as the bytes of a PNG file."""
        # In the header of the first chunk.
        width, height = struct.unpack(">II", png[16:24])
        content = np.array([str(width).encode(), str(height).encode(), png], dtype=object)
        self._add_tensor(step, tag, image_metadata.create_summary_metadata(None, meaning(tag)), content)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text in Markdown."""
        self._add(step, text_summary.text_pb(tag, markdown))

    def precision_recall(
        self, tag: str, positive: npt.NDArray[np.bool_], probability: npt.NDArray[Any], step: int, name: str
    ) -> None:
        """Writes the precision-recall curve of one class against the rest, at 101 thresholds.

        Args:
            tag: Tag of the curve.
            positive: Whether each row belongs to the class, of shape `(n,)`.
            probability: Probability of the class, in [0, 1], of shape `(n,)`.
            step: Step of the run.
            name: Name shown above the curve.
        """
        # Rounding may put a float32 probability just outside.
        inside = np.clip(probability.astype(np.float64), 0.0, 1.0)
        curve = pr_curve_summary.pb(
            tag, positive, inside, num_thresholds=_NUM_THRESHOLDS, display_name=name, description=meaning(tag)
        )
        curve.value[0].tag = tag
        self._add(step, curve)

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Writes the hyperparameters of the runs in this folder and below it."""
        self._add(0, hparams_summary.hparams_pb(dict(values)))

    def success(self) -> None:
        """Writes that the run with these hyperparameters came to its end."""
        self._add(0, session_summary.session_end_pb(api_pb2.STATUS_SUCCESS))

    def layout(self, layout: Any, step: int) -> None:
        """Writes how the custom-scalars dashboard is arranged, given as a `Layout` proto."""
        content = np.array(layout.SerializeToString(), dtype=object)
        metadata = custom_scalar_metadata.create_summary_metadata()
        self._add_tensor(step, custom_scalar_metadata.CONFIG_SUMMARY_TAG, metadata, content)

    def flush(self) -> None:
        """Flushes the file."""
        with _failures_told(self.folder):
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with _failures_told(self.folder):
            self._file.close()

    def _add_tensor(self, step: int, tag: str, metadata: Any, content: npt.NDArray[Any]) -> None:
        summary = summary_pb2.Summary()
        summary.value.add(tag=tag, metadata=metadata, tensor=tensor_util.make_tensor_proto(content))
        self._add(step, summary)

    def _add(self, step: int, summary: Any) -> None:
        if not self._started:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(wall_time=time.time(), step=step, session_log=start))
            self._started = True
        event = event_pb2.Event(wall_time=time.time(), step=step)
        # Some of TensorBoard's functions return protos of TensorFlow, which have the same bytes.
        event.summary.MergeFromString(summary.SerializeToString())
        self._write(event)

    def _write(self, event: Any) -> None:
        with _failures_told(self.folder):
            self._file.write(event.SerializeToString())


@contextlib.contextmanager
def _failures_told(folder: str) -> Iterator[None]:
    """Converts errors of TensorFlow's files to an error that names the folder."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise EventLogError(
            f"The TensorBoard log in {folder!r} cannot be written: {reason}. Choose another folder, or make this one "
            "writable and make room there."
        ) from error
