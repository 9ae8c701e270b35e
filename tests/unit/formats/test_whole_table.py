"""A table over an enum must have every member: the check runs when a module is imported."""

from enum import Enum

import pytest

from app.core.whole_table import whole_table


class Colour(Enum):
    RED = 1
    BLUE = 2


def test_a_whole_table_is_given_back() -> None:
    table = {Colour.RED: "r", Colour.BLUE: "b"}
    assert whole_table(Colour, table) is table


def test_a_member_without_an_entry_is_named() -> None:
    with pytest.raises(ValueError, match="Colour has no entry for BLUE"):
        whole_table(Colour, {Colour.RED: "r"})
