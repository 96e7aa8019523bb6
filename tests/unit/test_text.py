"""Numbers with nouns, and aligned columns."""

from metaopt.core.text import aligned, counted


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
