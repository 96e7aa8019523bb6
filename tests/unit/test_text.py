"""Numbers with nouns, aligned columns, and values in messages."""

from types import MappingProxyType

import pytest

from metaopt.core.text import aligned, bytes_text, counted, printable, shown


def test_a_noun_follows_its_number():
    assert [counted(number, "epoch") for number in (0, 1, 2, 1200)] == [
        "0 epochs",
        "1 epoch",
        "2 epochs",
        "1,200 epochs",
    ]


def test_columns_are_as_wide_as_their_longest_cell():
    assert aligned([("a", "bcd", ""), ("efg", "h", "i")]) == ["a    bcd", "efg  h    i"]
    assert aligned([]) == []


def test_sizes_have_decimal_units():
    sizes = (0, 999, 1000, 19_999_150_848, 5 * 10**12)
    assert [bytes_text(size) for size in sizes] == ["0 bytes", "999 bytes", "1 kB", "20 GB", "5 TB"]


def test_control_characters_are_escaped_and_others_stay():
    assert printable("blocks.0–29 ×") == "blocks.0–29 ×"
    assert printable("\x1b[31m\n\u202eü'") == r"\x1b[31m\n\u202e" + "ü'"


def nested(depth, width=10):
    value = ["lol"] * width
    for _ in range(depth):
        value = [value] * width
    return value


class Text(str):
    """A subclass, whose `repr` would be the whole text."""


CIRCLE: dict[str, object] = {}
CIRCLE["itself"] = CIRCLE


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000,
        Text("x" * 100_000),
        b"x" * 100_000,
        10**10_000,
        nested(30),
        {"a": nested(30)},
        MappingProxyType({str(number): number for number in range(10_000)}),
        set(range(10_000)),
        CIRCLE,
        {"x" * 10_000: "y" * 10_000},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_in_a_message_is_short(value):
    assert 0 < len(shown(value)) <= 200


@pytest.mark.parametrize("value", ["it's", 1.5, True, None, [1, "a"], {"a": {"b": (1,)}}, b"x", 10**20])
def test_a_short_value_is_shown_as_it_is(value):
    assert shown(value) == repr(value)
