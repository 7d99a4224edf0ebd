"""Recipes: the YAML files next to this one."""
