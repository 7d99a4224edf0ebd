"""Batch prediction of files by Apache Beam."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.export.beam.handler import PredictiveHandler, load_served, require_beam
from tfp_bnn.export.beam.input_columns import InputColumns, choose_columns, flattened, require_columns
from tfp_bnn.export.beam.output_folder import PREDICTIONS, REJECTED, OutputFolder
from tfp_bnn.export.beam.row_files import find_files, row_file

_ID = {"file": pa.string(), "row": pa.int64()}
_REASON = "reason"
# Enough for a few workers to share what there is, even of one file.
_PARTS = 16
# In a row group of the output.
_ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class BatchReport:
    """What a batch prediction did, as in its file `_SUCCESS`.

    Attributes:
        model: Folder of the exported model.
        seed: Seed of the draws.
        rows: Number of rows that were predicted.
        rejected: Number of rows that were not.
    """

    model: str
    seed: int
    rows: int
    rejected: int


def predict_files(
    model: Any,
    files: str | Sequence[str],
    output: Any,
    *,
    columns: Any = None,
    keep: Sequence[str] = (),
    draws: bool = False,
    seed: int | None = None,
    batch_size: int = 1024,
    options: Any = None,
) -> BatchReport:
    """Predicts the rows of CSV, Parquet and TFRecord files, on any engine of Apache Beam.

    `output/predictions` then has Parquet files with a row for each row that was read: `file` and `row`, the number of
    the row in its file, from 0; the columns to keep; and what the model answers, `mean`, `entropy`, `aleatoric`,
    `epistemic`, `lower` and `upper`, and `samples` if draws are asked for, each a number or lists of numbers, float32.
    `output/rejected` has `file`, `row`, the columns to keep, and the `reason`, of the rows that do not fit the model:
    values that are missing, NaN or infinite, no numbers, or another number of them than the input has.

    The predictions count once there is a file `output/_SUCCESS`, which has the numbers of the report. A run that ended
    before can be started again with the same output; it begins from the start.

    All rows have the same S draws, those of the seed. The answer to a row depends on neither the number of workers nor
    which of them has it: blocks of `batch_size` rows of a file are predicted together, wherever they are.

    Args:
        model: Folder of a SavedModel of `PredictiveModel.export`, which each worker can read; also `gs://...`.
        files: Paths or patterns, such as `"rows-*.parquet"`, whose names end in .csv, .csv.gz or .parquet, or have
            .tfrecord in them. CSV files have a header.
        output: Folder to write to, new or empty, which each worker can write to.
        columns: The column of each value of the input, in this order, or one that has lists of all values; by the name
            of the input if there are several. Without it, an input has the column of its name; where there is one input
            and no such column, it has those that are not kept, if they are as many as its values.
        keep: Columns to copy to the output, such as a key: one value for each row. Those of CSV files are strings.
        draws: Whether to write the predictions of each draw too, which takes twice the time.
        seed: Integer, the seed of the draws. Default: None, which is that of the export.
        batch_size: Rows that are predicted together.
        options: `PipelineOptions` of Beam or a list of flags, such as `["--runner=FlinkRunner"]`; None to run in
            this process.

    Returns:
        The numbers of rows.

    Raises:
        ImportError: If Apache Beam is not installed; the message has the line that installs it.
        ValueError: If an argument, the model, a file, its columns, or the output folder is not usable. All files are
            looked at before any row is predicted.
        RuntimeError: If the pipeline failed on the engine.
    """
    require_beam()
    beam = importlib.import_module("apache_beam")
    require_integer("batch_size", batch_size, 1)
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise ValueError(f"`keep` must be a sequence of the names of columns, but got {keep!r}.")
    options = _options(options)
    handler = PredictiveHandler(model, seed=seed, draws=draws)
    served = load_served(str(model), draws)
    paths = find_files(files)
    reading = _plan(served.inputs, columns, tuple(keep), paths, batch_size)
    schema = _schema(reading, served.outputs)
    folder = OutputFolder(output)
    each = max(1, _PARTS // len(paths))
    parts = [(path, part, each) for path in paths for part in range(each)]
    with folder.taken():
        pipeline = beam.Pipeline(options=options)
        rows = (
            pipeline
            | "Parts" >> beam.Create(parts)
            | beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read, reading).with_outputs(REJECTED, main=PREDICTIONS)
        )
        inference = importlib.import_module("apache_beam.ml.inference.base")
        predicted = (
            rows[PREDICTIONS]
            | inference.RunInference(inference.KeyedModelHandler(handler))
            | "Table" >> beam.Map(_table, schema)
        )
        for name, tables, of in ((PREDICTIONS, predicted, schema), (REJECTED, rows[REJECTED], reading.rejected)):
            _write(beam, name, tables, of, folder.prefix(name), max(1, _ROWS_AT_ONCE // batch_size))
        state = pipeline.run().wait_until_finish()
        if state != "DONE":
            raise RuntimeError(f"The pipeline ended as {state}. Start it again with the same output when it can run.")
        report = BatchReport(
            str(model), served.seed if seed is None else seed, folder.count(PREDICTIONS), folder.count(REJECTED)
        )
        folder.finish(asdict(report))
    return report


@dataclass(frozen=True)
class _Reading:
    """How a worker reads rows."""

    inputs: tuple[InputColumns, ...]
    kept: Mapping[str, pa.DataType]
    batch_size: int

    @property
    def needed(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([*(name for each in self.inputs for name in each.columns), *self.kept]))

    @property
    def rejected(self) -> pa.Schema:
        """The columns of rows that are not predicted."""
        return pa.schema({**_ID, **self.kept, _REASON: pa.string()})


def _plan(
    inputs: Mapping[str, tf.TensorSpec], columns: Any, keep: tuple[str, ...], paths: list[str], batch_size: int
) -> _Reading:
    """Checks the files before anything runs, so errors in them are raised within seconds."""
    files = [(path, names) for path in paths if (names := row_file(path).names())]
    if not files:
        raise ValueError(f"There are no rows in {', '.join(paths[:3])}{' and others' if len(paths) > 3 else ''}.")
    for path, found in files:
        require_columns(path, found, keep)
    chosen = tuple(choose_columns(inputs, columns, *files[0], keep))
    kept = _kept_types(keep, [path for path, _ in files])
    reading = _Reading(chosen, kept, batch_size)
    for path, found in files:
        require_columns(path, found, reading.needed)
        for _ in _read((path, 0, 1), _Reading(chosen, kept, 1)):
            break
    return reading


def _kept_types(keep: tuple[str, ...], paths: list[str]) -> dict[str, pa.DataType]:
    """The types of the columns to copy, as the first row has them: the first files can be without rows, as of Spark."""
    for path in paths if keep else ():
        for rows in row_file(path).rows(keep, 1):
            return {name: flattened(column)[0].type for name, column in rows.columns.items()}
    return dict.fromkeys(keep, pa.string())


def _schema(reading: _Reading, outputs: Mapping[str, tf.TensorSpec]) -> pa.Schema:
    """The columns of the predictions."""
    taken = {*_ID, *outputs, _REASON}
    if double := sorted(taken & set(reading.kept)):
        raise ValueError(f"The column {double[0]!r} cannot be kept: the output has one of that name. Rename it.")
    fields = {**_ID, **reading.kept}
    for name, spec in sorted(outputs.items()):
        of_one = pa.float32()
        for _ in range(spec.shape.rank - 1):
            of_one = pa.list_(of_one)
        fields[name] = of_one
    return pa.schema(fields)


def _read(part: tuple[str, int, int], reading: _Reading) -> Iterator[Any]:
    """Yields blocks of a part of a file: a table that says which rows they are, and the inputs by name."""
    path, index, parts = part
    file = row_file(path)
    if not (found := file.names()):
        return
    require_columns(path, found, reading.needed)
    for rows in file.rows(reading.needed, reading.batch_size, index, parts):
        faults = dict(rows.faults)
        try:
            arrays = {each.name: each.array(rows.columns, faults) for each in reading.inputs}
            kept = [_single(name, rows.columns[name], of, faults) for name, of in reading.kept.items()]
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path!r}: {error}") from error
        number = len(next(iter(arrays.values())))
        good = np.ones(number, bool)
        good[list(faults)] = False
        of_file = pa.repeat(pa.scalar(path), number)
        numbers = pa.array(np.arange(rows.first, rows.first + number))
        table = pa.table([of_file, numbers, *kept], schema=pa.schema({**_ID, **reading.kept}))
        if faults:
            reasons = pa.array([faults[row] for row in sorted(faults)])
            rejected = table.filter(pa.array(~good)).append_column(_REASON, reasons)
            yield importlib.import_module("apache_beam.pvalue").TaggedOutput(REJECTED, rejected)
        if good.any():
            yield table.filter(pa.array(good)), {name: array[good] for name, array in arrays.items()}


def _single(name: str, column: pa.Array, of: pa.DataType, faults: dict[int, str]) -> pa.Array:
    """The one value of each row of a column."""
    flat, owners = flattened(column)
    counts = np.bincount(owners, minlength=len(column))
    for row in np.flatnonzero(counts != 1):
        faults.setdefault(int(row), f"{name!r} has {counts[row]} values; expected 1, as it is kept")
    where = np.cumsum(counts) - counts
    indices = pa.array(where, mask=counts != 1)
    return pc.cast(pc.take(flat, indices), of)


def _table(element: tuple[pa.Table, Any], schema: pa.Schema) -> pa.Table:
    """The rows of a block with what is predicted for them."""
    rows, result = element
    answers = [result.inference[name] for name in schema.names[len(rows.column_names) :]]
    return pa.table([*rows.columns, *map(_lists, answers)], schema=schema)


def _lists(array: np.ndarray) -> pa.Array:
    """An array as numbers, or lists of them, of its first axis."""
    values = pa.array(np.ascontiguousarray(array, np.float32).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        ends = np.arange(np.prod(array.shape[:axis]) + 1) * array.shape[axis]
        values = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
    return values


def _write(beam: Any, name: str, tables: Any, schema: pa.Schema, prefix: str, together: int) -> None:
    """Writes tables, some of them together: a row group of one would be small."""
    parquet = importlib.import_module("apache_beam.io.parquetio")
    _ = (
        tables
        | f"Join {name}" >> beam.BatchElements(together, together)
        | f"Concatenate {name}" >> beam.Map(pa.concat_tables)
        | f"Write {name}" >> parquet.WriteToParquetBatched(prefix, schema, codec="snappy", file_name_suffix=".parquet")
    )


def _options(options: Any) -> Any:
    of_beam = importlib.import_module("apache_beam.options.pipeline_options").PipelineOptions
    if options is None or isinstance(options, list | tuple):
        # The runner that Beam takes without one tries to download a program first.
        options = of_beam(["--runner=FnApiRunner", *(options or ())])
    elif not isinstance(options, of_beam):
        raise ValueError(f"`options` must be PipelineOptions or a list of flags, but got {options!r}.")
    # Before the first file is looked for.
    importlib.import_module("apache_beam.io.filesystems").FileSystems.set_options(options)
    return options
