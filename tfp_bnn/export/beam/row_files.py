"""Reading of rows from CSV, Parquet and TFRecord files, some at a time."""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from google.protobuf.message import DecodeError

# By the kind of a feature: what TensorFlow reads it as, and what Arrow has it as.
_KINDS = {
    "float_list": (tf.float32, pa.float32()),
    "int64_list": (tf.int64, pa.int64()),
    "bytes_list": (tf.string, pa.binary()),
}


@dataclass
class Rows:
    """Consecutive rows of a file.

    Attributes:
        first: Number of the first one in the file, from 0.
        columns: The columns by name, all of the same length.
        faults: Why a row cannot be read, by its position.
    """

    first: int
    columns: dict[str, pa.Array]
    faults: dict[int, str] = field(default_factory=dict)


class RowFile(ABC):
    """A file of rows, which are read in the order in which it has them.

    Args:
        path: Its path, on any file system that Beam can read.
    """

    # How a file that is cut off, or of another format, fails.
    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def _names(self) -> list[str]:
        """The names of the columns."""

    @abstractmethod
    def _chunks(self, names: Sequence[str], size: int) -> Iterator[Any]:
        """Yields up to `size` rows at a time, as the file has them."""

    @abstractmethod
    def _columns(self, chunk: Any, names: Sequence[str]) -> tuple[list[pa.Array], dict[int, str]]:
        """Some columns of a chunk, and why rows of it cannot be read, by position."""

    def names(self) -> list[str]:
        """The names of the columns; none of a file that has no rows and no header.

        Raises:
            ValueError: If the file cannot be read.
        """
        try:
            return self._names()
        except self.errors as error:
            raise self._unreadable(error) from error

    def rows(self, names: Sequence[str], size: int, part: int = 0, parts: int = 1) -> Iterator[Rows]:
        """Yields some columns of the chunks of `size` rows whose number, modulo `parts`, is `part`.

        The chunks between them are read and left out, which takes little of the time of a prediction.

        Raises:
            ValueError: If the file cannot be read.
        """
        first = 0
        try:
            for number, chunk in enumerate(self._chunks(names, size)):
                if number % parts == part:
                    columns, faults = self._columns(chunk, names)
                    yield Rows(first, dict(zip(names, columns, strict=True)), faults)
                first += len(chunk)
        except self.errors as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ValueError:
        kind = type(self).__name__.removesuffix("File")
        return ValueError(f"{self.path!r} cannot be read as {kind}: {str(error).strip()}")


class CSVFile(RowFile):
    """Comma-separated values in UTF-8 under a header, perhaps in a `.gz`, as strings. Empty lines are left out."""

    errors = (OSError, EOFError, csv.Error, UnicodeDecodeError)

    def _names(self) -> list[str]:
        with self._reader() as (header, _):
            return header

    def _chunks(self, names: Sequence[str], size: int) -> Iterator[list[list[str]]]:
        with self._reader() as (header, rows):
            self._header = header
            while chunk := list(islice(rows, size)):
                yield chunk

    def _columns(self, chunk: list[list[str]], names: Sequence[str]) -> tuple[list[pa.Array], dict[int, str]]:
        width = len(self._header)
        faults = {
            position: f"has {len(row)} cells, and the header has {width}"
            for position, row in enumerate(chunk)
            if len(row) != width
        }
        empty: list[Any] = [None] * width
        rows = [empty if position in faults else row for position, row in enumerate(chunk)] if faults else chunk
        positions = [self._header.index(name) for name in names]
        return [pa.array([row[position] for row in rows], pa.string()) for position in positions], faults

    @contextlib.contextmanager
    def _reader(self) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
        """The header, and an iterator of the rows below it."""
        with _opened(self.path) as raw, contextlib.ExitStack() as stack:
            binary = stack.enter_context(gzip.open(raw)) if self.path.endswith(".gz") else raw
            text = stack.enter_context(io.TextIOWrapper(binary, "utf-8-sig", newline=""))
            rows = (row for row in csv.reader(text) if row)
            header = [name.strip() for name in next(rows, [])]
            if len(set(header)) < len(header):
                raise csv.Error("its header has the same name twice.")
            yield header, rows


class ParquetFile(RowFile):
    """A Parquet file."""

    errors = (OSError, pa.ArrowException)

    def _names(self) -> list[str]:
        with _opened(self.path) as file:
            return list(pq.read_schema(file).names)

    def _chunks(self, names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        with _opened(self.path) as file:
            yield from pq.ParquetFile(file).iter_batches(size, columns=list(names), use_threads=False)

    def _columns(self, chunk: pa.RecordBatch, names: Sequence[str]) -> tuple[list[pa.Array], dict[int, str]]:
        return [chunk.column(name) for name in names], {}


class TFRecordFile(RowFile):
    """Records of `tf.train.Example`, perhaps in a `.gz`. Its columns are the features of the first one, all lists.

    TensorFlow reads it, so the path is local or one that TensorFlow knows, such as `gs://...`.
    """

    errors = (OSError, tf.errors.OpError, DecodeError)

    def _names(self) -> list[str]:
        return list(self._kinds())

    def _chunks(self, names: Sequence[str], size: int) -> Iterator[np.ndarray]:
        kinds = self._kinds()
        self._types = {name: _KINDS[kinds[name]][1] for name in names}
        self._features = {name: tf.io.RaggedFeature(_KINDS[kinds[name]][0]) for name in names}
        yield from self._records().batch(size).as_numpy_iterator()

    def _columns(self, chunk: np.ndarray, names: Sequence[str]) -> tuple[list[pa.Array], dict[int, str]]:
        faults: dict[int, str] = {}
        try:
            parsed = tf.io.parse_example(chunk, self._features)
        except tf.errors.InvalidArgumentError:
            faults = dict(filter(None, map(self._fault, range(len(chunk)), chunk)))
            # An example without features.
            whole = [b"" if position in faults else record for position, record in enumerate(chunk)]
            parsed = tf.io.parse_example(whole, self._features)
        return [
            pa.ListArray.from_arrays(
                pa.array(parsed[name].row_splits.numpy()), pa.array(parsed[name].values.numpy(), self._types[name])
            )
            for name in names
        ], faults

    def _fault(self, position: int, record: bytes) -> tuple[int, str] | None:
        try:
            tf.io.parse_single_example(record, self._features)
        except tf.errors.InvalidArgumentError:
            return position, "is no tf.train.Example with features of the kinds of the first record"
        return None

    def _records(self) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(self.path, "GZIP" if self.path.endswith(".gz") else "")

    def _kinds(self) -> dict[str, str]:
        for record in self._records().take(1).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            return {name: kind for name in sorted(features) if (kind := features[name].WhichOneof("kind"))}
        return {}


def row_file(path: str) -> RowFile:
    """The reader of a file by its name.

    Raises:
        ValueError: If the name says no format.
    """
    name = path.rsplit("/", 1)[-1].lower()
    if name.removesuffix(".gz").endswith(".csv"):
        return CSVFile(path)
    if name.endswith(".parquet"):
        return ParquetFile(path)
    # Names of parts follow it, as in rows.tfrecord-00000-of-00010.
    if ".tfrecord" in name:
        return TFRecordFile(path)
    raise ValueError(
        f"{path!r} has no known format. Expected a name that ends in .csv, .csv.gz or .parquet, or has .tfrecord in it."
    )


def find_files(patterns: str | Sequence[str]) -> list[str]:
    """The paths that match some patterns, such as `gs://bucket/rows-*.parquet`, each once and in order.

    Raises:
        ValueError: If a pattern matches nothing, or its file system cannot be read.
    """
    systems = importlib.import_module("apache_beam.io.filesystems").FileSystems
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    found: set[str] = set()
    for pattern in given:
        try:
            paths = {each.path for result in systems.match([str(pattern)]) for each in result.metadata_list}
        except (OSError, ValueError) as error:
            raise ValueError(f"The files {str(pattern)!r} cannot be listed: {error}") from error
        if not paths:
            raise ValueError(f"No file matches {str(pattern)!r}. Give paths or patterns such as 'rows-*.parquet'.")
        found |= paths
    return sorted(found)


def _opened(path: str) -> Any:
    filesystem = importlib.import_module("apache_beam.io.filesystem")
    systems = importlib.import_module("apache_beam.io.filesystems").FileSystems
    return systems.open(path, compression_type=filesystem.CompressionTypes.UNCOMPRESSED)
