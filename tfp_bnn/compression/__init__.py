"""Compression: networks with fewer weights, chosen by what the posterior says of each."""

from tfp_bnn.compression.pruning import Criterion, prune, sparsity

__all__ = ["Criterion", "prune", "sparsity"]
