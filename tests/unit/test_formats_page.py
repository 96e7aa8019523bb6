"""docs/formats.md states the schemas, kinds, facts and limits that the code has."""

import re
from pathlib import Path

import pytest

from metaopt.evaluation.results import SCHEMA as EVALUATION_SCHEMA
from metaopt.tracking.manifests import _SCHEMA as MANIFEST_SCHEMA
from metaopt.weights.facts import FACTS
from metaopt.weights.header import MAX_TENSORS, SCHEMA
from metaopt.weights.regular import MAX_TEXT

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


def section(kind: str) -> str:
    return re.split(r"\n##+ ", PAGE.partition(f"\n### {kind}\n")[2])[0]


@pytest.mark.parametrize(
    ("pattern", "schema"),
    [
        (r"\| `schema` \| (\d+); readers reject any other", SCHEMA),
        (r"\"schema\": (\d+),\n  \"files\"", MANIFEST_SCHEMA),
        (r"`evaluation\.json` has `schema` \((\d+)\)", EVALUATION_SCHEMA),
    ],
    ids=["files", "manifest", "evaluation"],
)
def test_the_page_states_the_schema_of_the_code(pattern, schema):
    assert [int(number) for number in re.findall(pattern, PAGE)] == [schema]


def test_the_page_states_the_limits_of_headers():
    assert f"{MAX_TEXT // 2**20} MiB, {MAX_TENSORS:,} tensors" in PAGE


@pytest.mark.parametrize("kind", FACTS)
def test_the_page_has_each_fact_that_has_a_rule(kind):
    for fact in FACTS[kind]:
        assert f"`{fact}`" in section(kind), fact
