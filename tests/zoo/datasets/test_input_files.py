"""Files that `predict` reads: what is refused, and what they cost."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from zoo.datasets.input_files import open_inputs


def npy_of(*shape):
    """A file whose header declares float64 of this shape, of which there are 8."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.csv", b"1,2,3\n", r"shape \(3,\), but the model takes \(4,\)"),
        ("x.csv", b"a,b,c,d\n", "no rows of numbers"),
        ("x.csv", b"", "no rows of numbers"),
        ("x.csv", b"?,2,3,4\n1,2,3,4\n", "the first row, .* is neither a header nor numbers"),
        ("x.csv", b"a,b,c,d\n1,2,3,4,5\n", "row 0 is"),
        ("x.csv", b"1,2,3,4\n1,2,3\n", "row 1 is"),
        ("x.csv", b"1,2,3,4\n1,2,3,x\n", "row 1 is"),
        ("x.npy", b"garbage", "not an NPY file"),
        ("x.npy", npy_of(10**12, 4), "not an NPY file of numbers, or cut off"),
        ("x.npy", npy_of(10**30, 4), "not an NPY file of numbers, or cut off"),
        ("x.txt", b"1", "Expected one .csv, .parquet, .npy or .npz file"),
        ("x.png", b"garbage", "are not images"),
    ],
)
def test_bad_input_files(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=says):
        open_inputs([tmp_path / name], (4,), 255.0)


@pytest.mark.slow
def test_the_text_of_a_csv_file_is_not_kept(tmp_path):
    """400,000 numbers in 1.9 MB."""
    path = tmp_path / "x.csv"
    path.write_text("1.25,2.5,3.75,4.5\n" * 100_000)
    tracemalloc.start()
    x = open_inputs([path], (4,), 255.0).x
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.shape == (100_000, 4)
    assert x[99_999].tolist() == [1.25, 2.5, 3.75, 4.5]
    assert peak < 4 * path.stat().st_size


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    content = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", b""), chunk(b"IEND", b"")]
    (tmp_path / "x.png").write_bytes(b"".join(content))
    with pytest.raises(ValueError, match=r"13000 x 13000 pixels; at most 33,554,432 are read. .* takes 8 x 8"):
        open_inputs([tmp_path / "x.png"], (8, 8, 1), 16.0)


def test_bad_image(tmp_path):
    (tmp_path / "x.png").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        open_inputs([tmp_path / "x.png"], (8, 8, 1), 16.0)


def test_a_blank_line_amid_one_column_is_a_missing_value(tmp_path):
    """Else the predictions of all rows after it would be of other rows."""
    for text in ("\na\n1\n\n2\n", "a\n\n1\n2\n", "a\n\n1\n\n\n\n2\n"):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(ValueError, match=r"row 1 is \[''\]; expected numbers"):
            open_inputs([tmp_path / "x.csv"], (1,), 1.0)
    # Trailing ones say nothing, nor do those after every row: line ends that were written twice.
    for text in ("\na\n1\n2\n\n\n", "a\n\n1\n\n2\n\n"):
        (tmp_path / "x.csv").write_text(text)
        assert open_inputs([tmp_path / "x.csv"], (1,), 1.0).x.tolist() == [[1], [2]]
    (tmp_path / "x.csv").write_text("1,2\n\n3,4\n")
    assert open_inputs([tmp_path / "x.csv"], (2,), 1.0).x.tolist() == [[1, 2], [3, 4]]
