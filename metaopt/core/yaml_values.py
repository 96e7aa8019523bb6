"""Reads YAML and JSON that somebody else may have written: plain values only, with limits, errors with line numbers.

YAML follows the core schema of YAML 1.2: `no`, `1:30` and `2024-01-01` are texts. PyYAML alone reads YAML 1.1, where
they are false, ninety and a date. Whole numbers with a leading zero and numbers that are not finite are refused.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import InvalidConfig
from .text import shortened, shown

MOST_CHARACTERS = 2**18
"""Largest file or text; larger ones take PyYAML seconds [characters]."""
MOST_VALUES = 10_000
"""Most values in a file, where each alias counts as all that it stands for [count]."""
DEEPEST = 32
"""Most mappings and lists within each other [count]."""

_TAG = "tag:yaml.org,2002:"


def read_value(text: str) -> Any:
    """Parse a YAML value; `1e-3` is a number.

    Raises:
        InvalidConfig: the text is not YAML, or not YAML that a configuration may contain; states the line.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidConfig(f"{shown(text)} has {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f"{error.context}, " if error.context else ""
        raise InvalidConfig(f"{line}{shortened(context + (error.problem or 'not YAML'))}") from error
    except yaml.YAMLError as error:
        raise InvalidConfig(shortened(str(error))) from error


def read_values_file(path: Path) -> Any:
    """Read a JSON file (`.json`) or a YAML file (any other name).

    Raises:
        InvalidConfig: the file cannot be read, is too large, or is not YAML or JSON that a configuration may contain.
    """
    kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
    try:
        with path.open("rb") as file:
            data = file.read(4 * MOST_CHARACTERS + 1)  # a character has at most 4 bytes
        if len(data) > 4 * MOST_CHARACTERS:
            raise InvalidConfig(f"it has more than {4 * MOST_CHARACTERS:,} bytes")
        text = data.decode("utf-8-sig")
        return _read_json(text) if kind == "JSON" else read_value(text)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidConfig | UnicodeDecodeError):
            raise InvalidConfig(f"{path} is not {kind} that a configuration may contain: {error}") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidConfig(f"cannot read the configuration {shortened(str(path))}: {reason}") from error


def lines_of_names(path: Path) -> dict[tuple[str, ...], int]:
    """The line of each name in a YAML file, by the names that lead to it; empty for JSON and for what cannot be read.

    Numbers of the elements of lists are part of the way (`("jobs", "0", "name")`), and `-` in a name is `_`.
    """
    if path.suffix.lower() == ".json":
        return {}
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig")[:MOST_CHARACTERS], Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(_lines(node, ()))


def _lines(node: Node | None, way: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            place = (*way, str(key.value).replace("-", "_"))
            yield place, key.start_mark.line + 1
            yield from _lines(value, place)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*way, str(index)))


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2, without tags of other types and within the limits."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - types-PyYAML declares no class variable
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._sizes: dict[Node, int] = {}

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node, and count its values; an alias has as many as the node that it stands for."""
        event, before = self.peek_event(), self._values
        self._depth += 1
        if self._depth > DEEPEST:
            raise _error(f"nested more than {DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _error(f"*{event.anchor} refers to itself", event)
            self._values += self._sizes[node]
        else:
            self._values += 1
            self._sizes[node] = self._values - before
        if self._values > MOST_VALUES:
            raise _error(f"more than {MOST_VALUES:,} values, aliases included", event)
        return node

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping from unique names."""
        if not isinstance(node, MappingNode):
            raise _error("expected names with values", node)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != f"{_TAG}str" or not isinstance(key, ScalarNode):
                raise _error('expected a name; write numbers and other values that are names in "quotes"', key)
            if key.value == "<<" and key.style is None:
                raise _error("<< is not part of YAML 1.2; write the values out", key)
            name = key.value.replace("-", "_")
            if name in lines:
                raise _error(f"{shown(key.value)} is given twice, first in line {lines[name]}", key)
            lines[name] = key.start_mark.line + 1
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _error(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _scalar(read: Any) -> Any:
    def construct(loader: _Loader, node: Node) -> Any:
        text = loader.construct_scalar(node)  # type: ignore[arg-type]
        try:
            return read(text)
        except (KeyError, ValueError, OverflowError) as error:
            kind = node.tag.removeprefix(_TAG)
            hint = "write a text in quotes, a number as 10 or 1e-3"
            raise _error(f"{shown(text)} is no valid {kind}; {hint}", node) from error

    return construct


def _read_whole(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
        raise ValueError(text)  # ten in YAML 1.2, eight in YAML 1.1, and as a text it would lose its zero
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text, 10)


def _finite(text: str) -> float:
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(number):
        raise ValueError(f"{shown(text)} is not finite; expected a number within ±1.8e308")
    return number


def _undefined(loader: _Loader, node: Node) -> Any:
    raise _error(f"the tag {shown(node.tag)} is not allowed; expected numbers, texts, true, false, lists, names", node)


_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_CORE: Iterable[tuple[str, str, str, Any]] = (
    ("null", r"~|null|Null|NULL|", "~nN", lambda text: None),
    ("bool", "|".join(_BOOLEANS), "tTfF", _BOOLEANS.__getitem__),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _read_whole),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        lambda text: _finite(text.lower()),
    ),
)
"""Scalars of the core schema (YAML 1.2.2, section 10.3.2): type, pattern, first characters, reader."""

for _name, _pattern, _first, _read in _CORE:
    characters = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), characters)
    _Loader.add_constructor(f"{_TAG}{_name}", _scalar(_read))
_Loader.yaml_constructors |= {
    f"{_TAG}str": _Loader.construct_yaml_str,
    f"{_TAG}seq": _Loader.construct_yaml_seq,
    f"{_TAG}map": _Loader.construct_yaml_map,
    None: _undefined,
}


def _read_json(text: str) -> Any:
    if len(text) > MOST_CHARACTERS:
        raise InvalidConfig(f"it has {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique_names, parse_float=_finite, parse_int=_short_whole, parse_constant=_finite
        )
    except RecursionError as error:
        raise InvalidConfig(f"nested more than {DEEPEST} deep") from error
    except ValueError as error:
        raise InvalidConfig(str(error)) from error
    _check_depth(value, DEEPEST)
    return value


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: set[str] = set()
    for name, _ in pairs:
        if (same := name.replace("-", "_")) in names:
            raise ValueError(f"{shown(name)} is given twice")
        names.add(same)
    return dict(pairs)


def _short_whole(text: str) -> int:
    if len(text) > 400:
        raise ValueError(f"{shortened(text, 50)} is not a number that a configuration may contain")
    return int(text)


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise InvalidConfig(f"nested more than {DEEPEST} deep")
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, left - 1)
