"""Names and types that code declares, read from its text: an import of it takes seconds, with TensorFlow."""

from __future__ import annotations

import ast
import builtins
import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

_PLAIN = ("int", "float", "bool", "str")
_BOUNDS = ("strict", "ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")


@dataclass(frozen=True)
class Allowed:
    """What an annotation allows.

    Attributes:
        texts: Texts of a `Literal`.
        schemas: Names of schemas, for mappings.
        others: Names of all other types; `"None"` is left out.
    """

    texts: tuple[str, ...]
    schemas: tuple[str, ...]
    others: frozenset[str]


class Declarations:
    """Classes, aliases of types and registered names of some files.

    Args:
        *places: Files, and folders whose Python files are read, once, when they are first asked for something.
    """

    def __init__(self, *places: Path) -> None:
        self._places = places

    def registered(self, decorator: str) -> list[str]:
        """Returns the names that a decorator registers at the top level of the files, sorted.

        Args:
            decorator: As in the code, such as `"PRIORS.register"`.
        """
        return sorted(self._registrations(decorator))

    def class_of(self, decorator: str, name: str) -> str:
        """Returns the name of the class that is registered, or that is the second argument of the decorator."""
        node, call = self._registrations(decorator)[name]
        return ast.unparse(call.args[1]) if len(call.args) > 1 else node.name

    def fields(self, schema: str) -> dict[str, ast.expr]:
        """Returns the annotations of a class and its bases, by the name of the field."""
        found: dict[str, ast.expr] = {}
        for owner in reversed(self._with_bases(schema)):
            for node in owner.body:
                if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                    continue
                if not ast.unparse(node.annotation).startswith("ClassVar"):
                    found[node.target.id] = node.annotation
        return found

    def arguments(self, name: str) -> list[str] | None:
        """Returns the arguments of a constructor; None if it takes any. See `constructor_arguments` of the library."""
        found: list[str] = []
        for owner in self._with_bases(name):
            constructor = next((node for node in owner.body if getattr(node, "name", "") == "__init__"), None)
            if not isinstance(constructor, ast.FunctionDef):
                continue
            _, *positional = constructor.args.args
            found += [argument.arg for argument in (*positional, *constructor.args.kwonlyargs)]
            if constructor.args.kwarg is None:
                return list(dict.fromkeys(found))
        return None if found else []

    def allowed(self, annotation: ast.expr) -> Allowed:
        """Returns what an annotation allows."""
        parts = list(self._parts(annotation))
        names = {part for part in parts if isinstance(part, str)}
        schemas = tuple(name for name in sorted(names) if name in self._classes)
        return Allowed(
            tuple(part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)),
            schemas,
            frozenset(names - set(schemas) - {"None"}),
        )

    def alias(self, name: str) -> Allowed:
        """Returns what an alias of a type allows."""
        return self.allowed(self._aliases[name])

    def type_of(self, annotation: ast.expr) -> Any:
        """Returns the type that an annotation stands for, with its bounds.

        Pydantic validates against it as against the annotation itself. `Any` stands for what is not declared here, so
        nothing is refused for it, and a mapping for a schema.
        """
        match annotation:
            case ast.Constant(value=None):
                return None
            case ast.Name(name) if name in _PLAIN:
                return getattr(builtins, name)
            case ast.Name(name) if name in self._aliases:
                return self.type_of(self._aliases[name])
            case ast.Name(name) if name in self._classes:
                return dict[Any, Any]
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                types = [self.type_of(left), self.type_of(right)]
                return Any if Any in types else functools.reduce(operator.or_, types)
            case ast.Subscript(value=ast.Name("Literal"), slice=values):
                return Literal[tuple(part.value for part in ast.walk(values) if isinstance(part, ast.Constant))]
            case ast.Subscript(value=ast.Name("Annotated"), slice=ast.Tuple(elts=[first, *others])):
                of = self.type_of(first)
                return Any if of is Any else Annotated[of, Field(**self._bounds(others))]
            case ast.Subscript(value=ast.Name("dict"), slice=ast.Tuple(elts=[key, value])):
                return dict[self.type_of(key), self.type_of(value)]  # type: ignore[misc]
            case ast.Subscript(value=ast.Name("tuple"), slice=parts):
                elements = parts.elts if isinstance(parts, ast.Tuple) else [parts]
                types = [... if isinstance(part, ast.Constant) else self.type_of(part) for part in elements]
                return tuple[tuple(types)]  # type: ignore[misc]
        return Any

    def _bounds(self, others: Sequence[ast.expr]) -> dict[str, Any]:
        """The bounds in the fields of an annotation, by name. One that is declared elsewhere is left out."""
        fields = [call for call in others if isinstance(call, ast.Call) and ast.unparse(call.func) == "Field"]
        found = {word.arg: self._constant(word.value) for call in fields for word in call.keywords}
        return {name: value for name, value in found.items() if name in _BOUNDS and value is not None}

    def _constant(self, node: ast.expr) -> Any:
        """A number or a truth value, or None for anything else."""
        match node:
            case ast.Name(name):
                return self._constant(self._aliases[name]) if name in self._aliases else None
            case ast.BinOp(left=ast.Constant(value=int(base)), op=ast.Pow(), right=ast.Constant(value=int(power))):
                return base**power
        try:
            return ast.literal_eval(node)
        except ValueError:
            return None

    def _parts(self, annotation: ast.expr) -> Iterator[ast.Constant | str]:
        """The values of literals, and the names of types."""
        match annotation:
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                yield from self._parts(left)
                yield from self._parts(right)
            case ast.Subscript(value=ast.Name("Literal"), slice=values):
                yield from (part for part in ast.walk(values) if isinstance(part, ast.Constant))
            case ast.Subscript(value=ast.Name("Annotated"), slice=ast.Tuple(elts=[first, *_])):
                yield from self._parts(first)
            case ast.Subscript(value=value):
                yield ast.unparse(value)
            case ast.Name(name) if name in self._aliases:
                yield from self._parts(self._aliases[name])
            case _:
                yield ast.unparse(annotation)

    def _with_bases(self, name: str) -> list[ast.ClassDef]:
        """A class and its bases in these files, in the order in which Python looks at them for one base each."""
        if name not in self._classes:
            return []
        found = self._classes[name]
        return [found, *(owner for base in found.bases for owner in self._with_bases(ast.unparse(base)))]

    def _registrations(self, decorator: str) -> dict[str, tuple[ast.ClassDef | ast.FunctionDef, ast.Call]]:
        return {
            str(call.args[0].value): (node, call)
            for node in self._statements
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            for call in node.decorator_list
            if isinstance(call, ast.Call) and ast.unparse(call.func) == decorator
            if call.args and isinstance(call.args[0], ast.Constant)
        }

    @cached_property
    def _statements(self) -> Sequence[ast.stmt]:
        files = [path for place in self._places for path in (sorted(place.glob("*.py")) if place.is_dir() else [place])]
        return [node for path in files for node in _read(path)]

    @cached_property
    def _classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self._statements if isinstance(node, ast.ClassDef)}

    @cached_property
    def _aliases(self) -> dict[str, ast.expr]:
        return _aliases_in(self._statements)


class _Written(ast.NodeTransformer):
    """Writes out the aliases that a file keeps to itself: another file may have one of the same name."""

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        self._own = {name: value for name, value in _aliases_in(statements).items() if name.startswith("_")}

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = self.visit(node.annotation)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._own.get(node.id, node) if isinstance(node.ctx, ast.Load) else node


def _read(path: Path) -> list[ast.stmt]:
    statements = ast.parse(path.read_text("utf-8")).body
    written = _Written(statements)
    for node in statements:
        if isinstance(node, ast.ClassDef):
            node.body = [written.visit(part) if isinstance(part, ast.AnnAssign) else part for part in node.body]
    return statements


def _aliases_in(statements: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    return {
        node.targets[0].id: node.value
        for node in statements
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
