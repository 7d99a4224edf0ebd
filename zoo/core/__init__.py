"""Common basis of the zoo: names, validation by schemas, files, lazy imports.

Only `validation` imports TensorFlow: it takes its messages from `tfp_bnn`.
"""
