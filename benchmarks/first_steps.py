"""Runs the five commands of docs/first_steps.md as a newcomer does, and writes what they print into the guide.

Run: `python benchmarks/first_steps.py` (minutes). The photographs are made by the first example of the guide, in a new
folder, and all commands must succeed. With `--check`, nothing is written.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "docs" / "first_steps.md"
_RECORD = re.compile(r"(<!-- commands: [^>]*-->\n)```console\n(.*?)```\n(<!-- /commands -->)", re.DOTALL)
_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands_of(guide: str) -> list[str]:
    """The command lines that a guide records."""
    found = _RECORD.search(guide)
    if found is None:
        raise ValueError(f"{GUIDE} has no commands.")
    return re.findall(r"^\$ (.*)$", found[2], re.MULTILINE)


def recorded(guide: str, folder: Path) -> str:
    """The guide with what its commands print in a folder, in which its example makes the photographs."""
    example = _EXAMPLE.search(guide)
    subprocess.run([sys.executable, "-c", example[1]], cwd=folder, check=True)  # noqa: S603
    lines = []
    for command in commands_of(guide):
        program, *arguments = shlex.split(command)
        words = [sys.executable, "-m", "zoo", *arguments] if program == "tfp-bnn" else [program, *arguments]
        done = subprocess.run(  # noqa: S603
            words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(f"$ {command}\n{done.stdout}", flush=True)
        if done.returncode:
            raise SystemExit(f"The command ended with {done.returncode}.")
        lines += [f"$ {command}", *done.stdout.replace(str(folder), ".").splitlines()]
    text = "\n".join(line.rstrip() for line in lines)
    return _RECORD.sub(lambda found: f"{found[1]}```console\n{text}\n```\n{found[3]}", guide)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        written = recorded(GUIDE.read_text("utf-8"), Path(temporary).resolve())
    if "--check" not in sys.argv:
        GUIDE.write_text(written, "utf-8")
