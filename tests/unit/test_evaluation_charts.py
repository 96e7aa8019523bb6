"""A closer look at a training, and all charts of a small but real evaluation."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import plotly.graph_objects as go
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
from metaopt.evaluation.paired_runs import HoldObserver, RunSetup, train_contender
from metaopt.evaluation.summary import Summary
from metaopt.figures import rendered
from metaopt.figures.interactive import to_json
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Hold, Line
from metaopt.reporting.charts import charts
from metaopt.reporting.charts.contenders import looks
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
    """Keeps texts and figures."""

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
def course():
    setup = RunSetup(CONFIG, load_task("digits"), CONFIG.seed)
    observer = HoldObserver(setup, {})
    train_contender(setup, "hold", watch=observer)
    return ProbedRun(setup, observer.snapshots)


@pytest.fixture(scope="module")
def drawn(published, course, learned):
    comparison, _ = published
    return {chart.name: chart for chart in charts(comparison, diagnose(course, learned))}


def test_states_to_predict_from_have_a_recorded_future(course):
    assert course.starts() == [8, 16, 32, 40]
    assert course.starts(2, 32) == [8, 16]
    assert all(step + course.reach in course.snapshots for step in course.starts())


def test_the_plane_holds_the_training_where_it_was(course, learned):
    seen = plane(course, learned)
    there = torch.stack([course.snapshots[step] for step in seen.steps])
    singular = torch.linalg.svdvals(there - there.mean(0)).square()
    assert seen.explained == pytest.approx(float(singular[:2].sum() / singular.sum()), rel=1e-4)
    assert np.square(seen.path).sum(0) == pytest.approx(singular[:2].numpy(), rel=1e-3)
    assert seen.path_losses[0] == pytest.approx(course.loss(course.snapshots[0]))
    assert seen.losses.shape == (21, 21)
    for places in (seen.path, seen.ends):
        assert (places > [seen.x[0], seen.y[0]]).all()
        assert (places < [seen.x[-1], seen.y[-1]]).all()
    assert ((seen.inside > 0) & (seen.inside <= 1.0001)).all()


def test_the_loss_of_the_plane_is_that_of_its_weights(course):
    """A course in a plane is all there is to see: contours there are the losses of its own snapshots."""
    first, last = course.snapshots[0], course.snapshots[48]
    straight = ProbedRun(course.setup, {s: first + (last - first) * s / 48 for s in course.snapshots})
    seen = plane(straight, Line())
    assert seen.explained == pytest.approx(1.0, abs=1e-4)
    assert np.ptp(seen.path[:, 1]) == pytest.approx(0, abs=1e-3)
    middle = seen.losses[10]  # the row of the grid on which the line lies
    wanted = np.interp(seen.path[:, 0], seen.x, middle)
    assert seen.path_losses == pytest.approx(wanted, rel=0.05)


def test_who_predicts_what_happens_agrees_and_who_holds_does_not(course):
    class Clairvoyant(Hold):
        def extrapolate(self, history, t_history, t_end, layout):
            return course.snapshots[int(t_end)].unsqueeze(0)

    right = layers(course, Clairvoyant())
    assert right.cosine == pytest.approx(np.ones_like(right.cosine), abs=1e-5)
    assert right.ratio == pytest.approx(np.ones_like(right.ratio), abs=1e-5)
    still = layers(course, Hold())
    assert np.isnan(still.cosine).all()
    assert (still.ratio == 0).all()
    ahead = horizons(course, Clairvoyant())
    assert ahead.judged[:, :4] == pytest.approx(ahead.twin[:, :4], rel=1e-6)
    assert (ahead.judged[:, 0] == 0).all()


def test_attention_is_what_the_softmax_of_the_encoder_gives(course, learned):
    seen = attention(course, learned)
    assert seen.shares.sum(1) == pytest.approx(np.ones(len(seen.starts)))
    assert seen.by_latent.sum(1) == pytest.approx(np.ones(4))
    assert seen.even.sum() == pytest.approx(1)
    assert seen.shares[1] == pytest.approx(seen.by_latent.mean(0))
    assert not learned.perceiver.cross_attend_block.cross_attn.fn.dropout._forward_hooks

    redeliver_lost_signals = []
    encoder = learned.perceiver.cross_attend_block.cross_attn.fn
    hook = encoder.register_forward_hook(
        lambda _m, inputs, kwargs, _o: redeliver_lost_signals.append((*inputs, kwargs)), with_kwargs=True
    )
    course.predicted(learned, seen.starts[0], course.reach)
    hook.remove()
    latents, kwargs = redeliver_lost_signals[0]
    query, key = encoder.to_q(latents), encoder.to_kv(kwargs["context"]).chunk(2, -1)[0]
    weights = (query @ key.transpose(1, 2) * encoder.scale).softmax(-1)[0].mean(0).detach()
    first = -(-64 * 8 // 32)  # tokens of the first tensor
    assert seen.shares[0, 0] == pytest.approx(float(weights[:first].sum()), rel=1e-4)


def test_only_perceivers_attend_and_short_trainings_have_no_diagnose(course):
    assert attention(course, Line()) is None
    short = ProbedRun(course.setup, {step: course.snapshots[step] for step in (0, 4, 8)})
    assert diagnose(short, Line()) is None


def test_large_networks_are_looked_at_less_closely():
    small, middle, large = (Detail.of(weights) for weights in (50_000, 2_000_000, 2_000_001))
    assert small > middle > large
    assert small == (512, 21, 33, 8)


def test_many_tensors_are_grouped_by_module_then_in_runs():
    def named(*names):
        return Layout(tuple(WeightTensor(name, (2,), "float32") for name in names))

    assert groups(named("a.weight", "a.bias"), 2) == (("weight", "bias"), (0, 1))
    assert groups(named("a.0.w", "a.0.b", "a.1.w", "b.w"), 3) == (("a.0", "a.1", "b.w"), (0, 0, 1, 2))
    assert groups(named("net.a.w", "net.b.w"))[0] == ("a.w", "b.w")
    assert groups(named("net.0.w", "net.1.w"))[0] == ("net.0.w", "net.1.w")
    assert groups(named("encoder." + 5 * "layers." + "w", "head"))[0] == ("encode….layers.layers.layers.w", "head")
    assert groups(named("a", "b", "c", "d", "e"), 3) == (("a … b", "c … d", "e"), (0, 0, 1, 1, 2))


def test_an_evaluation_publishes_all_charts_and_the_page(published):
    _, tracker = published
    assert list(tracker.figures) == NAMES
    assert {"report.md", "report.html"} <= tracker.texts.keys()


def test_loss_curves_show_the_losses(published, drawn):
    comparison, _ = published
    chart = drawn["loss_curves"]
    above, below = chart.drawn().axes
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    prominent = [name for name, look in looks(comparison).items() if look.prominent]
    assert {"hold", "line", comparison.judged} <= set(prominent)
    for name in prominent:
        wanted = np.median([curve.losses for curve in comparison.curves_of(name)], axis=0)
        assert lines[name] == pytest.approx(wanted)
    events = [event for curve in comparison.curves_of(comparison.judged) for event in curve.events]
    assert sum(len(line.get_xdata()) for line in below.lines) == len(events) > 0
    in_page = {trace["name"] for trace in chart.interactive()["data"]}
    assert set(comparison.contenders) <= in_page


def test_steps_to_target_shows_each_seed_and_the_interval(published, drawn):
    comparison, _ = published
    judged = Summary(comparison).judged.full
    traces = [trace for trace in drawn["steps_to_target"].interactive()["data"] if trace["name"] == comparison.judged]
    dots, mean, interval, speed_up = traces
    assert dots["x"] == [48 if steps is None else steps for steps in judged.steps]
    assert mean["x"][0] == pytest.approx(judged.counted_steps)
    assert interval["x"] == [judged.speed_up.low, judged.speed_up.high]
    assert speed_up["x"] == [judged.speed_up.mean]


def test_horizons_show_the_log_loss_of_each_prediction(course, learned, drawn):
    start, horizon = 8, 16
    panel = drawn["horizons"].drawn().axes[0]
    ours = next(line for line in panel.lines if line.get_label() == "perceiver")
    value = dict(zip(*ours.get_data(), strict=True))[horizon]
    before, after = course.loss(course.snapshots[start]), course.loss(course.predicted(learned, start, horizon))
    assert value == pytest.approx(math.log(after / before))


@pytest.mark.parametrize("name", NAMES)
def test_each_chart_is_valid_both_ways_and_the_same_each_time(name, drawn):
    chart = drawn[name]
    first = rendered(chart.drawn())
    assert first["svg"] == rendered(chart.drawn())["svg"]
    text = "".join(ElementTree.fromstring(first["svg"]).itertext())
    assert chart.title in text
    go.Figure(json.loads(to_json(chart.interactive())))  # raises where Plotly knows no such property
    assert chart.caption.endswith(".")


def test_the_page_loads_nothing_and_holds_the_numbers(published, drawn):
    comparison, tracker = published
    html = tracker.texts["report.html"]
    assert len(html.encode()) < 5_000_000
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=", html)
    assert "@import" not in html.partition("<script>")[0]
    assert html.count('<div id="') == len(NAMES)
    own = html.rpartition("</noscript>")[2]
    assert f"{Summary(comparison).judged.final_loss:.4f}" in own
    assert "DOES NOT FAIL" in own or "fails" in own
    again = report_html(comparison, list(drawn.values()))
    assert again.rpartition("</noscript>")[2] == own
