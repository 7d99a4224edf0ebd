"""Common basis of the zoo: names, validation by schemas, files, lazy imports. Nothing here imports TensorFlow."""
