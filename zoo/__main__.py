"""`python -m zoo` is the command line `tfp-bnn`."""

from zoo.cli import main

main()
