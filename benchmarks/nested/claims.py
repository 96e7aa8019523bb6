"""All claims about nested learning, measured and printed by one command: those that hold and those that do not.

    python -m benchmarks.nested.claims --text-dir DIR

DIR has tinystories.txt and tinyshakespeare.txt. The table has one line per claim: its goal, the mean and the standard
deviation over random seeds, and whether the goal is reached. Without a goal a figure is only printed. Finished
measurements are stored in the folder of the results, so that an interrupted command goes on; remove the folder after a
change of the code. `--quick` runs everything in minutes, with trainings that are too short to judge anything.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch

from metaopt.core.errors import TaskDataError
from metaopt.core.text import counted
from metaopt.nested import HopeConfig
from metaopt.tasks import load_task

from .._claims import Row, at_least, at_most, chosen, measure_and_publish
from .._stored import Stored
from . import forgetting, hope_against_gpt, rebound_keys, shifted_stream, step_cost
from .hope_against_gpt import GPT, NETWORKS, Compared, Setting

_TITLE = "Claims about nested learning"


@dataclass(frozen=True)
class Plan:
    """Sizes of all measurements.

    Attributes:
        stories, plays: TinyStories and Shakespeare.
        seeds: random seeds of a result [count].
        quick: whether trainings are too short to judge anything.
        optimizers: results of `benchmarks.nested.hope_optimizer`, whose meta-trainings take hours.
    """

    stories: Path
    plays: Path
    seeds: int
    quick: bool
    optimizers: Path | None = None

    def of(self, full: int, quick: int) -> int:
        """A size."""
        return quick if self.quick else full

    def setting(self, task: str, steps: int, batch: int, **options: Any) -> Setting:
        """A comparison of HOPE with a GPT."""
        if task != "text":
            options["examples"] = self.of(10_000, 400)
        return Setting(task, options, steps=self.of(steps, 8), batch=batch, seeds=self.seeds)

    @property
    def text(self) -> Setting:
        """TinyStories in pieces of SentencePiece."""
        options = {"tokenizer": "sentencepiece", "vocab_size": 1000, "block_size": 64}
        return self.setting("text", 300, 16, data_dir=self.stories, **options)

    @property
    def recall(self) -> Setting:
        """Four pairs in 32 tokens."""
        return self.setting("associative-recall", 1000, 32, pairs=4, block_size=32, vocab_size=32)

    @property
    def passkey(self) -> Setting:
        """Three digits in 128 bytes."""
        return self.setting("passkey", 1600, 16, digits=3, block_size=128)

    @property
    def needle(self) -> Setting:
        """Three digits in 160 bytes of TinyStories."""
        return self.setting("needle", 600, 16, digits=3, block_size=160, data_dir=self.stories)


Measure = Callable[[Plan, Stored], list[Row]]
_CHUNK = HopeConfig().chunk
_BESIDE_GPT = ("Hope", "no memory")
_WINDOWS = ("window", "window without memory")
_ABLATIONS = tuple(name for name in NETWORKS if name not in (*_BESIDE_GPT, *_WINDOWS))


def rebound(plan: Plan, stored: Stored) -> list[Row]:
    """A memory on a stream in which keys get new values."""
    sizes = plan.of(1000, 100), 32, plan.of(7, 3), max(plan.seeds, plan.of(10, 2))
    case = rebound_keys.Case("linear", 24, 0.5, 0.1)
    settings = {"claim": "rebound keys", "sizes": sizes}
    ratios = stored.of(settings, lambda: rebound_keys.compare(case, *sizes)["ratios"])
    claim = "memory with re-bound keys: error with momentum and forgetting over the delta rule alone"
    return [at_most(claim, rebound_keys.GOAL, ratios)]


def shifted(plan: Plan, stored: Stored) -> list[Row]:
    """A continuum memory on a shifted stream."""
    characters, steps = plan.of(60_000, 10_000), plan.of(300, 20)
    texts = shifted_stream.text_of(plan.stories, 2_000_000), shifted_stream.text_of(plan.plays, characters)
    settings = {"claim": "shifted stream", "characters": characters, "steps": steps}
    rates = stored.of(settings, lambda: shifted_stream.best_rates(*texts, steps))
    rows = [
        stored.of({**settings, "seed": seed}, partial(shifted_stream.measure, *texts, steps, seed, rates))
        for seed in range(plan.seeds)
    ]
    updates = f"{rows[0]['updates levels']} of {rows[0]['updates all']} level updates"
    shares = [row["share of gain"] for row in rows]
    return [
        at_most("continuum memory on a shifted stream: loss over frozen weights", 0.97, [row["ratio"] for row in rows]),
        at_least("the same: share of the gain of all levels at each step", 0.8, shares, updates),
        Row(
            "the same: loss over that of a GPT that learns at each step",
            "",
            [row["over GPT"] for row in rows],
            "printed",
        ),
    ]


def perplexity(plan: Plan, stored: Stored) -> list[Row]:
    """HOPE and a GPT on a text."""
    compared = hope_against_gpt.compare(plan.text, _BESIDE_GPT, stored)
    return [
        Row(f"perplexity on TinyStories: {each.network}", "", each.losses.exp().tolist(), "printed", note)
        for each, note in zip(compared, _notes(compared, _vocabulary(plan)), strict=True)
    ]


def recall(plan: Plan, stored: Stored) -> list[Row]:
    """HOPE and a GPT on associative recall."""
    compared = hope_against_gpt.compare(plan.recall, _BESIDE_GPT, stored)
    rows = _accuracies("associative recall", compared)
    gains = (compared[1].accuracies - compared[0].accuracies).tolist()
    claim = "associative recall: accuracy of HOPE less that of the GPT"
    return [Row(claim, "above 0 on each random seed", gains, "reached" if min(gains) > 0 else "missed"), *rows]


def recall_in_a_window(plan: Plan, stored: Stored) -> list[Row]:
    """Associative recall where attention sees the last 8 tokens only."""
    return _accuracies("associative recall", hope_against_gpt.compare(plan.recall, _WINDOWS, stored))[1:]


def passkey(plan: Plan, stored: Stored) -> list[Row]:
    """HOPE and a GPT on passkeys."""
    return _accuracies("passkey", hope_against_gpt.compare(plan.passkey, _BESIDE_GPT, stored))


def needle(plan: Plan, stored: Stored) -> list[Row]:
    """HOPE and a GPT on needles in a text."""
    return _accuracies("needle", hope_against_gpt.compare(plan.needle, _BESIDE_GPT, stored))


def forgotten(plan: Plan, stored: Stored) -> list[Row]:
    """A continuum memory after a second text."""
    characters, steps = plan.of(76_000, 26_000), plan.of(300, 20)
    texts = shifted_stream.text_of(plan.plays, 2_000_000), shifted_stream.text_of(plan.stories, characters)
    settings = {"claim": "forgetting", "characters": characters, "steps": steps}
    rows = [
        stored.of({**settings, "seed": seed}, partial(forgetting.measure, *texts, steps, seed))
        for seed in range(plan.seeds)
    ]
    found = []
    for baseline, name in zip(forgetting.BASELINES, ("all levels at each step", "a single MLP"), strict=True):
        for share in forgetting.SHARES:
            ratios = [row[f"over {baseline} at {share}"] for row in rows]
            claim = f"forgetting of a continuum memory over {name}, where {share:.0%} of the common best is learned"
            result = "confirmed" if fmean(ratios) >= forgetting.GOAL else "refuted"
            found.append(Row(claim, f"known negative: ≥ {forgetting.GOAL}", ratios, result))
    return found


def ablations_on_text(plan: Plan, stored: Stored) -> list[Row]:
    """Parts of HOPE left out, on a text."""
    compared = hope_against_gpt.compare(plan.text, _ABLATIONS, stored)
    notes = _notes(compared)
    return [
        Row(f"perplexity on TinyStories: {each.network}", "", each.losses.exp().tolist(), "printed", note)
        for each, note in list(zip(compared, notes, strict=True))[1:]
    ]


def ablations_on_recall(plan: Plan, stored: Stored) -> list[Row]:
    """Parts of HOPE left out, on associative recall."""
    return _accuracies("associative recall", hope_against_gpt.compare(plan.recall, _ABLATIONS, stored))[1:]


def cost(plan: Plan, stored: Stored) -> list[Row]:
    """The CPU time of a step of HOPE, and for what the host of a GPU would wait."""
    rows = []
    for shape in ("pilot", "tiny") if not plan.quick else ("small",):
        settings = {"claim": "cost", "shape": shape}
        found = stored.of(settings, partial(step_cost.measured, shape, ["self"], [_CHUNK], repeats=plan.of(5, 2)))
        hope = next(row for row in found if row["memory"] == "self")
        spread = f"{hope['least']:.2g} to {hope['most']:.2g}, no random seeds"
        claim = f"CPU time of a step of HOPE over that of a GPT of equal size, shape {shape}"
        rows += [at_most(claim, 3, [hope["over GPT"]], spread)]
        rows += [at_most(f"operations for which the host of a GPU waits, shape {shape}", 0, [hope["waits"]])]
    return rows


def hope_optimizer(plan: Plan, stored: Stored) -> list[Row]:
    """HOPE as a generative optimizer, from the results of its own benchmark."""
    claim = "HopeOptimizer: speed-up to Adam's lowest loss on held-out cases"
    if plan.optimizers is None:
        how = "give --optimizers FILE, the output of `python -m benchmarks.nested.hope_optimizer`"
        return [Row(claim, "", (), "not measured", how)]
    rows = [row for row in json.loads(plan.optimizers.read_text("utf-8"))["rows"] if row["case"] != "all"]
    contenders = dict.fromkeys(row["contender"] for row in rows)
    speed_ups = {name: [row["speed-up"] for row in rows if row["contender"] == name] for name in contenders}
    return [
        Row(f"{claim}: {name}", "", found, "printed", f"mean and deviation over {len(found)} cases")
        for name, found in speed_ups.items()
    ]


CLAIMS: Mapping[str, Measure] = {
    "rebound": rebound,
    "shifted": shifted,
    "recall": recall,
    "perplexity": perplexity,
    "passkey": passkey,
    "needle": needle,
    "forgetting": forgotten,
    "recall-window": recall_in_a_window,
    "ablations-text": ablations_on_text,
    "ablations-recall": ablations_on_recall,
    "cost": cost,
    "hope-optimizer": hope_optimizer,
}
"""What measures the claims, by a short name, in the order of the table."""


def _accuracies(task: str, compared: Sequence[Compared]) -> list[Row]:
    return [
        Row(f"accuracy, {task}: {each.network}", "", each.accuracies.tolist(), "printed", note)
        for each, note in zip(compared, _notes(compared), strict=True)
    ]


def _notes(compared: Sequence[Compared], first: str = "") -> list[str]:
    """Weights, learning rate and ratio of perplexities of each network."""
    notes = []
    for row in hope_against_gpt.rows_of(compared):
        ratio = "" if row["network"] == GPT else f", perplexity over GPT {row['over GPT']:.3g}"
        notes.append(f"{row['weights']:,} weights, lr {row['lr']:g}{ratio}, {row['CPU ms']:.0f} ms CPU per step")
    return [f"{notes[0]}; {first}" if first else notes[0], *notes[1:]]


def _vocabulary(plan: Plan) -> str:
    """The vocabulary in use, and the largest one that the text allows."""
    options = {**plan.text.options, "vocab_size": 32_000}
    try:
        load_task("text", **options)
    except TaskDataError as error:
        largest = re.search(r"vocab_size=(\d+) or less", str(error))
        return f"1,000 pieces; 32,000 do not fit, at most {int(largest[1]):,} do" if largest else str(error)
    return "1,000 pieces; 32,000 would fit"


@click.command()
@click.option("--text-dir", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of both texts.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds of each result.")
@click.option("--quick", is_flag=True, help="Everything in minutes, with trainings too short to judge anything.")
@click.option("--only", default=",".join(CLAIMS), show_default=True, help="Claims, by commas.")
@click.option("--optimizers", type=click.Path(path_type=Path, exists=True), help="Results of hope_optimizer, JSON.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("claims"), show_default=True, help="Folder.")
def main(text_dir: Path, seeds: int, quick: bool, only: str, optimizers: Path | None, output: Path) -> None:
    """Measure all claims, print them, and write claims.json and claims.md."""
    names = chosen(only, CLAIMS)
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    plan = Plan(text_dir / "tinystories.txt", text_dir / "tinyshakespeare.txt", seeds, quick, optimizers)
    stored = Stored(output / "finished.jsonl")
    measures = [partial(CLAIMS[name], plan, stored) for name in names]
    measure_and_publish(f"{_TITLE}, {counted(seeds, 'random seed')}", measures, output, quick=quick)


if __name__ == "__main__":
    main()
