"""Messages of the schemas."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from zoo.core.validation import Strict, validate


class Shapes(Strict):
    shape: Annotated[tuple[Annotated[int, Field(le=10)], ...], Field(min_length=1)]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((12,), "It: 'shape.0' got 12: Input should be less than or equal to 10"),
        ((), "It: 'shape' got (): Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_a_list_is_too_short_only_if_it_is(shape, says):
    """Pydantic counts the items that are right."""
    with pytest.raises(ValueError, match=r"^It: ") as caught:
        validate(Shapes, {"shape": shape}, "It")
    assert str(caught.value) == says
