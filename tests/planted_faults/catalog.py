"""The planted faults of the YAML files next to this one: what each changes, and the tests that must catch it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


class FaultError(ValueError):
    """Raised if a fault no longer fits the code or the tests."""


@dataclass(frozen=True)
class Fault:
    """One mistake in one file of the product.

    Args:
        title: What is wrong, in one line.
        file: Path of the file, from the root of the repository.
        find: Text that occurs exactly once in the file.
        replace: Text to replace it with.
        tests: Node ids of the tests that must catch it. At least one must fail.
    """

    title: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Changes the file below `root` and returns what it was before.

        Raises:
            FaultError: If the text to find does not occur exactly once in the file.
        """
        path = root / self.file
        before = path.read_text("utf-8") if path.is_file() else ""
        count = before.count(self.find)
        if count != 1:
            raise FaultError(
                f"The planted fault {self.title!r} expects this text in {self.file} once, but it is there {count} "
                f"times:\n{self.find}\nBring tests/planted_faults up to date with the code."
            )
        path.write_text(before.replace(self.find, self.replace), "utf-8")
        return before


def load_faults() -> list[Fault]:
    """All faults, file by file.

    Raises:
        FaultError: If an entry has other keys than a fault.
    """
    faults = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text("utf-8")):
            if set(entry) != set(Fault.__dataclass_fields__):
                raise FaultError(f"{path.name}: got the keys {sorted(entry)} of {entry.get('title')!r}.")
            faults.append(Fault(**{**entry, "tests": tuple(entry["tests"])}))
    return faults
