"""Tasks that ask for what is in the context: examples, labels, and the limits of their options."""

from contextlib import nullcontext

import pytest
import torch

from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.core.tracker import SilentTracker
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.tasks import load_task
from metaopt.tasks.retrieval import UNASKED


class Metrics(SilentTracker):
    """The names of all metrics."""

    def __init__(self):
        self.names = set()

    def metrics(self, values, step):
        self.names |= set(values)

    def child(self, name):
        return nullcontext(self)


RECALL = {"pairs": 4, "block_size": 24, "vocab_size": 20, "examples": 200}


@pytest.mark.parametrize("random_filler", [False, True])
def test_associative_recall_asks_once_for_the_value_of_each_key(random_filler):
    task = load_task("associative-recall", **RECALL, random_filler=random_filler)
    for inputs, labels in zip(*task.splits["train"][:], strict=True):
        bound = dict(inputs[:8].view(4, 2).tolist())
        assert len(bound) == len(set(bound.values())) == 4
        assert max(bound) < 10 <= min(bound.values())
        asked = (labels != UNASKED).nonzero().flatten()
        assert {int(inputs[place]): int(labels[place]) for place in asked} == bound
        assert len(asked) == 4
        assert asked.min() >= 8
        assert (asked % 2 == 0).all()
        assert ((inputs[8:] != 0).sum() == 4) != random_filler


def test_queries_come_soon_with_a_small_power_and_anywhere_with_one():
    def mean_place(power):
        labels = load_task("associative-recall", **RECALL | {"block_size": 64}, power=power).splits["train"][:].labels
        return (labels != UNASKED).nonzero()[:, 1].double().mean().item()

    assert mean_place(0.01) < mean_place(0.5) < mean_place(1.0)
    assert mean_place(1.0) == pytest.approx(8 + 55 / 2, abs=1.5)


@pytest.mark.parametrize("options", [{}, {"digits": 3}, {"digits": 18, "block_size": 200}])
def test_a_passkey_is_hidden_at_any_depth_and_asked_for_at_the_end(options):
    task, digits, places = load_task("passkey", examples=300, **options), options.get("digits", 5), []
    for inputs, labels in zip(*task.splits["train"][:], strict=True):
        text, answer = task.decode(inputs), task.decode(labels[-digits:])
        assert (labels[:-digits] == UNASKED).all()
        assert text.endswith("The pass key is " + answer[:-1])
        hidden = f"The pass key is {answer}. Remember it. "
        assert text.count(hidden) == 1
        places.append(text.index(hidden))
    assert min(places) < 20
    assert max(places) > len(text) - 120


@pytest.mark.parametrize("needles", [1, 3])
def test_a_needle_of_several_is_asked_for(tmp_path, needles):
    (tmp_path / "text.txt").write_text("Some wörds of a text. " * 9, encoding="utf-8")
    task = load_task("needle", data_dir=tmp_path / "text.txt", needles=needles, examples=100, block_size=256)
    for inputs, labels in zip(*task.splits["train"][:], strict=True):
        text, answer = task.decode(inputs), task.decode(labels[-5:])
        name = text.split()[-3]
        assert text.count(f"The magic number of {name} is {answer}. ") == 1
        assert text.count("The magic number of ") == needles + 1
        assert "wörds" in text


def test_accuracy_counts_answers_and_exact_match_counts_examples():
    task = load_task("associative-recall", **RECALL)
    labels = task.splits["train"][:2].labels
    outputs = torch.nn.functional.one_hot(labels.long().clamp(min=0), 20).float()
    wrong = (labels[0] != UNASKED).nonzero()[0]
    outputs[0, wrong] = 0
    outputs[:, 0] = torch.nan  # what is not asked for has no effect
    figures = task.metrics(outputs.nan_to_num(), labels)
    assert figures["accuracy"] == pytest.approx(7 / 8)
    assert figures["exact_match"] == 0.5
    asked = labels != UNASKED
    loss = torch.nn.functional.cross_entropy(outputs[asked], labels[asked].long())
    assert task.loss(outputs.nan_to_num(), labels) == pytest.approx(loss.item())


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("associative-recall", {"pairs": 8, "block_size": 31}, InvalidConfig, "take 32 tokens; raise block_size"),
        ("associative-recall", {"pairs": 8, "vocab_size": 16}, InvalidConfig, "7 keys for 8 pairs; expected 18"),
        ("associative-recall", {"pairs": 1, "vocab_size": 4, "block_size": 4}, TaskDataError, "only 2 of 20000"),
        ("passkey", {"block_size": 64}, InvalidConfig, "take 79 tokens; raise block_size"),
        ("needle", {"needles": 13}, InvalidConfig, "needles is 13"),
    ],
)
def test_impossible_options_are_refused_with_what_would_work(name, options, error, message):
    with pytest.raises(error, match=message):
        load_task(name, **options)
    if "take" in message:
        fits = int(message.split("take ")[1].split()[0])
        assert load_task(name, **options | {"block_size": fits}, examples=40).model_facts["block_size"] == fits


@pytest.mark.parametrize("network", ["GPT", "Hope"])
def test_networks_are_recorded_on_it_with_the_accuracy_of_answers(tmp_path, network):
    small = {"n_layer": 1, "n_head": 1, "n_embd": 8, **({"memory": "none"} if network == "Hope" else {})}
    config = TrainTargetConfig(
        run_name="recall", task="associative-recall", task_options=RECALL, target_model=network, epochs=1,
        target_options=small, trajectory_dir=tmp_path, checkpoint_dir=tmp_path,
    )  # fmt: skip
    tracker = Metrics()
    train_targets(config, tracker)
    assert {"val_accuracy", "val_exact_match"} <= tracker.names
