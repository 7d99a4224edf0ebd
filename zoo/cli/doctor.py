"""The command `doctor`, which shows what is installed and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import typer

from zoo.cli.models import JsonOption
from zoo.cli.starting import start
from zoo.hub.manifest import bundled_models, read_verified, saved_models_folder, to_json

_PACKAGES = (
    "tfp_bnn",
    "tensorflow",
    "keras",
    "tensorflow-probability",
    "tf-keras",
    "numpy",
    "safetensors",
    "scikit-learn",
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("doctor", short_help="Print versions, devices and folders; check the models.")(doctor)


def doctor(json: JsonOption = False) -> None:
    """Print versions, devices and folders, check the bundled models, and exit with 1 if anything is missing."""
    # Not at the top: every command imports this module.
    from zoo.hub.remote.cache import cache_folder

    report: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    report["packages"] = {name: _version(name) for name in _PACKAGES}
    problems = [
        f"the package {name} is not installed" for name, version in report["packages"].items() if version is None
    ]
    report["devices"] = _devices(problems)
    report["saved_models"] = str(saved_models_folder())
    report["datasets_folder"] = os.environ.get("TFDS_DATA_DIR", "not set (TFDS_DATA_DIR)")
    report["cache"] = str(cache_folder())
    report["models"] = {}
    for name, entry in bundled_models().items():
        try:
            read_verified(saved_models_folder() / name, entry)
            report["models"][name] = "verified"
        except (ValueError, OSError) as error:
            report["models"][name] = "damaged"
            problems.append(str(error))
    if not report["models"]:
        problems.append("there are no bundled models")
    report["problems"] = problems
    if json:
        typer.echo(to_json(report), nl=False)
    else:
        _print(report)
    raise typer.Exit(1 if problems else 0)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> list[str]:
    try:
        start()
        import tensorflow as tf
    except ImportError as error:
        problems.append(f"import failed: {error}")
        return []
    return [device.name for device in tf.config.list_physical_devices()]


def _print(report: dict[str, Any]) -> None:
    for key, value in report.items():
        if isinstance(value, dict):
            for name, detail in value.items():
                typer.echo(f"{name:<24} {detail if detail is not None else 'missing'}")
        elif isinstance(value, list):
            typer.echo(f"{key:<24} {'; '.join(value) or 'none'}")
        else:
            typer.echo(f"{key:<24} {value}")
