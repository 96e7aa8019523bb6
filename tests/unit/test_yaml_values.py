"""Files of configurations follow YAML 1.2 or are refused with the line; no file takes long or much memory."""

import time

import pytest

from metaopt.core.config import Config, option, read_config_file
from metaopt.core.errors import InvalidConfig
from metaopt.core.yaml_values import MOST_CHARACTERS, read_value

BOMB = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 30)
)


class Named(Config):
    run_name: str = option(default="x", help="A name.")
    batch_size: int = option(default=1, help="A number.")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e-3", 1e-3),
        ("-.5", -0.5),
        ("12e03", 12000.0),
        ("TRUE", True),
        ("~", None),
        ("", None),
        ("!!int '5'", 5),
        ("{a: &x [1, 2], b: *x}", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_yaml_has_the_core_schema_of_1_2(text, value):
    read = read_value(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 4, column 38: more than 10,000 values"),
        ("a: &a [*a]", r"line 1, column 8: \*a refers to itself"),
        ("a: " + "[" * 1000, "line 1, column 35: nested more than 32 deep"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2, column 4: the tag"),
        ("a: !!binary aGk=", "line 1, column 4: the tag"),
        ("a: !!set {x}", "line 1, column 4: the tag"),
        ("a: !!timestamp 2020-01-01", "line 1, column 4: the tag"),
        ("a: !!bool yes", "line 1, column 4: 'yes' is no valid bool"),
        ("a: !!map [1]", "line 1, column 4: expected names with values"),
        ("epochs: 1\nepochs: 2", "line 2, column 1: 'epochs' is given twice, first in line 1"),
        ("batch-size: 1\nbatch_size: 2", "line 2, column 1: 'batch_size' is given twice"),
        ("x: {a: 1, a: 2}", "'a' is given twice"),
        ("1: a", "line 1, column 1: expected a name"),
        (".nan: a", "expected a name"),
        ("[a]: b", "expected a name"),
        ("<<: {a: 1}", "<< is not part of YAML 1.2"),
        ("a: 1e400", "'1e400' is no valid float"),
        ("a: .inf", "no valid float"),
        ("a: 010", "line 1, column 4: '010' is no valid int"),
        ("a: " + "9" * 5000, "is no valid int"),
        ("a: [3", "line 1, column 6: while parsing"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
        ("\0", "special characters are not allowed"),
        ("x" * (MOST_CHARACTERS + 1), "characters; expected at most"),
    ],
)
def test_other_yaml_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(InvalidConfig, match=message) as raised:
        read_value(text)
    assert len(str(raised.value)) < 400
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig, match=r"config\.yaml is not YAML"):
        read_config_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"batch-size": 1, "batch_size": 2}', "is given twice"),
        ('{"a": NaN}', "not finite"),
        ('{"a": -Infinity}', "not finite"),
        ('{"a": 1e400}', "not finite"),
        ('{"a": ' + "9" * 5000 + "}", "is not a number"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested more than 32 deep"),
        ('{"a": ' + "[" * 100_000, "nested more than 32 deep"),
        ('{"a": }', "line 1 column 7"),
        ('{"a": "' + "x" * MOST_CHARACTERS + '"}', "expected at most"),
    ],
)
def test_json_is_checked_alike(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig, match=message) as raised:
        read_config_file(path)
    assert "config.json is not JSON" in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(path))


def test_json_with_tabs_and_escapes_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n\t"run_name": "\\ud83d\\ude00", "batch-size": 2}', encoding="utf-8")
    assert Named.from_mapping(read_config_file(path)) == Named("\N{GRINNING FACE}", 2)


@pytest.mark.parametrize("text", ["no", "1:30", "2024-01-01", "7", "1_0", "0x"])
def test_a_text_stays_as_it_is_written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(f"run_name: {text}\n", encoding="utf-8")
    assert Named.from_mapping(read_config_file(path)).run_name == text


@pytest.mark.parametrize("text", ["010", "1.10", "1e3", "true", "null", "[a]"])
def test_what_would_not_stay_as_it_is_written_is_no_text(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(f"run_name: {text}\n", encoding="utf-8")
    with pytest.raises(InvalidConfig, match="in quotes"):
        Named.from_mapping(read_config_file(path))


@pytest.mark.parametrize("path", ["/dev/zero", "/", "missing.yaml", "x" * 300])
def test_a_path_that_is_no_file_of_values_is_an_error(tmp_path, path):
    with pytest.raises(InvalidConfig) as raised:
        read_config_file(tmp_path / path)
    assert len(str(raised.value)) < 700


def test_the_largest_file_takes_seconds_at_most(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"a{number}: [1, 2, 3]\n" for number in range(12_000)), encoding="utf-8")
    start = time.process_time()
    with pytest.raises(InvalidConfig, match="more than 10,000 values"):
        read_config_file(path)
    assert time.process_time() - start < 30
