"""Reading of PyTorch's weight files (`.pth`, `.pt`) without PyTorch: tensors, and nothing else.

Such a file holds a pickle, and a pickle is a program: with Python's own reader it may run any command. Here the few
operations that a `state_dict` is made of are carried out by hand, and all others are refused. Nothing is imported or
called by name. Every size is checked against the bytes that are there before an array is made.

The storages of the tensors follow the pickle. Both layouts of `torch.save` are read: the zip archive of PyTorch 1.6 and
newer, and the plain sequence of pickles of 0.1.10 to 1.5 (`_use_new_zipfile_serialization=False`).
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.core.shown import shown
from zoo.core.untrusted import open_regular

MAX_BYTES = 2**30
"""Of a file, and of all its tensors together."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Of a pickle. A tensor takes about 35.
_MOST_OPERATIONS = 2**18
_MOST_AXES = 16
# What `zipfile` raises for damaged archives, besides its own error; for encrypted ones a RuntimeError.
_OF_ZIPFILE = (RuntimeError, EOFError, LookupError, OSError, OverflowError, struct.error)
_DTYPES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "<i1",
    "torch ByteStorage": "<u1",
}
_DICTIONARY = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {*_DTYPES, _DICTIONARY, _TENSOR, _PARAMETER}
_ADVICE = "Expected tensors by name, as written by torch.save(model.state_dict(), path)."


@dataclass(frozen=True)
class _Name:
    """What a pickle names: a word here, not the object of that name."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Reads the tensors of a file that PyTorch wrote. No code of the file is run, and PyTorch is not needed.

    Args:
        path: Path of a file written by `torch.save(model.state_dict(), path)`.

    Returns:
        The tensors by name, in the order of the file, as NumPy arrays of the dtype and shape that they had.

    Raises:
        ValueError: If the file is no such file, holds anything but tensors, is truncated or larger than 1 GiB, or a
            tensor does not fit into its storage, or the storage not into the file.
        OSError: If the file is missing or cannot be read.

    Example:
        >>> from zoo.core.torch_file import read_state_dict
        >>> read_state_dict("setup.py")
        Traceback (most recent call last):
        ValueError: 'setup.py' is not a file of PyTorch. Expected tensors by name, as written by ...
    """
    path = Path(path)
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{str(path)!r} has more than {MAX_BYTES} bytes, which is more than is read. {_ADVICE}")
    read = _read_archive if data.startswith(b"PK") else _read_sequence if data.startswith(b"\x80\x02") else None
    if read is None:
        raise ValueError(f"{str(path)!r} is not a file of PyTorch. {_ADVICE}")
    try:
        return read(data)
    except (ValueError, zipfile.BadZipFile, *_OF_ZIPFILE) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {shown(str(error), 300)}. {_ADVICE}") from None


# === The two layouts ===


def _read_archive(data: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise ValueError("two members of the archive have one name")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise ValueError("the archive is compressed, which PyTorch's are not")
        # Members may overlap, and so hold more than the file.
        if sum(member.file_size for member in members.values()) > len(data):
            raise ValueError("the members of the archive are larger than the file")
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the archive has {len(pickles)} members 'data.pkl', not one")
        folder = pickles[0].removesuffix("data.pkl")
        if members.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")
        views = _views(_unpickled(io.BytesIO(archive.read(pickles[0]))))
        contents = {}
        for storage in _storages(views).values():
            name = f"{folder}data/{storage.key}"
            if name not in members:
                raise ValueError(f"the storage {name!r} is missing")
            contents[storage.key] = archive.read(name)
    return _arrays(views, contents)


def _read_sequence(data: bytes) -> dict[str, npt.NDArray[Any]]:
    file = io.BytesIO(data)
    if (_unpickled(file), _unpickled(file)) != (_MAGIC, _PROTOCOL):
        raise ValueError("it begins like a pickle, but not like one of PyTorch")
    system = _unpickled(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    views = _views(_unpickled(file))
    storages, keys = _storages(views), _unpickled(file)
    # Not `str(key)`: a list that holds itself many times over has a text without end.
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(storages):
        raise ValueError("the storages are not those of the tensors")
    contents = {}
    for key in keys:
        length = file.read(8)
        size = int.from_bytes(length, "little")
        if len(length) < 8:
            raise ValueError(f"it ends before the storage {key!r}")
        if size != storages[key].size:
            raise ValueError(f"the storage {key!r} has {size} values, but its tensors say {storages[key].size}")
        contents[key] = file.read(size * np.dtype(storages[key].dtype).itemsize)
    if file.read(1):
        raise ValueError("something follows the last storage")
    return _arrays(views, contents)


# === The pickle ===


def _unpickled(file: io.BytesIO) -> Any:
    """The value of the pickle at the position of a file: constants, lists, tuples, dictionaries and views of storages.

    Raises:
        ValueError: For any other operation, and for one that lacks its operands.
    """
    try:
        return _carried_out(file)
    except (IndexError, KeyError):
        raise ValueError("its pickle is damaged") from None


def _carried_out(file: io.BytesIO) -> Any:
    argument: Any
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number == _MOST_OPERATIONS:
            raise ValueError(f"its pickle has more than {_MOST_OPERATIONS} operations")
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(operation.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                stack, items = below.pop(), stack
                stack.append(tuple(items))
            case "APPEND" | "SETITEM":
                count = 1 if operation.name == "APPEND" else 2
                items = stack[-count:]
                del stack[-count:]
                _put(stack[-1], items)
            case "APPENDS" | "SETITEMS":
                stack, items = below.pop(), stack
                _put(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(_allowed(argument)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_made(stack.pop(), arguments))
            case "BUILD":
                # The versions of the modules, which PyTorch attaches to the dictionary.
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise ValueError("its pickle sets the state of something that is not a dictionary")
            case _:
                raise ValueError(f"its pickle has the operation {operation.name}, which no tensor needs")
    raise ValueError("its pickle has no end")


def _allowed(name: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"it names {shown(name.replace(' ', '.'), 100)}, which is no tensor of a dtype that is read")
    return name


def _put(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target += items
    elif isinstance(target, dict) and len(items) % 2 == 0 and all(isinstance(key, str) for key in items[::2]):
        target.update(zip(items[::2], items[1::2], strict=True))
    else:
        raise ValueError("its pickle fills something that is neither a list nor a dictionary with names")


def _made(what: Any, arguments: Any) -> Any:
    """What a call in the pickle stands for."""
    match what, arguments:
        case _Name(text=name), () if name == _DICTIONARY:
            return {}
        case _Name(text=name), (_View() as view, bool(), dict()) if name == _PARAMETER:
            return view
        case _Name(text=name), (_Storage() as storage, offset, shape, strides, bool(), dict(), *_) if name == _TENSOR:
            return _view(storage, offset, shape, strides)
    raise ValueError("its pickle calls something in a way that no tensor needs")


def _storage(described: Any) -> _Storage:
    match described:
        case ("storage", _Name(text=dtype), str(key), str(), size) | (
            "storage",
            _Name(text=dtype),
            str(key),
            str(),
            size,
            None,
        ) if dtype in _DTYPES and _is_size(size):
            return _Storage(key, _DTYPES[dtype], size)
    raise ValueError("its pickle describes a storage in a way that is not known")


def _view(storage: _Storage, offset: Any, shape: Any, strides: Any) -> _View:
    sizes = (shape, strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else ((None,), ())
    numbers = (offset, *sizes[0], *sizes[1])
    if len(sizes[0]) != len(sizes[1]) or len(sizes[0]) > _MOST_AXES or not all(map(_is_size, numbers)):
        raise ValueError("a tensor has a shape, strides or an offset that are not numbers from 0")
    view = _View(storage, offset, shape, strides)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if view.size > storage.size or (view.size and last >= storage.size):
        raise ValueError(
            f"a tensor of shape {shape} and strides {strides} at {offset} does not fit into its storage of "
            f"{storage.size} values"
        )
    return view


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


# === The tensors ===


def _views(value: Any) -> dict[str, _View]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_kind(value)}, not tensors by name")
    for name, view in value.items():
        if not isinstance(view, _View):
            raise ValueError(f"{shown(name, 100)} is {_kind(view)}, not a tensor")
    total = sum(view.size * np.dtype(view.storage.dtype).itemsize for view in value.values())
    if total > MAX_BYTES:
        raise ValueError(f"its tensors have {total} bytes; at most {MAX_BYTES} were expected")
    return value


def _kind(value: Any) -> str:
    return "a tensor" if isinstance(value, _View) else f"a value of the kind {type(value).__name__.strip('_')}"


def _storages(views: Mapping[str, _View]) -> dict[str, _Storage]:
    found: dict[str, _Storage] = {}
    for view in views.values():
        if found.setdefault(view.storage.key, view.storage) != view.storage:
            raise ValueError(f"the storage {shown(view.storage.key, 40)} is described in two ways")
    return found


def _arrays(views: Mapping[str, _View], contents: Mapping[str, bytes]) -> dict[str, npt.NDArray[Any]]:
    for key, storage in _storages(views).items():
        needed = storage.size * np.dtype(storage.dtype).itemsize
        if len(contents[key]) != needed:
            raise ValueError(f"the storage {shown(key, 40)} has {len(contents[key])} bytes, but {needed} were expected")
    return {name: _array(view, contents[view.storage.key]) for name, view in views.items()}


def _array(view: _View, content: bytes) -> npt.NDArray[Any]:
    values = np.frombuffer(content, view.storage.dtype)
    if not view.size:
        return np.empty(view.shape, values.dtype)
    strides = [stride * values.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, strides, writeable=False).copy()
