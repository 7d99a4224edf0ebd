"""What the rooms of the zoo stand on: names, schemas, files, lazy imports. Imports nothing heavy."""
