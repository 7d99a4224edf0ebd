"""The architecture, checked from the folder names: one room per concept, and an import only goes down or stays.

Rooms are folders at the top of `tfp_bnn` and `zoo`, in the order below from the ground up; `zoo` stands on `tfp_bnn`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "tfp_bnn": (
        "core priors posteriors metrics likelihoods layers figures predictive variational export models inference "
        "calibration transfer compression acquisition callbacks"
    ).split(),
    "zoo": "core datasets architectures recipes hub evaluation training cli".split(),
}
PACKAGES = tuple(ROOMS)
FLOORS = {
    f"{package}.{room}": floor
    for floor, (package, room) in enumerate((package, room) for package in PACKAGES for room in ROOMS[package])
}
# The faces of the two packages re-export from every room of their own.
FACES = {package: max(floor for name, floor in FLOORS.items() if name.startswith(package)) for package in PACKAGES}
# Where else a Python file may stand than in a room.
AT_THE_TOP = {"__init__.py", "__main__.py"}
MOST_LINES = 400
# The only files that touch a private API: of objects of Keras and TensorFlow, of what these keep outside, of Keras 2.
PRIVATE_API = {"tfp_bnn/core/layer_tree.py", "tfp_bnn/core/library_state.py", "tfp_bnn/transfer/tf_keras_graph.py"}
# The only files that write others directly: whole files, or those of a folder that takes its place when it is whole.
WRITERS = {
    "zoo/core/files.py",
    "zoo/evaluation/report/comparison.py",
    "zoo/evaluation/report/writing.py",
    "zoo/hub/artifacts.py",
    "zoo/hub/remote/fetching.py",
}
PRIVATE_PACKAGES = ("keras.src", "tensorflow.python", "tensorflow_probability.python", "tf_keras")


@dataclass(frozen=True)
class Import:
    """One module imports another, perhaps only when a function of it runs."""

    source: str
    target: str
    line: int


def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """The syntax tree of a file as a list, parsed once for all tests."""
    return _nodes_of_text(path.read_text(encoding="utf-8"))


@functools.cache
def _nodes_of_text(text: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(text)))


def find_modules(root: Path) -> dict[str, Path]:
    """The modules of both packages by their dotted name; a package has the name of its folder."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def floor_of(module: str) -> int | None:
    """The floor of a module: that of its room; None when it is in none. The command of a package is at its face."""
    module = module.removesuffix(".__main__")
    return FACES.get(module, FLOORS.get(".".join(module.split(".")[:2])))


def find_imports(source: str, modules: Mapping[str, Path]) -> Iterator[Import]:
    """The imports of one module that lead to one of `modules`, wherever in it they stand."""
    package = source if modules[source].name == "__init__.py" else source.rpartition(".")[0]
    for node in nodes_of(modules[source]):
        for name in _imported_names(node, package):
            target = _nearest_module(name, modules)
            if target is not None and target != source:
                yield Import(source, target, node.lineno)


@functools.cache
def all_imports(root: Path) -> dict[str, list[Import]]:
    """The imports of every module in a tree, which does not change, by the name of the module."""
    modules = find_modules(root)
    return {source: list(find_imports(source, modules)) for source in modules}


def upward_imports(root: Path) -> list[str]:
    """What goes up, as messages; a module without a floor counts as above all others."""
    found = []
    for source, imports in all_imports(root).items():
        for found_import in imports:
            low, high = floor_of(source), floor_of(found_import.target)
            if low is not None and (high is None or high > low):
                found.append(f"{source}:{found_import.line} (floor {low}) imports {found_import.target} (floor {high})")
    return found


def import_cycle(root: Path) -> list[str]:
    """A ring of modules that import one another, perhaps only when a function runs or for type checkers; or nothing."""
    graph = {source: {i.target for i in imports} for source, imports in all_imports(root).items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _imported_names(node: ast.AST, package: str) -> list[str]:
    """Absolute dotted names, each perhaps a module and perhaps a name in one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # One dot is the package itself, each further one goes out by one.
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _name_called(node).endswith("import_module"):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


def _name_called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _nearest_module(name: str, modules: Mapping[str, Path]) -> str | None:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def private_api_uses(path: Path, foreign: frozenset[str]) -> list[str]:
    """What a file takes from the private API of another library, as `line: what`.

    Args:
        path: Path of a Python file.
        foreign: Private names of the classes of Keras. Using one, or defining one in a class of ours, counts as a use
            of private API.
    """
    nodes = nodes_of(path)
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and _is_self(node.value)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    found = []
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        found += [f"{node.lineno}: {name}" for name in names if name.startswith(PRIVATE_PACKAGES)]
        if isinstance(node, ast.Attribute) and node.attr in foreign - own:
            found.append(f"{node.lineno}: {node.attr}")
        if isinstance(node, ast.Call) and _name_called(node) in ("getattr", "hasattr", "setattr"):
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found += [f"{node.lineno}: {text!r}" for text in texts if text in foreign]
        if isinstance(node, ast.ClassDef) and node.bases:
            for statement in node.body:
                targets = statement.targets if isinstance(statement, ast.Assign) else []
                defined = [target.id for target in targets if isinstance(target, ast.Name)]
                defined += [statement.name] if isinstance(statement, ast.FunctionDef) else []
                found += [f"{statement.lineno}: {name}" for name in defined if name in foreign]
    return found


def keras_private_names() -> frozenset[str]:
    """The names with one leading underscore that objects of Keras and `tf.data` have."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    tensor = keras.Input((1,))
    objects = [
        model,
        keras.Model(tensor, tensor),
        model.layers[0],
        model.optimizer,
        keras.metrics.Mean(),
        keras.callbacks.EarlyStopping(),
        keras.random.SeedGenerator(0),
        tensor,
        model.layers[0].kernel,
        keras.layers.LSTM(1),
        tf.data.Dataset.range(1),
        tf.constant(1),
    ]
    names = {name for thing in objects for name in dir(thing)}
    names |= {"_keras_history", "_keras_mask", "_is_graph_network", "_callable_losses", "_direction"}
    return frozenset(name for name in names if name.startswith("_") and not name.startswith("__"))


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for package in PACKAGES:
        files = {f"{package}/__init__.py": "", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_every_python_file_stands_in_a_room():
    for package, rooms in ROOMS.items():
        files = {path.name for path in (ROOT / package).glob("*.py")}
        assert files == AT_THE_TOP, f"Loose modules at the top of {package}: {sorted(files - AT_THE_TOP)}"
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert folders == set(rooms)


def test_the_guide_of_contributors_has_the_rooms_in_their_order():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {
        package: [
            room
            for first, others in re.findall(rf"^\| `{package}/(\w+)/`([^|]*)\|", guide, re.MULTILINE)
            for room in [first, *re.findall(r"`(\w+)/`", others)]
        ]
        for package in PACKAGES
    }
    assert shown == ROOMS


def test_a_room_says_what_it_is_for():
    for package, rooms in ROOMS.items():
        for room in rooms:
            text = (ROOT / package / room / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), f"{package}/{room}/__init__.py has no docstring"


def test_no_file_is_too_long():
    paths = [path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in paths}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_private_api_of_other_libraries_is_touched_in_one_file(package):
    foreign = keras_private_names()
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        uses = private_api_uses(path, foreign)
        if name in PRIVATE_API:
            assert uses, f"{name} touches no private API any more"
        elif uses:
            found[name] = uses
    assert found == {}


def test_files_are_written_whole_or_not_at_all():
    writers = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        calls = (node.func for node in nodes_of(path) if isinstance(node, ast.Call))
        if any(isinstance(call, ast.Attribute) and call.attr in ("write_bytes", "write_text") for call in calls):
            writers.add(path.relative_to(ROOT).as_posix())
    assert writers == WRITERS, "Use `write_atomically` or `written_whole` of `zoo.core.files`"


def test_imports_are_found_in_the_real_tree():
    imports = all_imports(ROOT)
    assert {name.partition(".")[0] for name in imports} == set(PACKAGES)
    assert "tfp_bnn.core.registry" in {i.target for i in imports["tfp_bnn.priors.base"]}


def test_no_import_goes_up():
    assert upward_imports(ROOT) == []


def test_no_modules_import_one_another_in_a_ring():
    assert import_cycle(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text", "target"),
    [
        ("tfp_bnn/layers/dense.py", "from tfp_bnn.models import VariationalModel", "tfp_bnn.models"),
        ("tfp_bnn/layers/dense.py", "from ..models import VariationalModel", "tfp_bnn.models"),
        ("tfp_bnn/layers/dense.py", "from .. import models", "tfp_bnn.models"),
        ("tfp_bnn/layers/__init__.py", "from ..models import VariationalModel", "tfp_bnn.models"),
        ("tfp_bnn/priors/base.py", "import tfp_bnn.models as m", "tfp_bnn.models"),
        ("tfp_bnn/priors/base.py", "import tfp_bnn", "tfp_bnn"),
        ("tfp_bnn/priors/base.py", "def f():\n    from tfp_bnn import models", "tfp_bnn.models"),
        ("tfp_bnn/priors/base.py", "class C:\n    def f(self):\n        from ..models import x", "tfp_bnn.models"),
        ("tfp_bnn/priors/base.py", "import importlib\nm = importlib.import_module('tfp_bnn.models')", "tfp_bnn.models"),
        ("tfp_bnn/models/base.py", "if TYPE_CHECKING:\n    import tfp_bnn.callbacks.board", "tfp_bnn.callbacks.board"),
        ("tfp_bnn/transfer/base.py", "from zoo.hub import REGISTRY", "zoo.hub"),
        ("tfp_bnn/__init__.py", "import zoo", "zoo"),
        ("zoo/hub/catalog.py", "from zoo import cli", "zoo.cli"),
        ("zoo/training/run.py", "import zoo.unheard_of", "zoo.unheard_of"),
    ],
)
def test_an_import_that_goes_up_is_reported(tmp_path, path, text, target):
    names = ("tfp_bnn/models", "tfp_bnn/callbacks/board", "tfp_bnn/layers", "zoo/hub", "zoo/cli")
    files = {f"{name}/__init__.py": "" for name in names} | {"zoo/unheard_of.py": "", path: text}
    (message,) = upward_imports(write_tree(tmp_path, files))
    assert f"imports {target} (floor" in message


def test_imports_that_go_down_or_sideways_are_not_reported(tmp_path):
    files = {
        "tfp_bnn/__init__.py": "from tfp_bnn import layers, models, transfer",
        "tfp_bnn/layers/__init__.py": "from .dense import Dense",
        "tfp_bnn/layers/dense.py": "import keras\nfrom ..priors import NORMAL",
        "tfp_bnn/models/__init__.py": "from tfp_bnn.layers import Dense",
        "tfp_bnn/priors/__init__.py": "",
        "tfp_bnn/transfer/__init__.py": "from tfp_bnn.models import Model",
        "zoo/__init__.py": "def __getattr__(name):\n    import zoo.cli",
        "zoo/cli/__init__.py": "import tfp_bnn\nfrom zoo import training",
        "zoo/training/__init__.py": "import tfp_bnn",
    }
    root = write_tree(tmp_path, files)
    assert upward_imports(root) == []
    assert import_cycle(root) == []


@pytest.mark.parametrize("link", ["from . import a", "def f():\n    from . import a"])
def test_a_ring_is_reported(tmp_path, link):
    files = {"tfp_bnn/models/__init__.py": "", "tfp_bnn/models/a.py": "from tfp_bnn.models import b"}
    root = write_tree(tmp_path, {**files, "tfp_bnn/models/b.py": link})
    assert set(import_cycle(root)) == {"tfp_bnn.models.a", "tfp_bnn.models.b"}


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("from keras.src.backend import x", "1: keras.src.backend"),
        ("import tensorflow.python.eager", "1: tensorflow.python.eager"),
        ("def f(model):\n    return model._layers", "2: _layers"),
        ("def f(model):\n    return getattr(model, '_layers')", "2: '_layers'"),
        ("class C(B):\n    _layers = ()", "2: _layers"),
        ("class C(B):\n    def _layers(self):\n        pass", "2: _layers"),
    ],
)
def test_a_use_of_a_private_api_is_reported(tmp_path, text, use):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert private_api_uses(path, frozenset({"_layers"})) == [use]
    path.write_text("def f(model):\n    return model.layers, model._own")
    assert private_api_uses(path, frozenset({"_layers"})) == []
