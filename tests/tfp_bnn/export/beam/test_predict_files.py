"""Batch prediction writes what `posterior_predictive` gives, for each row once, and refuses what cannot be right."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.export.beam import PredictiveHandler, handler, predict_files, row_files
from tfp_bnn.export.beam.__main__ import main
from tfp_bnn.export.beam.output_folder import OutputFolder
from tfp_bnn.export.beam.pipeline import _plan
from tfp_bnn.layers import DenseFlipout

needs_beam = pytest.mark.skipif(not handler._INSTALLED, reason="needs apache-beam: pip install 'tfp_bnn[beam]'")
ROWS, DRAWS = 50, 4
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
NAMES = list("abcd")
ON_TWO_WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def model():
    x = keras.Input((4,), name="features")
    return tfp_bnn.VariationalModel(x, DenseFlipout(3)(x), seed=0)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.export(folder, num_samples=DRAWS, seed=7, verbose=False)
    return folder


def frame(rows=ROWS):
    return pd.DataFrame(np.resize(X, (rows, 4)), columns=NAMES).assign(key=[f"k{row}" for row in range(rows)])


def predictions(folder, part="predictions"):
    return pd.read_parquet(folder / part).sort_values(["file", "row"], ignore_index=True)


def test_kept_columns_have_the_types_of_the_first_row_whichever_file_has_it(tmp_path, monkeypatch):
    """Spark writes an empty first part."""
    monkeypatch.setattr(row_files, "_opened", lambda path: open(path, "rb"))
    paths = [f"{tmp_path}/part-0000{part}.parquet" for part in range(3)]
    for path, rows in zip(paths, (0, 3, 3), strict=True):
        frame(rows).assign(id=np.arange(rows, dtype=np.int64)).to_parquet(path)
    inputs = {"features": tf.TensorSpec((None, 4), tf.float32)}
    assert _plan(inputs, NAMES, ("id",), paths, 4).kept == {"id": pa.int64()}
    assert _plan(inputs, NAMES, ("id",), paths[:1], 4).kept == {"id": pa.string()}
    frame(3).to_parquet(paths[2])
    with pytest.raises(ValueError, match=r"part-00002.parquet.*'id'"):
        _plan(inputs, NAMES, ("id",), paths, 4)


@needs_beam
@pytest.mark.filterwarnings("ignore")
def test_every_row_is_predicted_or_rejected_with_the_reason(model, served, tmp_path):
    whole = frame()
    whole.loc[7, "b"] = np.nan
    whole[:30].to_csv(tmp_path / "r1.csv", index=False)
    whole[30:40].to_parquet(tmp_path / "r2.parquet")
    with tf.io.TFRecordWriter(f"{tmp_path}/r3.tfrecord") as writer:
        for *values, key in whole[40:].itertuples(index=False):
            made = {name: {"float_list": {"value": [value]}} for name, value in zip(NAMES, values, strict=True)}
            made["key"] = {"bytes_list": {"value": [key.encode()]}}
            writer.write(tf.train.Example(features={"feature": made}).SerializeToString())
    report = predict_files(
        served, f"{tmp_path}/r*", tmp_path / "out", keep=["key"], draws=True, seed=3, batch_size=4, columns=NAMES
    )
    assert (report.rows, report.rejected, report.seed) == (ROWS - 1, 1, 3)
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["rows"] == ROWS - 1
    found = predictions(tmp_path / "out")
    assert found["key"].tolist() == whole["key"].drop(7).tolist()
    assert found["row"].tolist() == [*(row for row in range(30) if row != 7), *range(10), *range(10)]
    predictive = model.posterior_predictive(np.delete(X, 7, axis=0), DRAWS, seed=3)
    for name in ("mean", "entropy", "aleatoric", "epistemic"):
        values = np.stack(found[name])
        np.testing.assert_allclose(values, getattr(predictive, name)(), rtol=1e-5, atol=1e-5)
    samples = np.stack([np.stack(row) for row in found["samples"]])
    np.testing.assert_allclose(samples, np.moveaxis(predictive.samples, 0, 1), rtol=1e-5, atol=1e-5)
    rejected = predictions(tmp_path / "out", "rejected")
    assert rejected[["file", "row", "key"]].to_numpy().tolist() == [[f"{tmp_path}/r1.csv", 7, "k7"]]
    assert "'features' has values that are missing" in rejected["reason"][0]


@needs_beam
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_failed_leaves_nothing_that_counts_and_can_be_started_again(served, tmp_path):
    import pyarrow.parquet as pq

    path, out = tmp_path / "r.parquet", tmp_path / "out"
    pq.write_table(pa.Table.from_pandas(frame()), path, row_group_size=25, compression="gzip")
    whole = path.read_bytes()
    # In the second row group, of which the footer knows nothing.
    where = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 30
    path.write_bytes(whole[:where] + b"\xff" * 20 + whole[where + 20 :])
    with pytest.raises(Exception, match=r"r.parquet' cannot be read as Parquet"):
        predict_files(served, str(path), out, batch_size=25, columns=NAMES)
    assert not (out / "_SUCCESS").exists()
    path.write_bytes(whole)
    # What a run leaves that was killed while it moved its files to their places.
    (out / "predictions" / "part-00000-of-00007.parquet").write_bytes(b"of another run")
    (out / "predictions" / "beam-temp").mkdir(parents=True)
    assert predict_files(served, str(path), out, batch_size=25, columns=NAMES).rows == ROWS
    assert predictions(out)["row"].tolist() == list(range(ROWS))
    assert [each.name for each in (out / "predictions").iterdir()] == ["part-00000-of-00001.parquet"]
    with pytest.raises(ValueError, match="has the predictions of a run that finished"):
        predict_files(served, str(path), out, columns=NAMES)


@needs_beam
def test_an_output_that_is_not_ours_is_not_touched(served, tmp_path):
    frame().to_csv(tmp_path / "r.csv")
    precious = tmp_path / "out" / "predictions" / "mine.parquet"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(ValueError, match=r"has files that are no unfinished predictions, such as 'predictions/mine"):
        predict_files(served, f"{tmp_path}/r.csv", tmp_path / "out", columns=NAMES)
    assert precious.read_text() == "precious"
    with pytest.raises(ValueError, match=r"r.csv' cannot be written to.*Expected the path of a folder"):
        predict_files(served, f"{tmp_path}/r.csv", tmp_path / "r.csv", columns=NAMES)
    folder = OutputFolder(tmp_path / "new")
    with folder.taken(), pytest.raises(ValueError, match="Another run writes its predictions"):
        predict_files(served, f"{tmp_path}/r.csv", tmp_path / "new", columns=NAMES)


@needs_beam
def test_a_run_that_finishes_while_another_waits_for_its_lock_keeps_its_predictions(tmp_path, monkeypatch):
    first, second = OutputFolder(tmp_path), OutputFolder(tmp_path)

    @contextlib.contextmanager
    def finishes():
        (tmp_path / "predictions" / "part-0.parquet").write_text("precious")
        first.finish({})
        yield

    monkeypatch.setattr(second, "_locked", finishes)
    with (
        first.taken(),
        pytest.raises(ValueError, match="has the predictions of a run that finished"),
        second.taken(),
    ):
        pass
    assert (tmp_path / "predictions" / "part-0.parquet").read_text() == "precious"


@needs_beam
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": [*"abc", "kez"]}, "Unknown column 'kez'. Did you mean 'key'"),
        ({"columns": NAMES, "keep": ["kez"]}, "Unknown column 'kez'. Did you mean 'key'"),
        ({"columns": NAMES, "keep": "key"}, "`keep` must be a sequence"),
        ({"columns": NAMES, "keep": ["mean"]}, "The column 'mean' cannot be kept"),
        ({"columns": NAMES, "batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"columns": NAMES, "seed": 0.5}, "`seed` must be an integer"),
        ({"columns": NAMES, "options": "--runner=FlinkRunner"}, "`options` must be PipelineOptions or a list"),
        ({"columns": [*"abc", "when"]}, "r.parquet': The column 'when' is of the type timestamp"),
        ({"model": "nowhere"}, r"'nowhere' cannot be read as an exported model.*tfp-bnn export NAME --output"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_run_is_refused_before_anything_is_written(arguments, message, served, tmp_path):
    frame(3).assign(mean=0, when=pd.Timestamp(0)).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        predict_files(**{"model": served, "files": f"{tmp_path}/r.parquet", "output": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


@needs_beam
def test_a_block_is_answered_by_itself(model, served):
    made = PredictiveHandler(served, seed=3)
    assert made.batch_elements_kwargs() == {"max_batch_size": 1}
    blocks = [X[:2], {"features": X[2:5]}]
    answers = list(made.run_inference(blocks, made.load_model(), None))
    other = list(made.run_inference(blocks, made.load_model(), {"seed": 4}))
    of_export = list(PredictiveHandler(served).run_inference(blocks, made.load_model(), None))
    for answer, seed in ((answers, 3), (other, 4), (of_export, 7)):
        found = np.concatenate([each.inference["mean"] for each in answer])
        np.testing.assert_allclose(found, model.posterior_predictive(X[:5], DRAWS, seed=seed).mean(), atol=1e-5)
    assert made.get_num_bytes(blocks) == X[:5].nbytes


def test_the_line_that_installs_beam_is_given_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(handler, "_INSTALLED", False)
    with pytest.raises(ImportError, match=r"pip install 'tfp_bnn\[beam\]'"):
        PredictiveHandler("served")
    assert main(["--model", "served", "--input", "rows.csv", "--output", "out"]) == 1
    assert "pip install" in capsys.readouterr().err


@needs_beam
@pytest.mark.slow
def test_a_run_on_two_workers_that_is_killed_is_repeated_without_double_or_missing_rows(served, tmp_path):
    """Killed twice, at moments while it writes."""
    number = 20_000
    for half in range(2):
        frame(number).to_csv(tmp_path / f"r{half}.csv", index=False)
    command = [sys.executable, "-m", "tfp_bnn.export.beam", "--model", served, "--columns", *NAMES, "--keep", "key"]
    command += ["--batch-size", "100", "--output", tmp_path / "out", "--input", f"{tmp_path}/r*.csv", "--"]
    generator = random.Random(0)  # noqa: S311
    for _ in range(2):
        run = subprocess.Popen([*command, *ON_TWO_WORKERS], stderr=subprocess.PIPE)
        while run.poll() is None and not list((tmp_path / "out" / "predictions").glob("beam-temp*/*")):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 1))
        run.kill()
        run.communicate()
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    subprocess.run([*command, *ON_TWO_WORKERS], check=True, capture_output=True)
    found = predictions(tmp_path / "out")
    assert found["row"].tolist() == [*range(number), *range(number)]
    assert found["key"].tolist() == [f"k{row}" for row in range(number)] * 2
    # The same as in this process, to the last bit: which worker has a row makes no difference.
    report = predict_files(
        served, f"{tmp_path}/r*.csv", tmp_path / "alone", columns=NAMES, keep=["key"], batch_size=100
    )
    assert report.seed == 7
    alone = predictions(tmp_path / "alone")
    np.testing.assert_array_equal(np.stack(found["mean"]), np.stack(alone["mean"]))
