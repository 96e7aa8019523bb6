"""Diagnostics of one training, and all charts of a small evaluation."""

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.diagnostics import ProbedRun, diagnose
from metaopt.diagnostics.attention import attention
from metaopt.diagnostics.horizons import horizons
from metaopt.diagnostics.layers import groups, layers
from metaopt.diagnostics.plane import plane
from metaopt.diagnostics.probed_run import Detail
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.observers import HoldObserver
from metaopt.evaluation.paired_runs import RunSetup, train_contender
from metaopt.evaluation.summary import Summary
from metaopt.figures import rendered
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Hold, Line
from metaopt.reporting.charts import charts
from metaopt.reporting.charts.contenders import contender_styles
from metaopt.reporting.charts.plane import level_labels, plane_chart
from metaopt.reporting.formatting import label, verdict
from metaopt.reporting.html import report_html
from metaopt.tasks import load_task
from metaopt.weights.layout import Layout, WeightTensor
from metaopt.workflows.evaluate_optimizer import compare

CONFIG = EvaluateConfig.from_mapping(
    {
        "target_model": "MLP",
        "target_options": {"widths": [8]},
        "steps": 48,
        "every": 8,
        "stride": 4,
        "horizons": [8],
        "evaluate_every": 4,
        "seeds": 2,
        "lr": 0.01,
        "cache_dir": None,
    }
)
NAMES = ["loss_curves", "steps_to_target", "nowcasts", "plane", "layers", "attention", "horizons"]


class Artifacts(SilentTracker):
    """Stores texts and figures."""

    def __init__(self):
        self.texts, self.figures = {}, {}

    def text(self, text, name):
        self.texts[name] = text

    def figure(self, figure, name):
        self.figures[name] = figure


@pytest.fixture(scope="module")
def learned():
    """A small Perceiver that does predict something."""
    torch.manual_seed(0)
    optimizer = get_optimizer_model(
        "PerceiverOptimizer", dim=16, latent_dim=16, num_latents=4, hidden=16, heads=2, depth=1, history=3
    )
    torch.nn.init.normal_(optimizer.coefficients.weight, std=0.3)
    return optimizer


@pytest.fixture(scope="module")
def published(learned):
    tracker = Artifacts()
    return compare(CONFIG, learned, tracker), tracker


@pytest.fixture(scope="module")
def run():
    setup = RunSetup(CONFIG, load_task("digits"), CONFIG.seed)
    observer = HoldObserver(setup, {})
    train_contender(setup, "hold", observer=observer)
    return ProbedRun(setup, observer.snapshots)


@pytest.fixture(scope="module")
def drawn(published, run, learned):
    comparison, _ = published
    return {chart.name: chart for chart in charts(comparison, diagnose(run, learned))}


def test_states_to_predict_from_have_a_recorded_future(run):
    assert run.starts() == [8, 16, 32, 40]
    assert run.starts(2, 32) == [8, 16]
    assert all(step + run.horizon in run.snapshots for step in run.starts())


def test_the_plane_contains_the_path_of_the_training(run, learned):
    seen = plane(run, learned)
    there = torch.stack([run.snapshots[step] for step in seen.steps])
    singular = torch.linalg.svdvals(there - there.mean(0)).square()
    assert seen.explained == pytest.approx(float(singular[:2].sum() / singular.sum()), rel=1e-4)
    assert np.square(seen.path).sum(0) == pytest.approx(singular[:2].numpy(), rel=1e-3)
    assert seen.path_losses[0] == pytest.approx(run.loss(run.snapshots[0]))
    assert seen.losses.shape == (21, 21)
    for places in (seen.path, seen.predicted):
        assert (places > [seen.x[0], seen.y[0]]).all()
        assert (places < [seen.x[-1], seen.y[-1]]).all()
    assert ((seen.in_plane > 0) & (seen.in_plane <= 1.0001)).all()


@pytest.mark.parametrize(
    ("levels", "labels"),
    [
        ((0.05, 0.712, 12.3456), ["0.05", "0.712", "12.3"]),
        ((0.7121, 0.7123, 0.72), ["0.7121", "0.7123", "0.72"]),
        ((2.302, 2.303, 2.30301), ["2.302", "2.303", "2.30301"]),
        ((123456.0, 123457.0), ["123456", "123457"]),
    ],
)
def test_levels_of_contours_are_told_apart(levels, labels):
    assert level_labels(np.array(levels)) == labels


def test_contours_of_a_flat_loss_have_labels_that_differ(published, run, learned):
    seen, diagnostics = plane(run, learned), diagnose(run, learned)
    flat = replace(seen, losses=2.3 + 1e-4 * seen.losses)
    (axes,) = plane_chart(published[0], diagnostics, flat).figure().axes
    (lines,) = [each for each in axes.collections if getattr(each, "labelTexts", None)]
    texts = {each.get_text() for each in lines.labelTexts}
    assert len(texts) == len({round(value, 9) for value in lines.labelCValues}) > 1


def test_the_loss_in_the_plane_is_the_loss_of_the_weights_there(run):
    """For a straight path the plane contains all snapshots, so the contours equal their losses."""
    first, last = run.snapshots[0], run.snapshots[48]
    straight = ProbedRun(run.setup, {s: first + (last - first) * s / 48 for s in run.snapshots})
    seen = plane(straight, Line())
    assert seen.explained == pytest.approx(1.0, abs=1e-4)
    assert np.ptp(seen.path[:, 1]) == pytest.approx(0, abs=1e-3)
    middle = seen.losses[10]  # the row of the grid that contains the path
    wanted = np.interp(seen.path[:, 0], seen.x, middle)
    assert seen.path_losses == pytest.approx(wanted, rel=0.05)


def test_a_perfect_prediction_agrees_with_hold_and_hold_itself_does_not(run):
    class Perfect(Hold):
        def extrapolate(self, history, t_history, t_end, layout):
            return run.snapshots[int(t_end)].unsqueeze(0)

    right = layers(run, Perfect())
    assert right.cosine == pytest.approx(np.ones_like(right.cosine), abs=1e-5)
    assert right.ratio == pytest.approx(np.ones_like(right.ratio), abs=1e-5)
    still = layers(run, Hold())
    assert np.isnan(still.cosine).all()
    assert (still.ratio == 0).all()
    ahead = horizons(run, Perfect())
    assert ahead.candidate[:, :4] == pytest.approx(ahead.hold[:, :4], rel=1e-6)
    assert (ahead.candidate[:, 0] == 0).all()


def test_attention_equals_the_softmax_of_the_encoder(run, learned):
    seen = attention(run, learned)
    assert seen.shares.sum(1) == pytest.approx(np.ones(len(seen.starts)))
    assert seen.by_latent.sum(1) == pytest.approx(np.ones(4))
    assert seen.uniform.sum() == pytest.approx(1)
    assert seen.shares[1] == pytest.approx(seen.by_latent.mean(0))
    assert not learned.perceiver.cross_attend_block.cross_attn.fn.dropout._forward_hooks

    redeliver_lost_signals = []
    encoder = learned.perceiver.cross_attend_block.cross_attn.fn
    hook = encoder.register_forward_hook(
        lambda _m, inputs, kwargs, _o: redeliver_lost_signals.append((*inputs, kwargs)), with_kwargs=True
    )
    run.predict(learned, seen.starts[0], run.horizon)
    hook.remove()
    latents, kwargs = redeliver_lost_signals[0]
    query, key = encoder.to_q(latents), encoder.to_kv(kwargs["context"]).chunk(2, -1)[0]
    weights = (query @ key.transpose(1, 2) * encoder.scale).softmax(-1)[0].mean(0).detach()
    first = -(-64 * 8 // 32)  # tokens of the first tensor
    assert seen.shares[0, 0] == pytest.approx(float(weights[:first].sum()), rel=1e-4)


def test_only_perceivers_have_attention_and_short_runs_have_no_diagnostics(run):
    assert attention(run, Line()) is None
    short = ProbedRun(run.setup, {step: run.snapshots[step] for step in (0, 4, 8)})
    assert diagnose(short, Line()) is None


def test_diagnostics_of_large_networks_have_less_detail():
    small, middle, large = (Detail.of(weights) for weights in (50_000, 2_000_000, 2_000_001))
    assert small > middle > large
    assert small == (512, 21, 33, 8)


def test_many_tensors_are_grouped_by_module_then_in_ranges():
    def named(*names):
        return Layout(tuple(WeightTensor(name, (2,), "float32") for name in names))

    assert groups(named("a.weight", "a.bias"), 2) == (("weight", "bias"), (0, 1))
    assert groups(named("a.0.w", "a.0.b", "a.1.w", "b.w"), 3) == (("a.0", "a.1", "b.w"), (0, 0, 1, 2))
    assert groups(named("net.a.w", "net.b.w"))[0] == ("a.w", "b.w")
    assert groups(named("net.0.w", "net.1.w"))[0] == ("net.0.w", "net.1.w")
    assert groups(named("encoder." + 5 * "layers." + "w", "head"))[0] == ("encode….layers.layers.layers.w", "head")
    assert groups(named("a", "b", "c", "d", "e"), 3) == (("a … b", "c … d", "e"), (0, 0, 1, 1, 2))


def test_an_evaluation_publishes_all_charts_and_both_reports(published):
    _, tracker = published
    assert list(tracker.figures) == NAMES
    assert {"report.md", "report.html"} <= tracker.texts.keys()


def test_loss_curves_show_the_losses(published, drawn):
    comparison, _ = published
    above, below = drawn["loss_curves"].figure().axes
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    prominent = [name for name, style in contender_styles(comparison).items() if style.prominent]
    assert {"hold", "line", comparison.candidate} <= set(prominent)
    for name in prominent:
        wanted = np.median([curve.losses for curve in comparison.curves_of(name)], axis=0)
        assert lines[label(name, comparison.config)] == pytest.approx(wanted)
    events = [event for curve in comparison.curves_of(comparison.candidate) for event in curve.events]
    assert sum(len(line.get_xdata()) for line in below.lines) == len(events) > 0


def test_steps_to_target_shows_each_seed_and_the_interval(published, drawn):
    comparison, _ = published
    full, row = Summary(comparison).candidate.full, comparison.contenders.index(comparison.candidate)
    left, right = drawn["steps_to_target"].figure().axes
    reached, never, mean = left.lines[3 * row : 3 * row + 3]
    assert list(reached.get_xdata()) == [steps for steps in full.steps if steps is not None]
    assert list(never.get_xdata()) == pytest.approx([48 * 1.05] * full.never)  # beyond the line of the budget
    assert mean.get_xdata() == pytest.approx([full.counted_steps] * 2)
    *others, speed_up, _ = right.lines
    if full.speed_up.low < full.speed_up.high:  # an interval without width is not drawn
        assert list(others[-1].get_xdata()) == [full.speed_up.low, full.speed_up.high]
    assert list(speed_up.get_xdata()) == [full.speed_up.mean]


def test_nowcasts_show_the_ratio_of_each_prediction(published, drawn):
    comparison, _ = published
    (axes,) = drawn["nowcasts"].figure().axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    dots, mean = axes.lines[2 * rows.index(comparison.candidate) :][:2]
    ratios = [each.loss_after / each.loss_before for each in comparison.predictions_of(comparison.candidate)]
    assert dots.get_xdata() == pytest.approx(ratios)
    assert mean.get_xdata()[0] == pytest.approx(np.exp(np.log(ratios).mean()))
    assert {f"control: {name}" for name in comparison.controls} <= set(rows)


def test_horizons_show_the_log_loss_of_each_prediction(run, learned, drawn):
    start, horizon = 8, 16
    panel = drawn["horizons"].figure().axes[0]
    ours = next(line for line in panel.lines if line.get_label() == "perceiver")
    value = dict(zip(*ours.get_data(), strict=True))[horizon]
    before, after = run.loss(run.snapshots[start]), run.loss(run.predict(learned, start, horizon))
    assert value == pytest.approx(math.log(after / before))


@pytest.mark.parametrize("name", NAMES)
def test_each_chart_is_the_same_each_time_and_has_a_title_and_a_caption(name, drawn):
    chart = drawn[name]
    svg = rendered(chart.figure())["svg"]
    assert svg == rendered(chart.figure())["svg"]
    assert chart.title in "".join(ElementTree.fromstring(svg).itertext())
    assert chart.caption.endswith(".")


def test_the_page_contains_each_chart_once_as_svg(published, drawn):
    html = published[1].texts["report.html"]
    assert html.count("<svg ") == html.count("</svg>") == len(NAMES)
    figures = dict(re.findall(r'<figure id="([^"]*)">(<svg .*?</svg>)', html, re.DOTALL))
    assert list(figures) == NAMES
    for name, chart in drawn.items():
        file, inline = ElementTree.fromstring(rendered(chart.figure())["svg"]), ElementTree.fromstring(figures[name])
        paths = [path.get("d") for path in file.iter("{http://www.w3.org/2000/svg}path")]
        assert [path.get("d") for path in inline.iter("path")] == paths
        assert html.count(f">{chart.title}</text>") == 1


def test_the_page_has_no_script_and_loads_nothing(published):
    html = published[1].texts["report.html"]
    assert len(html.encode()) < 500_000
    without_images, images = re.subn(r'href="data:image/png;base64,[^"]*"', "", html)
    assert images == 2  # attention of the latents, and its colour bar
    for text in ("//", "http", "@import", "javascript:", "<script", "<link", "<img", "<iframe", "<object", " src="):
        assert text not in without_images.lower(), text
    assert not re.search(r"<[^>]* on\w+\s*=", without_images)
    assert not re.search(r'href="[^#]|url\([^#]', without_images)


def test_ids_in_the_page_are_unique_and_references_have_a_target(published):
    html = published[1].texts["report.html"]
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    references = {one or other for one, other in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html)}
    assert references
    assert references <= set(ids)


def test_the_page_has_the_numbers_and_is_the_same_each_time(published, drawn):
    comparison, tracker = published
    html = tracker.texts["report.html"]
    assert f"{Summary(comparison).candidate.final_loss:.4f}" in html
    for control in Summary(comparison).controls:
        assert f"<td>{verdict(control)}</td></tr>" in html
    assert report_html(comparison, list(drawn.values())) == html


def test_without_diagnostics_three_charts_remain(published):
    names = [chart.name for chart in charts(published[0])]
    assert names == ["loss_curves", "steps_to_target", "nowcasts"]
