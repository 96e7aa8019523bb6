"""A parameter has the same value from a flag, a file and Python, and raises if the value breaks its rule."""

import pytest

from metaopt.core.config import Config, Options, Range, option, read_config_file
from metaopt.core.errors import InvalidConfig


class Settings(Config):
    epochs: int = option(default=10, help="Epochs.", at_least=1)
    lr: Range = option(default=Range(1e-3, 1e-3), help="Learning rate.", above=0.0)
    widths: tuple[int, ...] = option(default=(1,), help="Widths.")
    rates: tuple[float, ...] = option(default=(), help="Rates.", above=0.0)
    options: Options = option(default={}, help="Anything.")
    mode: str = option(default="slow", help="Mode.", choices=("slow", "fast"))
    note: str | None = option(default=None, help="A note.")


def test_text_of_a_flag_is_converted_to_the_declared_type():
    settings = Settings(
        epochs="3", lr="5e-4:3e-3", widths="16,32", options="eps=1e-8 betas=[0.9,1e-3] name=x limit=None", note="none"
    )
    options = {"eps": 1e-8, "betas": [0.9, 1e-3], "name": "x", "limit": None}
    assert settings == Settings(3, Range(5e-4, 3e-3), (16, 32), options=options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1e-3, 0.01", (1e-3, 1e-2)), ([1, 2.5], (1.0, 2.5)), (0.5, (0.5,)), ("none", ()), (None, ())],
)
def test_a_tuple_is_read_from_text_a_list_or_one_number(given, expected):
    assert Settings(rates=given).rates == expected


@pytest.mark.parametrize("text", ["options: {eps: 1e-8}\nepochs: 3", '{"options": {"eps": 1e-08}, "epochs": 3}'])
def test_a_small_number_in_a_file_is_a_number(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert Settings.from_mapping(read_config_file(path)) == Settings(epochs=3, options={"eps": 1e-8})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected 1 or more"),
        ({"epochs": 1.5}, r"epochs is 1\.5; expected a whole number"),
        ({"epochs": True}, "expected a whole number"),
        ({"epochs": "inf"}, "expected a whole number"),
        ({"epochs": "1e400"}, "expected a whole number"),
        ({"epochs": 10**400}, "epochs is a whole number of 1,329 bits"),
        ({"epochs": "1e30"}, "expected a whole number of at most 64 bits"),
        ({"lr": 10**400}, "expected a finite number"),
        ({"widths": "1,inf"}, "expected whole numbers"),
        ({"note": {"a": 1}}, "expected a text"),
        ({"note": "a\0b"}, "expected a text"),
        ({"note": "\udcff"}, "expected a text"),
        ({"options": {1: 2}}, "expected names and values"),
        ({"options": "a=1 a=2"}, "expected names and values"),
        ({"options": "a=[1"}, "expected names and values"),
        ({"options": "a=" + "[" * 1000}, "expected names and values"),
        ({"lr": "fast"}, "expected a number or low:high"),
        ({"lr": "0"}, "expected more than 0"),
        ({"lr": "inf"}, "expected a finite number"),
        ({"rates": "1e-3,fast"}, r"expected numbers such as 0\.001,0\.01"),
        ({"rates": [1e-3, 0]}, "expected more than 0"),
        ({"options": "eps"}, "expected names and values"),
        ({"mode": "fats"}, "did you mean fast"),
        ({"epoch": 1}, "did you mean epochs"),
    ],
)
def test_an_invalid_value_raises_with_the_name_of_its_parameter(values, message):
    with pytest.raises(InvalidConfig, match=message):
        Settings.from_mapping(values)


@pytest.mark.parametrize("text", ["just words", "- a\n- b", "a: [", "\x00"])
def test_a_file_without_names_and_values_raises(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=r"config\.yaml"):
        read_config_file(path)
    with pytest.raises(InvalidConfig, match="cannot read"):
        read_config_file(tmp_path / "none.yaml")


def test_a_range_has_a_log_scale():
    assert [Range(1e-4, 1e-2).at(fraction) for fraction in (0, 0.5, 1)] == pytest.approx([1e-4, 1e-3, 1e-2])


def test_a_whole_number_in_text_is_exact():
    assert Settings(epochs=str(2**63 - 1)).epochs == 2**63 - 1


def test_both_names_of_a_renamed_parameter_are_an_error():
    class Renamed(Config):
        renamed = {"old": "new"}  # noqa: RUF012
        new: int = option(default=1, help="A number.")

    with pytest.warns(DeprecationWarning, match="old"), pytest.raises(InvalidConfig, match="give new only"):
        Renamed.from_mapping({"new": 1, "old": 2})


def test_a_parameter_that_cannot_be_given_says_why():
    class Paired(Config):
        absent = dict.fromkeys(["controller"], "runs are paired")
        steps: int = option(default=1, help="A number.")

    with pytest.raises(InvalidConfig, match="controller cannot be given: runs are paired"):
        Paired.from_mapping({"run_name": "x", "controller": "heuristic"})
