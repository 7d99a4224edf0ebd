"""Names of the zoo in messages."""

from __future__ import annotations

import pytest

from tfp_bnn.core import registry
from zoo.core import names


@pytest.mark.parametrize("name", ["digitz", "q" * 300, 3, ""])
def test_unknown_names_are_refused_with_and_without_tensorflow_in_the_same_words(name):
    known = ["digits", "iris", "moons", "wine", "mnist", "diabetes", "cifar10"]
    assert names.unknown_name_message("dataset", name, known) == registry.unknown_name_message("dataset", name, known)
