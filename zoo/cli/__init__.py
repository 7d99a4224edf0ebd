"""The command line `tfp-bnn`: results on stdout, progress and messages on stderr.

Exit codes: 0 fine, 1 a check failed, 2 wrong usage or input, 130 and 143 interrupted by SIGINT and SIGTERM. A verb
imports TensorFlow only when it needs it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import typer

app = typer.Typer(
    name="tfp-bnn",
    help="Bayesian neural networks for Keras 3: load, judge and train the models of the zoo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _module in pkgutil.iter_modules(__path__):
    _verbs = importlib.import_module(f"{__name__}.{_module.name}")
    if hasattr(_verbs, "add_to"):
        _verbs.add_to(app)


def main() -> None:
    """Runs the command line; errors of usage and input become one line on stderr."""
    # TensorFlow writes its start-up notes to stderr; it reads this before its first import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except ValueError as error:
        print(f"tfp-bnn: {error}", file=sys.stderr)
        sys.exit(2)
    except (ArithmeticError, ImportError, OSError) as error:
        print(f"tfp-bnn: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
