"""How figures look and are kept: one style without global state, the same bytes each time, text that stays text."""

import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest

from metaopt.figures import canvas, legend, limits_of, rendered, row_labels, spread, styled
from metaopt.figures.colours import faded, in_order
from metaopt.figures.interactive import interactive, log_axis, to_json
from metaopt.figures.page import figure, page, prose, table
from metaopt.recording.charts import learning_curve, loss_figure

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


def test_the_same_figure_gives_the_same_bytes_and_its_text_stays_text():
    first, second = rendered(example()), rendered(example())
    assert first == second
    assert b"<dc:date>" not in first["svg"]
    for words in ("A title", "a $name$ with_marks", "another"):
        assert words in texts(first["svg"])


def test_the_style_ends_with_the_drawing_and_ignores_what_users_set():
    ours = rendered(example())
    with mpl.rc_context({"axes.facecolor": "black", "svg.fonttype": "path", "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert rendered(example()) == ours
        assert dict(mpl.rcParams) == before


def test_a_heading_lies_above_the_axes_and_nothing_is_cut_off():
    drawn = example()
    with styled():
        drawn.draw_without_rendering()
        (axes,) = drawn.axes
        boxes = [text.get_window_extent() for text in (*drawn.subfigs[0].texts, *drawn.subfigs[0].legends)]
        assert min(box.y0 for box in boxes) >= axes.get_tightbbox().y1
        assert max(box.x1 for box in boxes) <= drawn.bbox.x1
        assert sorted(boxes, key=lambda box: -box.y0) == boxes


def test_losses_of_a_training_are_drawn_where_they_were_measured():
    drawn = loss_figure([0, 10, 20], [{"train": 3.0, "val": 4.0}, {"train": 2.0}, {"train": 1.0, "val": 2.0}], "cnn/0")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn.axes[0].lines}
    assert lines == {"train": [[0, 3], [10, 2], [20, 1]], "val": [[0, 4], [20, 2]]}
    rendered(loss_figure([], [], "nothing yet"))


def test_a_learning_curve_has_a_line_for_each_ingredient():
    drawn = learning_curve([0.5, 1.5, 2.5], [{"mlp": 1.1}, {"cnn": 1.4}, {"mlp": 1.3}])
    *lines, _ = drawn.axes[0].lines
    assert {line.get_label(): line.get_xydata().tolist() for line in lines} == {
        "cnn": [[1.5, 1.4]],
        "mlp": [[0.5, 1.1], [2.5, 1.3]],
    }
    rendered(drawn)


def test_small_helpers():
    assert len(set(in_order(4))) == 4
    assert in_order(1) == in_order(2)[-1:]
    assert faded("#FF0080", 0.5) == "rgba(255,0,128,0.5)"
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


def test_what_a_script_holds_is_strict_json_that_cannot_end_it():
    made = interactive([{"x": [1.23456789, float("nan")], "name": "</script>"}], 100, xaxis=log_axis([1, 100], "loss"))
    text = to_json(made)
    assert "1.2346,null" in text
    assert "</script>" not in text
    assert '"type":"log"' in text


def test_a_page_escapes_what_comes_from_outside():
    html = page("<b>", [table(["<i>"], [["<u>"]], {}), figure("a", interactive([], 10)), prose("<s> *x* **y** `z`")])
    for tag in ("<b></b>", "<u>", "<i>", "<s>"):
        assert tag not in html
    assert "&lt;s&gt; <em>x</em> <b>y</b> <code>z</code>" in html


def test_lists_keep_items_that_go_on_in_the_next_line():
    assert prose("- one\n  goes on\n- two") == "<ul><li>one\n  goes on</li><li>two</li></ul>"
