"""How the command line is run in tests."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from zoo.cli import app, main


@pytest.fixture
def tfp_bnn(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the program in this process: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tfp-bnn", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        output = capfd.readouterr()
        assert "Traceback" not in output.err
        return int(caught.value.code or 0), output.out, output.err

    return run


@pytest.fixture(scope="session")
def run() -> Callable[..., str]:
    """A function that runs a command, which must succeed, and returns what it prints."""

    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke
