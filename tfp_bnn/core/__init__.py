"""Foundations: registries, argument checks, noise, draws, and all uses of Keras' private API."""
