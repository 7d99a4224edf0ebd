"""Artifacts on the network: addresses, bounded downloads, the cache, the Hugging Face Hub and indexes of others."""
