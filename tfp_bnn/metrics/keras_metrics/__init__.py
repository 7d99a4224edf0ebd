"""Keras metrics: the functions of `tfp_bnn.metrics`, batch by batch, with and without samples."""
