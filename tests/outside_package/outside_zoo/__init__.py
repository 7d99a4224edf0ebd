"""Importing this package registers all that it brings."""

import zoo
from outside_zoo import architectures, datasets, likelihoods, priors, recipes

__all__ = ["architectures", "datasets", "likelihoods", "priors"]

zoo.register_recipes(recipes)
