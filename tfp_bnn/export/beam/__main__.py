"""The command `python -m tfp_bnn.export.beam`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfp_bnn.export.beam.pipeline import predict_files

_EPILOG = "What follows `--` are options of Beam: ... -- --runner=FlinkRunner --flink_master=host:8081"


def main(arguments: Sequence[str]) -> int:
    """Predicts files. Returns the exit code: 0, or 1 after a message if something is not usable."""
    given = list(arguments)
    where = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="python -m tfp_bnn.export.beam",
        description="Predict the rows of CSV, Parquet or TFRecord files by an exported model, on Apache Beam.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="Folder that `tfp-bnn export` or `model.export` wrote.")
    parser.add_argument("--input", required=True, nargs="+", metavar="PATTERN", help="Files or patterns of files.")
    parser.add_argument("--output", required=True, help="Folder to write to, new or empty.")
    parser.add_argument(
        "--columns", nargs="+", metavar="NAME", help="Columns of the input, in order; INPUT=NAME if there are several."
    )
    parser.add_argument("--keep", nargs="+", default=(), metavar="NAME", help="Columns to copy to the output.")
    parser.add_argument("--draws", action="store_true", help="Write the predictions of each draw too.")
    parser.add_argument("--seed", type=int, help="Seed of the draws. Default: that of the export.")
    parser.add_argument("--batch-size", type=int, default=1024, help="Rows that are predicted together.")
    values = parser.parse_args(given[:where])
    try:
        report = predict_files(
            values.model,
            values.input,
            values.output,
            columns=_columns(values.columns),
            keep=values.keep,
            draws=values.draws,
            seed=values.seed,
            batch_size=values.batch_size,
            options=given[where + 1 :],
        )
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{report.rows:,} rows predicted, {report.rejected:,} rejected: {values.output}")
    return 0


def _columns(names: list[str] | None) -> list[str] | dict[str, list[str]] | None:
    """Returns the columns by input if each is written INPUT=NAME, else the names as they are."""
    if not names or not all("=" in name for name in names):
        return names
    by_input: dict[str, list[str]] = {}
    for name in names:
        of_input, _, column = name.partition("=")
        by_input.setdefault(of_input, []).append(column)
    return by_input


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
