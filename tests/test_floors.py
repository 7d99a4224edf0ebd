"""An import only ever goes down, or stays on its floor: `tfp_bnn` below, `zoo` above it, the command line on top."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tfp_bnn", "zoo")

# A module has the floor of the longest of these names that it is or lies in.
NAMED_FLOORS = {
    0: "tfp_bnn.arguments tfp_bnn.hyperpriors tfp_bnn.layers tfp_bnn.posteriors tfp_bnn.priors tfp_bnn.registry",
    1: "tfp_bnn",
    2: "tfp_bnn.acquisition tfp_bnn.callbacks tfp_bnn.inference tfp_bnn.pruning tfp_bnn.transfer",
    3: (
        "zoo.architectures zoo.artifacts zoo.cards zoo.datasets zoo.folders "
        "zoo.inputs zoo.manifest zoo.names zoo.recipes zoo.registry zoo.validation"
    ),
    4: "zoo.evaluation zoo.evaluation_report zoo.fine_tuning zoo.report zoo.training zoo.verification",
    5: "zoo.__main__ zoo.cli",
}
FLOORS = {name: floor for floor, names in NAMED_FLOORS.items() for name in names.split()}
# The faces of the two packages re-export from every floor of their own.
FACES = {"tfp_bnn": 2, "zoo": 5}


@dataclass(frozen=True)
class Import:
    """One module imports another, perhaps only when a function of it runs."""

    source: str
    target: str
    line: int
    lazy: bool


def find_modules(root: Path) -> dict[str, Path]:
    """The modules of both packages by their dotted name; a package has the name of its folder."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def floor_of(module: str) -> int | None:
    """The floor of a module, or None when it has been given none."""
    if module in FACES:
        return FACES[module]
    while module not in FLOORS:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return None
    return FLOORS[module]


def find_imports(source: str, modules: Mapping[str, Path]) -> Iterator[Import]:
    """The imports of one module that lead to one of `modules`, wherever in it they stand."""
    package = source if modules[source].name == "__init__.py" else source.rpartition(".")[0]
    for node, lazy in _walk(ast.parse(modules[source].read_text(encoding="utf-8")), lazy=False):
        for name in _imported_names(node, package):
            target = _nearest_module(name, modules)
            if target is not None and target != source:
                yield Import(source, target, node.lineno, lazy)


def upward_imports(root: Path) -> list[str]:
    """What goes up, as messages; a module without a floor counts as above all others."""
    modules = find_modules(root)
    found = []
    for source in modules:
        for found_import in find_imports(source, modules):
            low, high = floor_of(source), floor_of(found_import.target)
            if low is not None and (high is None or high > low):
                found.append(f"{source}:{found_import.line} (floor {low}) imports {found_import.target} (floor {high})")
    return found


def import_cycle(root: Path) -> list[str]:
    """A ring of modules that import one another while being imported, or nothing."""
    modules = find_modules(root)
    graph = {source: {i.target for i in find_imports(source, modules) if not i.lazy} for source in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _walk(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.stmt | ast.Call, bool]]:
    """Statements and calls below a node; lazy are those in functions and those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.Call):
            yield child, lazy
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        yield from _walk(child, lazy=lazy or in_function or for_types)


def _imported_names(node: ast.stmt | ast.Call, package: str) -> list[str]:
    """Absolute dotted names, each perhaps a module and perhaps a name in one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # One dot is the package itself, each further one goes out by one.
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


def _nearest_module(name: str, modules: Mapping[str, Path]) -> str | None:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for package in PACKAGES:
        files = {f"{package}/__init__.py": "", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_every_module_has_a_floor():
    modules = find_modules(ROOT)
    assert {name.partition(".")[0] for name in modules} == set(PACKAGES)
    homeless = [module for module in modules if floor_of(module) is None]
    assert not homeless, f"Give these a floor in {Path(__file__).name}: {homeless}"


def test_imports_are_found_in_the_real_tree():
    modules = find_modules(ROOT)
    assert "tfp_bnn.registry" in {i.target for i in find_imports("tfp_bnn.priors.base", modules)}


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
        ("tfp_bnn/priors.py", "import tfp_bnn.models as m", "tfp_bnn.models"),
        ("tfp_bnn/priors.py", "import tfp_bnn", "tfp_bnn"),
        ("tfp_bnn/priors.py", "def f():\n    from tfp_bnn import models", "tfp_bnn.models"),
        ("tfp_bnn/priors.py", "class C:\n    def f(self):\n        from .models import x", "tfp_bnn.models"),
        ("tfp_bnn/priors.py", "import importlib\nm = importlib.import_module('tfp_bnn.models')", "tfp_bnn.models"),
        ("tfp_bnn/models.py", "if TYPE_CHECKING:\n    import tfp_bnn.callbacks.board", "tfp_bnn.callbacks.board"),
        ("tfp_bnn/transfer.py", "from zoo.registry import REGISTRY", "zoo.registry"),
        ("tfp_bnn/__init__.py", "import zoo", "zoo"),
        ("zoo/registry.py", "from zoo import cli", "zoo.cli"),
        ("zoo/training.py", "import zoo.unheard_of", "zoo.unheard_of"),
    ],
)
def test_an_import_that_goes_up_is_reported(tmp_path, path, text, target):
    files = dict.fromkeys(
        ("tfp_bnn/models.py", "tfp_bnn/callbacks/board.py", "zoo/registry.py", "zoo/unheard_of.py"), ""
    )
    root = write_tree(tmp_path, {**files, "tfp_bnn/layers/__init__.py": "", "zoo/cli/__init__.py": "", path: text})
    (message,) = upward_imports(root)
    assert f"imports {target} (floor" in message


def test_imports_that_go_down_or_sideways_are_not_reported(tmp_path):
    files = {
        "tfp_bnn/__init__.py": "from tfp_bnn import layers, models, transfer",
        "tfp_bnn/layers/__init__.py": "from .dense import Dense",
        "tfp_bnn/layers/dense.py": "import keras\nfrom ..priors import NORMAL",
        "tfp_bnn/models.py": "from tfp_bnn.layers import Dense",
        "tfp_bnn/priors.py": "",
        "tfp_bnn/transfer.py": "from tfp_bnn.models import Model",
        "zoo/__init__.py": "def __getattr__(name):\n    import zoo.cli",
        "zoo/cli/__init__.py": "import tfp_bnn\nfrom zoo import training",
        "zoo/training.py": "import tfp_bnn",
    }
    root = write_tree(tmp_path, files)
    assert upward_imports(root) == []
    assert import_cycle(root) == []


def test_a_ring_is_reported_unless_one_link_is_lazy(tmp_path):
    files = {"tfp_bnn/models.py": "from tfp_bnn import predictive", "tfp_bnn/predictive.py": "from . import models"}
    assert set(import_cycle(write_tree(tmp_path, files))) == {"tfp_bnn.models", "tfp_bnn.predictive"}
    write_tree(tmp_path, {**files, "tfp_bnn/predictive.py": "def f():\n    from . import models"})
    assert import_cycle(tmp_path) == []
