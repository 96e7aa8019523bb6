"""Files of conversations: their schemas, hostile lines, repetitions between files, and memory that does not grow."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.core.errors import InvalidConfig, MetaoptError
from metaopt.operations.validation import Subject, get_check, json_lines, validate
from metaopt.operations.validation.conversations import SCHEMAS

CHAT = {
    "schema": "chat_sft_v1",
    "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}],
}
COMPLETION = {"schema": "completion_v1", "prompt": "Once", "completion": " upon a time"}
SYLLOGISM = {"schema": "syllo_v1", "premises": ["All men are mortal."], "question": "Is he?", "answer": "Yes."}


def write(path, *values):
    """A file with a line for each value; text and bytes are lines themselves."""
    lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in values]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def found(path, level="quick", **more):
    """Messages by place, of the checks of a file."""
    report = validate([path], level, **more)
    return {finding.where: finding.message for outcome in report.outcomes for finding in outcome.findings}


@pytest.mark.parametrize("value", [CHAT, COMPLETION, SYLLOGISM], ids=lambda value: value["schema"])
def test_a_file_of_each_schema_passes_with_and_without_what_is_optional(tmp_path, value):
    more = {**value, "id": "2", "meta": {"source": [1, None]}}
    assert found(write(tmp_path / "a.jsonl", value, more)) == {}
    (tmp_path / "a.jsonl").write_text(json.dumps(value), encoding="utf-8")  # the last line may lack its end
    assert found(tmp_path / "a.jsonl", "deep") == {}


def test_an_unknown_schema_is_refused_by_name_with_the_nearest_one(tmp_path):
    message = found(write(tmp_path / "a.jsonl", {**CHAT, "schema": "chat_sft_v2"}))["line 1"]
    assert message.startswith("unknown schema 'chat_sft_v2': did you mean chat_sft_v1?")
    assert all(name in message for name in SCHEMAS)


def test_every_problem_is_counted_and_the_first_ones_have_their_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", CHAT, *[b"{"] * 50, COMPLETION, {**CHAT, "mesages": 1}, CHAT)
    (outcome,) = validate([path], "quick", most=3).outcomes
    assert outcome.count == 52
    assert [finding.where for finding in outcome.findings] == ["line 2", "line 3", "line 4"]
    assert found(path, most=100)["line 52"].startswith("its schema is completion_v1, that of the lines before is chat")
    assert "no field 'mesages': did you mean messages" in found(path, most=100)["line 53"]


def test_a_wrong_line_does_not_hide_what_is_wrong_with_the_contents_of_others(tmp_path):
    empty = {**CHAT, "messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "4"}]}
    assert found(write(tmp_path / "a.jsonl", b"[", empty, CHAT, CHAT), "deep") == {
        "line 1": "it is not JSON (JSONDecodeError('Expecting value: line 2 column 1 (char 2)')); expected one JSON "
        "object",
        "line 2": "the message 1 is empty; write it, or leave the line out",
        "line 4": "it repeats line 3. Remove one of them",
    }


HOSTILE = {
    "lists in each other": (b"[" * 10**5, "is not JSON (RecursionError"),
    "objects in each other": (b'{"a":' * 10**5, "is not JSON (RecursionError"),
    "a deep object": (b'{"schema":' + b"[" * 500 + b"]" * 500 + b"}", "unknown schema [[[[...]]]]"),
    "a number of 5,000 digits": (b'{"schema":' + b"1" * 5000 + b"}", "is not JSON"),
    "infinity by overflow": (b'{"schema":1e999}', "unknown schema inf"),
    "NaN": (b'{"schema":NaN}', "NaN is not JSON"),
    "not UTF-8": (b'{"schema":"\xff"}', "byte 12 is not UTF-8"),
    "NUL": (b'{"schema":"\0"}', "contains NUL bytes"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "a name twice": (b'{"schema":"a","schema":"chat_sft_v1"}', "it has 'schema' twice"),
    "too long": (b'{"schema":"' + b"a" * 3_000_000 + b'"}', "longer than 2,000,000 bytes"),
    "an escape sequence": (json.dumps({"schema": "\x1b[2J"}).encode(), r"unknown schema '\x1b[2J'"),
    "half of a pair as a field": (b'{"schema":"completion_v1","\\ud800":1}', "it has no prompt"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_are_findings(tmp_path, name, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE", 2_000_000)
    line, message = HOSTILE[name]
    report = validate([write(tmp_path / "a.jsonl", line, COMPLETION)], "deep")
    (finding,) = [finding for outcome in report.outcomes for finding in outcome.findings]
    assert finding.where == "line 1"
    assert message in finding.message
    assert len(finding.message) < 1000
    assert report.table().isprintable() or "\x1b" not in report.table()


def test_links_pipes_and_missing_files_are_findings_or_errors_in_words(tmp_path):
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop.name)
    assert "Too many levels of symbolic links" in found(loop)[str(loop)]
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(InvalidConfig, match="nothing to validate in"):
        validate([folder])
    (tmp_path / "inside").symlink_to(tmp_path)  # a folder that contains itself
    write(tmp_path / "a.jsonl", CHAT)
    report = validate([tmp_path], "quick")
    assert [subject.path.name for subject in report.subjects] == ["a.jsonl", "loop.jsonl"]
    for path, message in [("gone.jsonl", "nothing to validate at 'gone.jsonl'"), ("a\0b", r"nothing .* 'a\\x00b'")]:
        with pytest.raises(InvalidConfig, match=message):
            validate([path])


def judged(path):
    """Messages of all checks, which are called directly: whatever they raise fails the test."""
    subject = Subject("conversations", path)
    names = ("line-schemas", "line-contents", "repeated-lines")
    return [finding.message for name in names for finding in get_check(name).check(subject)]


@settings(max_examples=30)
@given(st.lists(st.one_of(st.binary(max_size=60), st.recursive(st.text(), st.lists).map(json.dumps).map(str.encode))))
def test_any_bytes_are_read_without_a_traceback(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert judged(path)


def nested(each):
    return st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3)


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), nested, max_leaves=6)


@settings(max_examples=60)
@given(st.sampled_from([CHAT, COMPLETION, SYLLOGISM]), st.data())
def test_a_field_of_any_value_is_judged_without_a_traceback(tmp_path_factory, value, data):
    name = data.draw(st.sampled_from([*value, "id", "meta", "other"]))
    changed = {**value, name: data.draw(JSON)}
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text(json.dumps(changed) + "\n", encoding="utf-8")
    messages = judged(path)
    assert messages or set(changed) <= SCHEMAS[value["schema"]].keys()


def test_lines_are_compared_between_files_whatever_their_names(tmp_path):
    louder = {**CHAT, "id": "7", "messages": [{**each, "content": f"{each['content']} !"} for each in CHAT["messages"]]}
    one = write(tmp_path / "a.jsonl", COMPLETION | {"schema": "completion_v1"})
    first, second = write(tmp_path / "b.jsonl", CHAT), write(tmp_path / "c.jsonl", SYLLOGISM | {"id": "1"})
    assert validate([one, first, second], "deep").failed is False
    copy = write(tmp_path / "d.jsonl", louder)
    assert (
        "differs only in case, spaces or punctuation from line 1 of" in found(copy, "deep", against=[first])["line 1"]
    )
    assert "Results on it say nothing" in found(first, "deep", against=[tmp_path / "d.jsonl"])["line 1"]
    report = validate([first, copy], "deep")
    assert [outcome.subject.path for outcome in report.outcomes if outcome.count] == [copy]


@pytest.mark.parametrize(
    ("one", "other"), [("3 + 4", "3 - 4"), ("5.3", "53"), ("a b", "ab"), ("¿", "!"), ("x²", "x^2"), ("-1", "1")]
)
def test_texts_that_mean_something_else_are_no_repetition(tmp_path, one, other):
    values = [{**COMPLETION, "prompt": each} for each in (one, other)]
    assert found(write(tmp_path / "a.jsonl", *values), "deep") == {}


def test_memory_does_not_grow_with_the_file(tmp_path):
    """20 MB of lines in a process of its own, without torch."""
    line = json.dumps({**COMPLETION, "prompt": "x" * 1000}).encode()
    path = write(tmp_path / "a.jsonl", *[line] * 20_000)
    code = (
        "import resource, sys\n"
        "from metaopt.operations.validation import validate\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"validate([{str(tmp_path / 'small.jsonl')!r}], 'standard')\n"
        "before = used()\n"
        f"report = validate([{str(path)!r}], 'standard')\n"
        "print(used() - before, report.failed, *{'torch', 'numpy', 'mlflow'} & sys.modules.keys())\n"
    )
    write(tmp_path / "small.jsonl", line)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kilobytes, failed, *heavy = done.stdout.split()
    assert (failed, heavy) == ("False", [])
    assert int(kilobytes) < 2 * 1024


def test_a_level_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(MetaoptError, match="level is 'deeper': did you mean deep"):
        validate([write(tmp_path / "a.jsonl", CHAT)], "deeper")
    with pytest.raises(InvalidConfig, match="nothing to validate is given"):
        validate([])
