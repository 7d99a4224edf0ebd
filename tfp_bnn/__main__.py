"""`python -m tfp_bnn` runs the command `tfp-bnn` of this distribution, which starts faster: it imports less."""

from importlib.metadata import distribution

# By its entry point: this package knows nothing of the one that has the commands.
(command,) = distribution("tfp_bnn").entry_points.select(group="console_scripts", name="tfp-bnn")
command.load()()
