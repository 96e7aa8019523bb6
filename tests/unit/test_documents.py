"""Documents in Markdown, CSV and JSON."""

import csv
import io
import json
import math

from metaopt.core.documents import Section, csv_text, json_text, markdown, markdown_table


def test_a_document_has_its_sections_and_no_empty_paragraphs():
    sections = [Section("One", ("text", "", (["a"], [["1"]]))), Section("Two", ("more",), level=3)]
    assert markdown("Title", ["first", ""], sections) == (
        "# Title\n\nfirst\n\n## One\n\ntext\n\n| a |\n| --- |\n| 1 |\n\n### Two\n\nmore\n"
    )


def test_a_cell_neither_ends_a_column_nor_begins_a_tag():
    assert markdown_table(["a"], [["x|y<script>"]]).splitlines()[-1] == r"| x\|y&lt;script> |"


def test_csv_reads_back():
    rows = [["a,b", 'say "x"', "two\nlines"], [1, None, 0.123456789]]
    text = csv_text(["p", "q", "r"], rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["p", "q", "r"],
        ["a,b", 'say "x"', "two\nlines"],
        ["1", "", "0.123457"],
    ]


def test_json_has_null_for_numbers_that_are_not_finite():
    assert json.loads(json_text({"a": [math.nan, (math.inf, 1.5)], "b": True})) == {"a": [None, [None, 1.5]], "b": True}
