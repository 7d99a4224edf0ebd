"""The one part of the packaging that `setup.cfg` cannot say: found packages and a mapped one, together."""

from pathlib import Path

from setuptools import find_packages, setup

# A checkout from which no model has been trained yet can be installed too.
BUNDLED = {"zoo.saved_models": "saved_models"} if Path("saved_models").is_dir() else {}

setup(
    packages=[*find_packages(include=["tfp_bnn", "tfp_bnn.*", "zoo", "zoo.*"]), *BUNDLED],
    package_dir=BUNDLED,
)
