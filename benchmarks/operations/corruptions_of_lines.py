"""Corruptions of files of conversations, completions and reasoning examples, each with the check that must find it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaopt.operations.validation import DEEP, QUICK, STANDARD

from ._corruption import Call, Corruption

Value = dict[str, Any]
Change = Callable[[Value, random.Random], None]
TOO_LONG = 33 * 2**20
"""A line that is longer than any that is read [bytes]."""


def of_schema(root: Path, schema: str) -> Path:
    """The file of a schema."""
    return root / "lines" / f"{schema}.jsonl"


def raw_line(name: str, line: bytes, level: str = QUICK, check: str = "line-schemas") -> Corruption:
    """A line of any bytes, anywhere in a file of any schema."""

    def plant(root: Path, chosen: random.Random) -> Call:
        path = of_schema(root, chosen.choice(["chat", "completion", "syllo", "packed"]))
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(chosen.randrange(1, len(lines)), line + b"\n")
        path.write_bytes(b"".join(lines))
        return Call([path])

    return Corruption(f"lines: {name}", level, check, plant)


def changed(name: str, level: str, check: str, schema: str, change: Change) -> Corruption:
    """A line whose object is changed."""

    def plant(root: Path, chosen: random.Random) -> Call:
        path = of_schema(root, schema)
        lines = path.read_text("utf-8").splitlines()
        index = chosen.randrange(1, len(lines))
        value = json.loads(lines[index])
        change(value, chosen)
        lines[index] = json.dumps(value)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return Call([path])

    return Corruption(f"{schema}: {name}", level, check, plant)


def whole(name: str, change: Callable[[bytes, random.Random], bytes]) -> Corruption:
    """A file whose bytes are changed."""

    def plant(root: Path, chosen: random.Random) -> Call:
        path = of_schema(root, chosen.choice(["chat", "completion", "syllo", "packed"]))
        path.write_bytes(change(path.read_bytes(), chosen))
        return Call([path])

    return Corruption(f"lines: {name}", QUICK, "line-schemas", plant)


def _last_cut(raw: bytes, chosen: random.Random) -> bytes:
    return raw[: -chosen.randrange(2, 20)]


def _linked(root: Path, chosen: random.Random) -> Call:
    path = of_schema(root, "chat")
    path.unlink()
    path.symlink_to(path.name)
    return Call([path])


def again(name: str, change: Callable[[Value], None], *, other: str | None = None) -> Corruption:
    """A line that is there twice: in the file itself, in a second file, or in one that is held out.

    Args:
        other: `paths` or `against` for a second file.
    """

    def plant(root: Path, chosen: random.Random) -> Call:
        path = of_schema(root, "chat")
        value = json.loads(chosen.choice(path.read_text("utf-8").splitlines()))
        change(value)
        place = path if other is None else path.with_name("second.jsonl")
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
        return Call([path, place] if other == "paths" else [path], [place] if other == "against" else [])

    return Corruption(f"lines: {name}", DEEP, "repeated-lines", plant)


def _renamed(value: Value) -> None:
    value["id"] = "another"
    value["meta"] = {"copied": True}


def _spoken_louder(value: Value) -> None:
    for message in value["messages"]:
        message["content"] = f"  {message['content'].upper().replace(' ', '  ')}!"


def _roles(*given: str) -> Change:
    def change(value: Value, chosen: random.Random) -> None:
        value["messages"] = [{"role": role, "content": "x"} for role in given]

    return change


def _content(text: str) -> Change:
    def change(value: Value, chosen: random.Random) -> None:
        chosen.choice(value["messages"])["content"] = text

    return change


def _entry(name: str, given: Any) -> Change:
    def change(value: Value, chosen: random.Random) -> None:
        value[name] = given

    return change


def _without(name: str) -> Change:
    return lambda value, chosen: value.pop(name)


def _masked(value: Value) -> list[int]:
    return [place for place, label in enumerate(value["labels"]) if label == -100]


def _counted(value: Value) -> list[int]:
    return [place for place, label in enumerate(value["labels"]) if label != -100]


def unmask(value: Value, chosen: random.Random) -> None:
    """Let one token of an instruction, of a mark or of the padding count."""
    place = chosen.choice(_masked(value))
    value["labels"][place] = value["input_ids"][place]


def _unmask_all(value: Value, chosen: random.Random) -> None:
    value["labels"] = list(value["input_ids"])


def mask(value: Value, chosen: random.Random) -> None:
    """Leave one token of an answer or of its end mark out."""
    value["labels"][chosen.choice(_counted(value))] = -100


def mask_ends(value: Value, chosen: random.Random) -> None:
    """Leave all end marks out."""
    for place in _counted(value):
        if place + 1 == len(value["labels"]) or value["labels"][place + 1] == -100:
            value["labels"][place - len(value["end"]) + 1 : place + 1] = [-100] * len(value["end"])


def _shift(value: Value, chosen: random.Random) -> None:
    value["labels"] = [*value["labels"][1:], -100]


def _other_token(value: Value, chosen: random.Random) -> None:
    place = chosen.choice(_counted(value))
    value["labels"][place] = (value["labels"][place] + 1) % 256


def other_instruction(value: Value, chosen: random.Random) -> None:
    """The source says something else than the tokens."""
    value["conversations"][0][-2]["content"] = "What did nobody ever ask?"


def _other_order(value: Value, chosen: random.Random) -> None:
    value["conversations"].reverse()


def _unknown_token(value: Value, chosen: random.Random) -> None:
    place = chosen.randrange(len(value["labels"]))
    value["input_ids"][place] = chosen.choice([-1, 256, 10**30])
    value["labels"][place] = -100


_USER = {"role": "user", "content": "x"}
_DEEP = b"[" * 100_000

CORRUPTIONS = [
    raw_line("bytes that are not UTF-8", b'{"schema": "chat_sft_v1", "x": "\xff\xfe"}'),
    raw_line("NUL bytes", b"\0" * 100),
    raw_line("half an object", b'{"schema": "chat_sft_v1", "mess'),
    raw_line("no object", b'["chat_sft_v1"]'),
    raw_line("an empty line", b"   "),
    raw_line("100,000 lists in each other", _DEEP),
    raw_line("100,000 objects in each other", b'{"a":' * 100_000),
    raw_line("a whole number of 5,000 digits", b'{"schema": "completion_v1", "prompt": ' + b"9" * 5000 + b"}"),
    raw_line("NaN", b'{"schema": "completion_v1", "prompt": "a", "completion": "b", "meta": {"x": NaN}}'),
    raw_line("a name twice", b'{"schema": "completion_v1", "prompt": "a", "prompt": "b", "completion": "c"}'),
    raw_line("a line that is too long", b'{"schema": "' + b"x" * TOO_LONG + b'"}'),
    raw_line("an unknown schema", b'{"schema": "chat_sft_v2", "messages": []}'),
    raw_line("no schema", b'{"messages": []}'),
    raw_line("a schema that is a number", b'{"schema": 1e999}'),
    whole("the last line cut off", _last_cut),
    whole("a byte order mark", lambda raw, chosen: b"\xef\xbb\xbf" + raw),
    whole("nothing", lambda raw, chosen: b""),
    whole("UTF-16", lambda raw, chosen: raw.decode().encode("utf-16")),
    whole("another file appended", lambda raw, chosen: raw + _other(raw)),
    Corruption("lines: a link to itself", QUICK, "line-schemas", _linked),
    changed("an unknown role", QUICK, "line-schemas", "chat", _roles("user", "human", "assistant")),
    changed("no messages", QUICK, "line-schemas", "chat", _without("messages")),
    changed("an unknown field", QUICK, "line-schemas", "chat", _entry("mesages", [])),
    changed("a content that is no text", QUICK, "line-schemas", "chat", _entry("messages", [{**_USER, "content": 3}])),
    changed(
        "messages with more fields",
        QUICK,
        "line-schemas",
        "chat",
        _entry("messages", [{**_USER, "name": "y"}]),
    ),
    changed("no completion", QUICK, "line-schemas", "completion", _without("completion")),
    changed("premises that are a text", QUICK, "line-schemas", "syllo", _entry("premises", "All men are mortal.")),
    changed("labels that are texts", QUICK, "line-schemas", "packed", _entry("labels", ["a"])),
    changed("two users in a row", STANDARD, "line-contents", "chat", _roles("user", "user", "assistant")),
    changed("the user has the last word", STANDARD, "line-contents", "chat", _roles("user", "assistant", "user")),
    changed("a system message in the middle", STANDARD, "line-contents", "chat", _roles("user", "system", "assistant")),
    changed("the assistant begins", STANDARD, "line-contents", "chat", _roles("assistant", "user", "assistant")),
    changed("no turns", STANDARD, "line-contents", "chat", _roles("system")),
    changed("an empty content", STANDARD, "line-contents", "chat", _content(" \n")),
    changed("the character NUL", STANDARD, "line-contents", "chat", _content("a\0b")),
    changed("half of a surrogate pair", STANDARD, "line-contents", "chat", _content("a\ud800b")),
    changed("an empty completion", STANDARD, "line-contents", "completion", _entry("completion", "")),
    changed("no premises", STANDARD, "line-contents", "syllo", _entry("premises", [])),
    changed("an empty answer", STANDARD, "line-contents", "syllo", _entry("answer", "")),
    changed("an empty reasoning", STANDARD, "line-contents", "syllo", _entry("reasoning", "")),
    changed("fewer labels than tokens", STANDARD, "line-contents", "packed", _entry("labels", [-100])),
    changed("no conversations", STANDARD, "line-contents", "packed", _entry("conversations", [])),
    changed("one masked token counts", STANDARD, "packed-masks", "packed", unmask),
    changed("no mask", STANDARD, "packed-masks", "packed", _unmask_all),
    changed("one token of an answer is masked", STANDARD, "packed-masks", "packed", mask),
    changed("all end marks are masked", STANDARD, "packed-masks", "packed", mask_ends),
    changed("labels shifted by one", STANDARD, "packed-masks", "packed", _shift),
    changed("another label than the token", STANDARD, "packed-masks", "packed", _other_token),
    changed("a token that the tokenizer lacks", STANDARD, "packed-masks", "packed", _unknown_token),
    changed("another instruction in the source", STANDARD, "packed-masks", "packed", other_instruction),
    changed("the source in another order", STANDARD, "packed-masks", "packed", _other_order),
    again("a line twice", lambda value: None),
    again("a line twice, with another id", _renamed),
    again("a line twice, in capitals", _spoken_louder),
    again("a line of a second file", lambda value: None, other="paths"),
    again("a held-out line", _renamed, other="against"),
    again("a held-out line, in capitals", _spoken_louder, other="against"),
]


def _other(raw: bytes) -> bytes:
    """A line of another schema than that of a file."""
    completion: Value = {"schema": "completion_v1", "prompt": "a", "completion": "b"}
    syllogism: Value = {"schema": "syllo_v1", "premises": ["a"], "question": "b", "answer": "c"}
    return json.dumps(syllogism if b"completion_v1" in raw else completion).encode()
