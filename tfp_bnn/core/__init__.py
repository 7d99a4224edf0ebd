"""What everything else stands on: registries, argument checks, noise, draws, and Keras' private API in one place."""
