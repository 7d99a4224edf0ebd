"""`python -m tfp_bnn` is the command line `tfp-bnn`, which starts faster because it only imports what it needs."""

from zoo.cli import main

main()
