"""Figures: one style without global state, identical bytes each time, text in SVG; and HTML pages that contain them."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest

from metaopt.figures import canvas, legend, limits_of, line_chart, rendered, row_labels, spread, styled
from metaopt.figures.colours import in_order
from metaopt.figures.page import inline_figure, page, prose, table

SVG = "{http://www.w3.org/2000/svg}"


@styled()
def example():
    drawn, axes = canvas("A title", "A subtitle that says what is shown. " * 5, 2.0, 2)
    (only,) = axes.flat
    only.plot([1, 2], [3, 4], label="a $name$ with_marks")
    only.plot([1, 2], [4, 3], label="another")
    legend(drawn, only)
    return drawn


def texts(svg) -> str:
    return " ".join("".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def test_equal_figures_give_equal_bytes_and_svg_contains_text():
    first, second = rendered(example()), rendered(example())
    assert first == second
    assert b"<dc:date>" not in first["svg"]
    for words in ("A title", "a $name$ with_marks", "another"):
        assert words in texts(first["svg"])


def test_the_style_is_local_and_ignores_settings_of_the_user():
    ours = rendered(example())
    with mpl.rc_context({"axes.facecolor": "black", "svg.fonttype": "path", "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert rendered(example()) == ours
        assert dict(mpl.rcParams) == before


def test_the_heading_is_above_the_axes_and_nothing_is_cut_off():
    drawn = example()
    with styled():
        drawn.draw_without_rendering()
        (axes,) = drawn.axes
        boxes = [text.get_window_extent() for text in (*drawn.subfigs[0].texts, *drawn.subfigs[0].legends)]
        assert min(box.y0 for box in boxes) >= axes.get_tightbbox().y1
        assert max(box.x1 for box in boxes) <= drawn.bbox.x1
        assert sorted(boxes, key=lambda box: -box.y0) == boxes


def test_a_line_chart_has_a_line_for_each_name_through_the_points_that_have_its_value():
    values = [{"train": 3.0, "val": 4.0}, {"train": 2.0}, {"train": 1.0, "val": 2.0}]
    (axes,) = line_chart("Losses", "of a training", "steps", "loss", [0, 10, 20], values).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"train": [[0, 3], [10, 2], [20, 1]], "val": [[0, 4], [20, 2]]}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps", "loss")


def test_a_line_chart_has_a_reference_where_one_is_given():
    chart = line_chart("Speed-up", "s", "minutes", "speed-up", [0.5, 1.5], [{"mlp": 1.1}, {"cnn": 1.4}], reference=1.0)
    *lines, reference = chart.axes[0].lines
    assert [line.get_label() for line in lines] == ["cnn", "mlp"]
    assert list(reference.get_ydata()) == [1, 1]


def test_a_line_chart_without_points_is_drawn():
    assert rendered(line_chart("Losses", "none yet", "steps", "loss", [], []))["png"].startswith(b"\x89PNG")


def test_small_helpers():
    assert len(set(in_order(4))) == 4
    assert in_order(1) == in_order(2)[-1:]
    assert spread(3, 1) == [3]
    assert spread(0, 3, 1.0) == pytest.approx([-0.5, 0, 0.5])
    assert limits_of([float("nan"), -1.0]) is None
    low, high = limits_of([1.0, 10.0, float("inf")])
    assert 0 < low < 1 < 10 < high < 20


@styled()
def test_rows_are_named_from_the_top():
    _, axes = canvas("t", "s", 2.0)
    row_labels(axes[0, 0], ["first", "last"])
    assert axes[0, 0].get_ylim() == (1.5, -0.5)


def test_ids_of_several_figures_in_one_page_do_not_clash():
    svg = rendered(example())["svg"]
    html = page("t", [inline_figure(name, "A title", svg, "A caption.") for name in ("first", "second")])
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids)) > 20
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html)
    assert len(references) > 4
    assert {name or other for name, other in references} <= set(ids)


def test_an_inline_figure_keeps_its_drawing_and_text_and_no_namespace():
    svg = rendered(example())["svg"]
    html = inline_figure("one", 'A "title"', svg, "A *caption*.")
    original, inline = ElementTree.fromstring(svg), ElementTree.fromstring(html).find("svg")
    assert [path.get("d") for path in inline.iter("path")] == [path.get("d") for path in original.iter(f"{SVG}path")]
    assert ["".join(text.itertext()) for text in inline.iter("text")] == [
        "".join(text.itertext()) for text in original.iter(f"{SVG}text")
    ]
    assert (inline.get("role"), inline.get("aria-label")) == ("img", 'A "title"')
    assert html.endswith("<figcaption>A <em>caption</em>.</figcaption></figure>")
    assert inline.get("viewBox") == original.get("viewBox")
    assert "http" not in html


def test_a_page_escapes_text():
    html = page("<b>", [table(["<i>"], [["<u>"]], {}), prose("<s> *x* **y** `z`")])
    for tag in ("<b></b>", "<u>", "<i>", "<s>"):
        assert tag not in html
    assert "&lt;s&gt; <em>x</em> <b>y</b> <code>z</code>" in html


def test_items_of_a_list_may_have_several_lines():
    assert prose("- one\n  continued\n- two") == "<ul><li>one\n  continued</li><li>two</li></ul>"
