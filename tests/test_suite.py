"""The test suite itself: the smoke tests of `.ci/run` exist and leave no room out."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = [line for line in (ROOT / "tests/smoke.txt").read_text("utf-8").splitlines() if not line.startswith("#")]


def test_every_smoke_test_exists():
    for line in SMOKE:
        path, *names = line.split("::")
        assert (ROOT / path).exists(), line
        for name in names:
            assert f"{name}(" in (ROOT / path).read_text("utf-8") or f"class {name}:" in (ROOT / path).read_text(), line


def test_every_room_with_tests_has_a_smoke_test():
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/*/**/test_*.py")}
    rooms = {"/".join(room.split("/")[:3]) for room in rooms}
    smoked = {"/".join(line.split("/")[:3]) for line in SMOKE}
    assert len(rooms) > 12
    assert {room for room in rooms if room not in smoked} == set()
