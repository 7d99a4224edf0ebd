"""Compression: networks with fewer weights or units, chosen by what the posterior says of each."""

from tfp_bnn.compression.importance import Criterion
from tfp_bnn.compression.pruning import prune, sparsity
from tfp_bnn.compression.shrinking import shrink

__all__ = ["Criterion", "prune", "shrink", "sparsity"]
