"""`python -m tfp_bnn` runs the command `tfp-bnn` of this distribution."""

import sys
from importlib.metadata import distribution

# By its entry point: this package knows nothing of the one that has the commands.
(command,) = distribution("tfp_bnn").entry_points.select(group="console_scripts", name="tfp-bnn")
if not hasattr(sys.modules["tfp_bnn"], "layers"):
    # It left its contents out for this file, see there. Commands that need them import all of it.
    del sys.modules["tfp_bnn"]
command.load()()
