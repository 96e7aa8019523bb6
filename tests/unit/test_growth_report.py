"""The report and the figure of a network that grew: what grew where and when, which gates refused it, and α."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.figures import rendered
from metaopt.growth import GrowthConfig
from metaopt.growth.history import Event, GrowthHistory, Measurement, Refusal
from metaopt.growth.stages import Stage
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.growth_figure import alpha_curve, growth_figure, stages_of
from metaopt.recording.growth_report import describe_growth, growth_report
from metaopt.recording.record import train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.recording.twins import train_twins

from ..small_growth import Training

TAP = "blocks.1"


def event(step, before, after, blueprint="conv", reason="because"):
    return Event(step, TAP, Stage(before), Stage(after), blueprint, reason)


HISTORY = GrowthHistory(
    GrowthConfig(blend_steps=20, schedule="cosine"),
    1000,
    [
        Measurement(step, loss, {TAP: 0.0}, weights)
        for step, loss, weights in (
            (0, 2.0, 0),
            (10, 1.5, 0),
            (20, 1.2, 40),
            (30, 1.1, 0),
            (40, 1.0, 200),
            (90, 0.5, 200),
        )
    ],
    [
        event(10, "dormant", "germinated", "norm"),
        event(11, "germinated", "training", "norm"),
        event(20, "training", "culled", "norm", "asked for"),
        event(21, "culled", "embargoed", "norm"),
        event(25, "embargoed", "resetting", "norm"),
        event(26, "resetting", "dormant", ""),
        event(30, "dormant", "germinated"),
        event(31, "germinated", "training"),
        event(40, "training", "blending", reason="loss 1 with it, 1.1 without it"),
        event(60, "blending", "shadowing"),
        event(80, "shadowing", "probationary"),
        event(90, "probationary", "fossilized", reason="loss 0.5 with it, 0.6 without it"),
    ],
    [Refusal(60, TAP, Stage.SHADOWING, "conv", "worse"), Refusal(70, TAP, Stage.SHADOWING, "conv", "still worse")],
    [(10, "GERMINATE_NORM"), (20, "CULL"), (30, "GERMINATE_CONV")],
)


def test_a_report_says_what_grew_where_and_when_and_what_it_weighs():
    report = growth_report("HostCNN on digits", "heuristic", HISTORY)
    assert describe_growth(HISTORY) in report
    assert describe_growth(HISTORY) == "It grew by 200 weights (+20%): conv at blocks.1 from step 90; 1 seed removed."
    assert "- Weights: 1,000 before, 1,200 after (1.20 times)." in report
    assert "- Controller: `heuristic`, 5 decisions, 3 of them an action, 2 refusals by a gate." in report
    assert "- Settings: `blend_steps=20 schedule=cosine`" in report
    assert "| norm at blocks.1 | 40 | 10 | – | – | – | 20 | asked for |" in report
    assert "| conv at blocks.1 | 200 | 30 | 40 | 60 | 90 | – | loss 0.5 with it, 0.6 without it |" in report
    assert "[growth.png](growth.png)" in report
    assert "twins" not in report


def test_a_report_says_which_gates_refused_and_why():
    report = growth_report("HostCNN on digits", "heuristic", HISTORY)
    *_, gates = report.split("## Gates")
    assert [line for line in gates.splitlines() if "conv" in line] == [
        "| 40 | conv at blocks.1 | training → blending | yes | loss 1 with it, 1.1 without it |",
        "| 60 to 70 | conv at blocks.1 | shadowing → probationary | no, 2 times | still worse |",
        "| 80 | conv at blocks.1 | shadowing → probationary | yes | because |",
        "| 90 | conv at blocks.1 | probationary → fossilized | yes | loss 0.5 with it, 0.6 without it |",
    ]


def test_a_seed_in_progress_is_named():
    stopped = replace(HISTORY, events=HISTORY.events[:9], refusals=[])
    assert "conv at blocks.1 is still blending; 1 seed removed" in describe_growth(stopped)
    assert "| – | – | – | still blending |" in growth_report("x", "wait", stopped)


def test_a_network_that_has_not_grown_has_a_report():
    waits = replace(HISTORY, events=[], refusals=[], decisions=[], measurements=HISTORY.measurements[:2])
    report = growth_report("x", "wait", waits)
    assert "nothing stays; 0 seeds removed" in report
    assert "## " not in report


def test_losses_of_twins_are_compared():
    losses = {0: {"grown": 1.0, "static": 2.0, "equal-size": 0.8}, 1: {"grown": 3.0, "static": 3.0}}
    report = growth_report("x", "wait", HISTORY, losses)
    assert "| random seed | grown | static | grown / static | equal-size | grown / equal-size |" in report
    assert "| 0 | 1 | 2 | 0.500 | 0.8 | 1.250 |" in report
    assert "| 1 | 3 | 3 | 1.000 | – | – |" in report
    assert "[growth_and_twins.png](growth_and_twins.png)" in report


CONFIG = TrainTargetConfig(
    run_name="grown",
    target_model="HostCNN",
    target_options={"widths": (4, 8)},
    lr="1e-2",
    epochs=4,
    batch_size=128,
    controller="schedule:conv@0.1",
    growth_options={"interval": 4, "train_steps": 4, "blend_steps": 11, "schedule": "sigmoid", "examples": 32},
)


def test_alpha_is_drawn_as_it_was_at_each_step():
    state = TargetTrainingState.from_config(CONFIG, CONFIG.load_task(), torch.device("cpu"))
    state.driver.start()
    growth, seen = state.driver.growth, {}
    for _ in range(CONFIG.epochs):
        for step in state.epoch_steps():
            state.after_step(step.take())
            seen[state.step] = growth.alpha_of(growth.slots[TAP])
    history = state.driver.history
    ((first, last),) = [(a, b) for stage, a, b in stages_of(history, TAP, state.step) if stage is Stage.BLENDING]
    steps, shares = alpha_curve(history, first, last)
    assert steps.tolist() == list(range(first, first + 12))
    assert shares.tolist() == pytest.approx([seen[step] for step in steps])
    assert len({round(share, 3) for share in shares}) == 12


def test_a_figure_is_drawn_with_twins_and_with_seeds_that_were_removed():
    figure = growth_figure("Growth", {"grown": HISTORY, "static": HISTORY}, end=100)
    assert rendered(figure)["png"]
    names = [text.get_text() for text in figure.subfigs[1].axes[1].texts]
    assert names == ["norm", "conv"]


def test_a_training_that_took_no_step_has_a_figure_without_a_warning():
    start = replace(HISTORY, measurements=HISTORY.measurements[:1], events=[])
    assert rendered(growth_figure("Growth", {"grown": start}, end=0))["png"]


def test_a_gate_that_refuses_is_noted_and_survives_a_checkpoint():
    training = Training("HostCNN")
    training.growth.germinate(TAP, "conv")
    training.train(4)
    slot = training.growth.slots[TAP]
    slot.loss_with, slot.loss_without = 2.0, 1.0
    assert not training.growth.advance(TAP).passed
    expected = [Refusal(4, TAP, Stage.TRAINING, "conv", "loss 2 with it, 1 without it")]
    assert training.growth.refusals == expected
    resumed = Training("HostCNN")
    resumed.load(training.state())
    assert resumed.growth.refusals == expected


class Texts(SilentTracker):
    """Keeps the texts; children share them."""

    def __init__(self):
        self.texts = {}

    def text(self, text, name):
        self.texts[name] = text


def test_a_run_that_grew_has_a_report_which_the_twins_complete(tmp_path):
    tracker = Texts()
    config = replace(CONFIG, twins=True, trajectory_dir=tmp_path / "t", checkpoint_dir=tmp_path / "c")
    folders = train_targets(config, tracker)
    assert tracker.texts["report.md"].startswith("# Growth of HostCNN on digits, random seed 0\n")
    history = GrowthHistory.read(folders[0])
    assert history.settings == GrowthConfig.from_mapping(CONFIG.growth_options)
    ratios = train_twins(config, folders, tracker)
    assert f"| {ratios['loss_over_static']:.3f} |" in tracker.texts["report.md"]
