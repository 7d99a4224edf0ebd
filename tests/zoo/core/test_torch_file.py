"""Files of PyTorch: tensors are read without PyTorch, and anything else is refused without being carried out.

`tests/data/torch_files/make.py` made the real files. The hostile ones are written here, operation by operation.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.core.torch_file import read_state_dict

DATA = Path(__file__).parents[2] / "data" / "torch_files"
MAGIC, PROTOCOL, SYSTEM = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
FOUR = np.arange(4, dtype="<f4").tobytes()


@dataclass
class Name:
    """A function or class that a pickle names."""

    text: str


@dataclass
class Call:
    name: str
    arguments: Any


@dataclass
class Persistent:
    described: Any


def encoded(value: Any) -> bytes:
    match value:
        case bytes():
            return value
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return b"\x8a\x0b" + value.to_bytes(11, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value)) + value.encode()
        case tuple():
            return b"(" + b"".join(map(encoded, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encoded, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encoded(key) + encoded(each) for key, each in value.items()) + b"u"
        case Name():
            return b"c" + value.text.replace(" ", "\n").encode() + b"\n"
        case Call():
            return encoded(Name(value.name)) + encoded(value.arguments) + b"R"
        case Persistent():
            return encoded(value.described) + b"Q"
    raise TypeError(value)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + encoded(value) + b"."


def tensor(shape=(4,), strides=(1,), offset=0, size: Any = 4, key="0", dtype="FloatStorage", view=()):
    storage = Persistent(("storage", Name(f"torch {dtype}"), key, "cpu", size, *view))
    return Call("torch._utils _rebuild_tensor_v2", (storage, offset, shape, strides, False, {}))


def archive(data, storages=None, compression=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        written.writestr("x/data.pkl", data if isinstance(data, bytes) else pickled(data))
        for name, content in {**{f"data/{key}": s for key, s in (storages or {"0": FOUR}).items()}, **members}.items():
            written.writestr(f"x/{name}", content)
    return file.getvalue()


def sequence(data, storages=b"\x04" + bytes(7) + FOUR, keys: Any = ("0",), magic=MAGIC, system=SYSTEM):
    data = data if isinstance(data, bytes) else pickled(data)
    return b"".join(map(pickled, (magic, PROTOCOL, system))) + data + pickled(list(keys)) + storages


def refused(tmp_path, content: bytes, says: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "torch.save(model.state_dict(), path)" in str(caught.value)


@pytest.mark.parametrize("name", ["archive.pth", "sequence.pth"])
def test_what_pytorch_wrote_is_read(name):
    found = read_state_dict(DATA / name)
    np.testing.assert_array_equal(found["0.weight"], np.arange(54, dtype=np.float32).reshape(3, 2, 3, 3))
    np.testing.assert_array_equal(found["1.bias"], [3.0, 4.0, 5.0])
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(found["transposed"], whole.T)
    np.testing.assert_array_equal(found["part"], whole[1:3, ::2])
    assert found["half"].dtype == np.float16
    assert found["double"] == 0.1
    assert found["1.num_batches_tracked"].dtype == np.int64
    assert found["empty"].shape == (0, 3)
    np.testing.assert_array_equal(found["parameter"], [3.0])


def test_the_files_written_here_are_like_those_of_pytorch(tmp_path):
    path = tmp_path / "x.pth"
    for content in (archive({"w": tensor()}), sequence({"w": tensor(view=(None,))})):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_state_dict(path)["w"], [0.0, 1.0, 2.0, 3.0])


class Command:
    def __reduce__(self):
        return os.system, ("touch carried_out",)


@pytest.mark.parametrize("layout", [archive, sequence])
def test_nothing_is_carried_out(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (pickle.dumps({"w": Command()}, 2), pickled({"w": Call("builtins eval", ("1",))})):
        refused(tmp_path, layout(data), "it names .(posix.system|builtins.eval)., which is no tensor")
    assert not (tmp_path / "carried_out").exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"w": tensor(), "epoch": 3}, "epoch.? is a value of the kind int, not a tensor"),
        ({"model": {"w": tensor()}}, "model.? is a value of the kind dict, not a tensor"),
        ([tensor()], "it holds a value of the kind list, not tensors by name"),
        (tensor(), "it holds a tensor, not tensors by name"),
        ({("a",): tensor()}, "neither a list nor a dictionary with names"),
        ({"w": Name("torch FloatStorage")}, "is a value of the kind Name, not a tensor"),
        ({"w": Call("collections OrderedDict", ([],))}, "calls something"),
        ({"w": Call("torch FloatStorage", (10,))}, "calls something"),
        ({"w": tensor(dtype="BFloat16Storage")}, "torch.BFloat16Storage., which is no tensor of a dtype that is read"),
        ({"w": Persistent("0")}, "describes a storage"),
        ({"w": tensor(view=("0", 0, 4))}, "describes a storage"),
        ({"w": tensor(shape=(2**40,))}, "does not fit into its storage"),
        ({"w": tensor(shape=(2**40,), size=2**40)}, "its tensors have 4398046511104 bytes; at most"),
        ({"w": tensor(shape=(2**20,), strides=(0,))}, "does not fit into its storage"),
        ({"w": tensor(strides=(2,))}, "does not fit into its storage"),
        ({"w": tensor(offset=1)}, "does not fit into its storage"),
        ({"w": tensor(offset=-1)}, "not numbers from 0"),
        ({"w": tensor(shape=(-1,))}, "not numbers from 0"),
        ({"w": tensor(shape=(True,))}, "not numbers from 0"),
        ({"w": tensor(shape=4)}, "not numbers from 0"),
        ({"w": tensor(shape=(1,) * 17, strides=(1,) * 17)}, "not numbers from 0"),
        ({"w": tensor(strides=())}, "not numbers from 0"),
        ({"w": tensor(size=5)}, "has 16 bytes, but 20 were expected"),
        ({"w": tensor(size=3, shape=(3,))}, "has 16 bytes, but 12 were expected"),
        ({"w": tensor(), "v": tensor(dtype="IntStorage")}, "described in two ways"),
        ({"w": tensor(key="1")}, "the storage 'x/data/1' is missing"),
        (b"\x80\x02.", "its pickle is damaged"),
        (b"\x80\x02}", "pickle exhausted before seeing STOP"),
        (b"\x80\x02h\x00.", "its pickle is damaged"),
        (b"\x80\x02)}b.", "sets the state of something"),
        (b"\x80\x02" + b"N" * 2**18 + b".", "has more than 262144 operations"),
        (b"\x80\x04\x8e" + b"\xff" * 6 + b"\x00\x00.", "bytes in a bytes8"),
        (b"\x80\x04C\x01a.", "has the operation SHORT_BINBYTES, which no tensor needs"),
    ],
)
def test_anything_but_tensors_that_fit_is_refused(value, says, tmp_path):
    refused(tmp_path, archive(value), says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ((DATA / "archive.pth").read_bytes()[:3000], "not a zip file"),
        (archive({"w": tensor()}, compression=zipfile.ZIP_DEFLATED), "the archive is compressed"),
        (archive({"w": tensor()}, byteorder="big"), "not little-endian"),
        (archive({"w": tensor()}).replace(b"x/data.pkl", b"x/other.pk"), "has 0 members 'data.pkl'"),
        (archive({"w": tensor()}).replace(FOUR, FOUR[::-1]), "Bad CRC-32"),
        ((DATA / "sequence.pth").read_bytes()[:-1], "it ends before the storage"),
        ((DATA / "sequence.pth").read_bytes() + b"x", "something follows the last storage"),
        (sequence({"w": tensor()}, magic=7), "not like one of PyTorch"),
        (sequence({"w": tensor()}, system={"little_endian": False}), "not little-endian"),
        (sequence({"w": tensor()}, keys=("0", "1")), "the storages are not those of the tensors"),
        (sequence({"w": tensor()}, keys=([["0"]],)), "the storages are not those of the tensors"),
        (sequence({"w": tensor()}, b"\x05" + bytes(7) + FOUR), "has 5 values, but its tensors say 4"),
        (b"", "is not a file of PyTorch"),
        (b"<!DOCTYPE html>", "is not a file of PyTorch"),
    ],
)
def test_damaged_files_are_refused(content, says, tmp_path):
    refused(tmp_path, content, says)


def test_an_encrypted_archive_is_refused(tmp_path):
    content = bytearray(archive({"w": tensor()}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    refused(tmp_path, bytes(content), "is encrypted, password required")


def test_members_that_overlap_are_refused(tmp_path):
    """A member of 16 bytes that claims a megabyte, as in an archive that unpacks to more than there is."""
    content = bytearray(archive({"w": tensor()}))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**20, 2**20)
    refused(tmp_path, bytes(content), "the members of the archive are larger than the file")
