"""Common basis of the zoo: names, schemas, files, lazy imports. Imports nothing heavy."""
