"""Checks of files of conversations, completions and reasoning examples: a JSON object per line, of a known schema.

The whole file is read, a line at a time; this module does not import torch.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.registry import suggest
from ...core.text import shown
from ...weights.facts import MAPPING, TEXT, TEXTS, Rule, first_violation
from .base import QUICK, STANDARD, Check, Finding
from .json_lines import Line, read_lines
from .subjects import Subject

ROLES = ("system", "user", "assistant")

_MESSAGE = {"role": Rule(f"one of {', '.join(ROLES)}", lambda value: value in ROLES), "content": TEXT}


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and each.keys() == _MESSAGE.keys() and first_violation(each, _MESSAGE) is None
        for each in value
    )


_WORDS = f"role ({', '.join(ROLES)}) and content (text), and nothing else"
_MESSAGES = Rule(f"a list of messages, each with {_WORDS}", _are_messages)
_CONVERSATIONS = Rule(
    f"a list of lists of messages, each message with {_WORDS}",
    lambda value: isinstance(value, list) and all(map(_are_messages, value)),
)
_TOKENS = Rule(
    "a list of whole numbers", lambda value: isinstance(value, list) and all(type(each) is int for each in value)
)
_SHARED = {"schema": TEXT, "id": TEXT.optional, "meta": MAPPING.optional}

SCHEMAS: Mapping[str, Mapping[str, Rule]] = {
    "chat_sft_v1": {**_SHARED, "messages": _MESSAGES},
    "completion_v1": {**_SHARED, "prompt": TEXT, "completion": TEXT},
    "packed_v1": {**_SHARED, "input_ids": _TOKENS, "labels": _TOKENS, "conversations": _CONVERSATIONS, "end": TEXT},
    "syllo_v1": {**_SHARED, "premises": TEXTS, "question": TEXT, "answer": TEXT, "reasoning": TEXT.optional},
}
"""The rules of the fields of each schema; no other fields are allowed. `docs/validation.md` states them in words."""


class LineSchemas(Check):
    """Each line is a JSON object in UTF-8 with the fields of one known schema, the same on all lines."""

    level = QUICK
    kinds = ("conversations",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each line."""
        expected: str | None = None
        line = None
        for line in read_lines(subject.path):
            if (problem := schema_problem(line, expected)) is not None:
                yield Finding(f"line {line.number}", problem)
            elif expected is None and line.value is not None:
                expected = line.value["schema"]
        if line is None:
            yield Finding(subject.name, "it is empty; expected a JSON object on each line")


class LineContents(Check):
    """Roles alternate and the assistant has the last word; no text is empty or contains what is no text."""

    level = STANDARD
    kinds = ("conversations",)
    independent = True

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each line of a known schema."""
        for number, value in objects(subject.path):
            if (problem := _CONTENTS[value["schema"]](value)) is not None:
                yield Finding(f"line {number}", problem)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line of a file that has a known schema; `LineSchemas` finds the others."""
    for line in read_lines(path):
        if line.value is not None and schema_problem(line) is None:
            yield line.number, line.value


def schema_problem(line: Line, expected: str | None = None) -> str | None:
    """What is wrong with the form of a line, and what to do; None if nothing.

    Args:
        expected: the schema of the lines before; None for any.
    """
    if line.value is None:
        return line.problem
    schema = line.value.get("schema")
    if not isinstance(schema, str) or schema not in SCHEMAS:
        stated = "it has no schema" if "schema" not in line.value else f"unknown schema {shown(schema)}"
        return f"{stated}: {suggest(schema if isinstance(schema, str) else '', SCHEMAS)}"
    if expected is not None and schema != expected:
        return f"its schema is {schema}, that of the lines before is {expected}; write them to two files"
    rules = SCHEMAS[schema]
    if violation := first_violation(line.value, rules):
        return f"it is no {schema}: {violation}"
    if unknown := sorted(line.value.keys() - rules.keys()):
        return f"{schema} has no field {shown(unknown[0])}: {suggest(unknown[0], rules)}. Put what is yours into meta"
    return None


def texts_of(value: Mapping[str, Any]) -> list[str]:
    """All texts of an object of a known schema that a network sees, in their order."""
    match value["schema"]:
        case "chat_sft_v1":
            return [text for message in value["messages"] for text in (message["role"], message["content"])]
        case "completion_v1":
            return [value["prompt"], value["completion"]]
        case "syllo_v1":
            return [*value["premises"], value["question"], value.get("reasoning", ""), value["answer"]]
        case _:
            return [each["content"] for messages in value["conversations"] for each in messages]


def _chat(value: Mapping[str, Any]) -> str | None:
    return _messages_problem(value["messages"])


def _messages_problem(messages: list[dict[str, str]]) -> str | None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    for index, role in enumerate(turns):
        if role != ("assistant" if index % 2 else "user"):
            return (
                f"its roles are {shown(roles)}; expected user and assistant in turn, after at most one system message. "
                "Join messages of one role, or leave the conversation out"
            )
    if len(turns) < 2 or turns[-1] != "assistant":
        return f"its roles are {shown(roles)}; expected an answer of the assistant at the end"
    return _first_problem({f"the message {number}": each["content"] for number, each in enumerate(messages, 1)})


def _completion(value: Mapping[str, Any]) -> str | None:
    return _first_problem({name: value[name] for name in ("prompt", "completion")})


def _reasoning(value: Mapping[str, Any]) -> str | None:
    if not value["premises"]:
        return "it has no premises; expected one or more"
    premises = {f"the premise {number}": text for number, text in enumerate(value["premises"], 1)}
    others = {name: value[name] for name in ("question", "reasoning", "answer") if name in value}
    return _first_problem({**premises, **others})


def _packed(value: Mapping[str, Any]) -> str | None:
    if len(value["input_ids"]) != len(value["labels"]):
        return (
            f"it has {len(value['input_ids']):,} input_ids and {len(value['labels']):,} labels; expected as many. Pack "
            "the conversations again"
        )
    if not value["conversations"] or not value["end"]:
        return "its conversations or its end mark are empty; expected those that were packed"
    return next(filter(None, map(_messages_problem, value["conversations"])), None)


_CONTENTS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "chat_sft_v1": _chat,
    "completion_v1": _completion,
    "packed_v1": _packed,
    "syllo_v1": _reasoning,
}


def _first_problem(texts: Mapping[str, str]) -> str | None:
    """What is wrong with the first text that is empty, or that contains what is no text."""
    for name, text in texts.items():
        if not text.strip():
            return f"{name} is empty; write it, or leave the line out"
        if "\0" in text:
            return f"{name} contains the character NUL; remove it"
        if not _is_text(text):
            return f"{name} contains half of a surrogate pair, which is no character; remove it"
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
