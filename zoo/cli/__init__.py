"""The command line `tfp-bnn`. Results go to stdout, progress and messages to stderr.

Exit codes: 0 success, 1 a check failed, 2 bad usage or input, 130 and 143 interrupted by SIGINT and SIGTERM. A command
only imports TensorFlow if it needs it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import warnings
from typing import Annotated, Any

import typer

from zoo.cli.starting import start
from zoo.core.shown import printable

app = typer.Typer(
    name="tfp-bnn",
    help="Bayesian neural networks for Keras 3: load, evaluate and train the models of the zoo.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _module in pkgutil.iter_modules(__path__):
    _verbs = importlib.import_module(f"{__name__}.{_module.name}")
    if hasattr(_verbs, "add_to"):
        _verbs.add_to(app)
# In the order of a first visit; commands that are not named here come last.
_ORDER = "demo list show predict evaluate train finetune compare prune export push index verify doctor".split()
app.registered_commands.sort(key=lambda command: [*_ORDER, command.name].index(command.name))


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"tfp-bnn {importlib.metadata.version('tfp_bnn')}")
        except importlib.metadata.PackageNotFoundError:
            typer.echo("tfp-bnn, a checkout that was never installed")
        raise typer.Exit


@app.callback()
def before_the_verb(
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Module that registers architectures, datasets, ... Can be repeated."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Bayesian neural networks for Keras 3: load, evaluate and train the models of the zoo."""
    if plugin:
        # Unlike `python`, an installed program does not search the current folder for modules.
        sys.path.append(os.getcwd())
        for module in plugin:
            _check_module(module)
        start()
        from tfp_bnn.core.plugins import load_plugins

        load_plugins(*plugin, source="--plugin")


def main() -> None:
    """Runs the command line. Errors in usage or input are printed as one line on stderr."""
    # Silences the start-up messages of TensorFlow, which reads this variable on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.showwarning = _show_warning
    try:
        app(prog_name="tfp-bnn")
    except ValueError as error:
        print(f"tfp-bnn: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except (ArithmeticError, ImportError, OSError) as error:
        print(f"tfp-bnn: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Prints a warning for users on one line, without the place in the code; others are for developers."""
    if issubclass(category, UserWarning):
        print(f"tfp-bnn: warning: {printable(str(message))}", file=sys.stderr)


def _check_module(name: str) -> None:
    """Checks early that a module exists. Of a dotted name, only the first part can be found without importing it."""
    package = name.partition(".")[0]
    found = package.isidentifier() and importlib.util.find_spec(package) is not None
    if not found:
        raise ValueError(
            f"There is no module {name!r} for --plugin. Give the dotted name of a module that Python can import, such "
            "as my_package or my_package.plugin: install its package, put its folder on PYTHONPATH, or go there."
        )
