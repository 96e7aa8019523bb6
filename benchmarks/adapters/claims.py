"""All claims about adapters, measured and printed by one command: those that hold and those that do not.

    python -m benchmarks.adapters.claims

The worked example in small: a text-to-video network learns captions of coloured shapes. Then its encoder learns new
words, or adapters make it listen to an encoder that has changed. The table has one line per claim: its goal, the mean
and the standard deviation over random seeds, and whether the goal is reached. Finished measurements are stored in the
folder of the results, so that an interrupted command goes on; remove the folder after a change of the code. `--quick`
takes a minute, with trainings that are too short to judge anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import nn

from metaopt.core.config import Range
from metaopt.core.processes import map_in_processes
from metaopt.core.text import counted
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.runner import PairedEvaluation
from metaopt.evaluation.summary import Summary, at_best_rates
from metaopt.generative.files import load_optimizer
from metaopt.probes import get_probe, run_probe, sample_examples

from .._claims import Row, at_least, at_most, between, measure_and_publish
from .._stored import Stored
from . import budget_cost
from .trainings import TASK, Sizes, Trainings, network_of, task_options, without_change

CAPS = (0.10, 0.25, 0.50, None)
_SPECIAL = 0.25  # the budget of two claims
_CROSS_ATTENTION, _SELF_ATTENTION = "cross-attention", "self-attention"
_CROSS, _SELF = r"attn2\.to_(k|v)", r"attn1\.to_(k|v)"

QUICK = Sizes(base_epochs=1, encoder_epochs=1, adapter_epochs=1, nowcast_steps=40)
"""Trainings that are too short to judge anything."""


class Job(NamedTuple):
    """The measurements of one random seed."""

    folder: Path
    seed: int
    sizes: Sizes


def measured(job: Job) -> dict[str, Any]:
    """Train everything of one random seed, and measure it."""
    torch.set_num_threads(1)
    trainings = Trainings(job.folder, job.seed, job.sizes)
    base_weights = trainings.base()
    base, drifted_weights = network_of(base_weights), trainings.drifted(base_weights)
    tuned = network_of(trainings.encoder(base_weights))
    found: dict[str, Any] = {
        "old": trainings.loss(base),
        "new": trainings.loss(base, "new"),
        "shuffled": trainings.loss(base, shuffled=True),
        "new shuffled": trainings.loss(base, "new", shuffled=True),
        "old after": trainings.loss(tuned),
        "new after": trainings.loss(tuned, "new"),
        "embeddings": probed("embedding-drift", base, tuned, trainings),
        "drifted": trainings.loss(network_of(drifted_weights)),
    }
    for name, options in adapters().items():
        adapted = network_of(trainings.adapter(name.replace(" ", "_"), drifted_weights, **options))
        unchanged = without_change(adapted)
        found[name] = {
            "loss": trainings.loss(adapted),
            **probed("null-text-drift", unchanged, adapted, trainings),
            **probed("delta-budgets", unchanged, adapted, trainings),
            **probed("attention-logits", unchanged, adapted, trainings),
        }
    return found


def adapters() -> dict[str, dict[str, Any]]:
    """The options of the adapters that are compared, by name: cross-attention within budgets, and self-attention."""
    found = {name_of(cap): {"include": _CROSS, "delta_budget": cap} for cap in CAPS}
    return {**found, _SELF_ATTENTION: {"include": _SELF, "allow_self_attention": True}}


def name_of(cap: float | None) -> str:
    """The name of adapters of cross-attention within a budget."""
    return _CROSS_ATTENTION if cap is None else f"{_CROSS_ATTENTION} within {cap}"


def probed(probe: str, before: nn.Module, after: nn.Module, trainings: Trainings) -> Mapping[str, float]:
    """What a probe measures on old words."""
    task = trainings.tasks["old"]
    return run_probe(get_probe(probe), before, after, task, sample_examples(task, "validation", 128)).values


def nowcasts(job: Job) -> dict[str, float]:
    """Speed-ups of contenders in a training of adapters of cross-attention, over Adam alone, by name."""
    trainings = Trainings(job.folder, job.seed, job.sizes)
    config = EvaluateConfig(
        task=TASK,
        task_options=task_options("old"),
        target_model="TextToVideo",
        initial_weights=trainings.drifted(trainings.base()),
        mode="adapter",
        adapter="lora",
        include=_CROSS,
        rank=job.sizes.rank,
        alpha=job.sizes.rank,
        lr=Range(job.sizes.adapter_lr, job.sizes.adapter_lr),
        batch_size=job.sizes.batch_size,
        steps=job.sizes.nowcast_steps,
        every=20,
        stride=10,
        seeds=1,
        seed=1000 + job.seed,
        evaluate_every=10,
        controls=False,
        baselines="none",
        cache_dir=None,
        threads=1,
    )
    paired = PairedEvaluation(config, trainings.tasks["old"], {"builtin": load_optimizer("builtin")})
    summary = Summary(at_best_rates(paired.compare()))
    return {each.contender: each.full.speed_up.mean for each in summary.contenders}


def everything(job: Job) -> dict[str, Any]:
    """All figures of one random seed."""
    return {**measured(job), "nowcasts": nowcasts(job)}


Found = Sequence[Mapping[str, Any]]
"""The figures of each random seed."""


def rows(found: Found) -> list[Row]:
    """A row for each claim."""
    return [*_encoder_rows(found), *_adapter_rows(found), *_nowcast_rows(found)]


def cost_of_budgets() -> list[Row]:
    """The share of a training step that a delta budget takes."""
    found = {name: budget_cost.measured(*case) for name, case in budget_cost.CASES.items()}
    return [
        at_most(
            f"share of the CPU time of a step that a delta budget takes, adapters of {name}", 0.03, [each["share"]],
            f"rank {each['rank']}, quartiles {each['least']:.3f} to {each['most']:.3f}, no random seeds",
        )
        for name, each in found.items()
    ]  # fmt: skip


def _encoder_rows(found: Found) -> list[Row]:
    def each(figure: Callable[[Mapping[str, Any]], float]) -> list[float]:
        return [figure(seed) for seed in found]

    return [
        between(
            "control: loss of the base on new words, over its loss on new words with captions of other videos",
            (0.9, 1.1),
            each(lambda seed: seed["new"] / seed["new shuffled"]),
            "1: new words tell the base nothing",
        ),
        between(
            "control: loss of the base on new words, over its loss on old words with captions of other videos",
            (0.9, 1.1),
            each(lambda seed: seed["new"] / seed["shuffled"]),
            "above 1: unknown words mislead more than wrong ones, which are right by chance in a quarter",
        ),
        at_least(
            "fine-tuning the encoder: share of the gap between new and old words that it closes",
            0.8,
            each(lambda seed: (seed["new"] - seed["new after"]) / (seed["new"] - seed["old"])),
        ),
        at_most(
            "the same: loss on old words over that before",
            1.05,
            each(lambda seed: seed["old after"] / seed["old"]),
        ),
        at_least(
            "the same: mean cosine of the embeddings of old words with those before",
            0.90,
            each(lambda seed: seed["embeddings"]["mean_cosine"]),
        ),
    ]


def _adapter_rows(found: Found) -> list[Row]:
    def each(name: str, figure: str) -> list[float]:
        return [seed[name][figure] for seed in found]

    recovered = {name: [_recovered(seed, name) for seed in found] for name in adapters()}
    own, cross = recovered[_SELF_ATTENTION], recovered[_CROSS_ATTENTION]
    drifts = zip(each(_SELF_ATTENTION, "null_drift"), each(_CROSS_ATTENTION, "null_drift"), strict=True)
    budgets = [
        Row(f"the same within a budget of {cap:g}", "", recovered[name_of(cap)], "") for cap in CAPS if cap is not None
    ]
    rising = [min(_steps([recovered[name_of(cap)][index] for cap in CAPS])) for index in range(len(found))]
    over = [max(seed[name_of(cap)]["largest_change"] / cap - 1 for cap in CAPS if cap is not None) for seed in found]
    logits = [seed[name_of(_SPECIAL)] for seed in found]
    return [
        at_least(
            "adapters of cross-attention: share of the gap by a changed encoder that they recover", 0.5, cross,
            f"the encoder's change raises the loss {_mean_ratio(found):.2f} times",
        ),
        at_least(
            "the same over adapters of self-attention, of equal size", 1.2,
            [ours / theirs for ours, theirs in zip(cross, own, strict=True)],
        ),
        *budgets,
        at_least(f"least of these shares within a budget of {_SPECIAL:g}", 0.4, [min(recovered[name_of(_SPECIAL)])]),
        at_least("least rise of the share from a budget to the next larger one", 0.0, rising, "rises with the budget"),
        at_most("largest change of a matrix over its budget, less 1", 2e-6, over),
        at_least(
            "null-text drift: self-attention over cross-attention", 1.2, [ours / theirs for ours, theirs in drifts]
        ),
        between(
            f"spread of attention logits over that before, cross-attention, budget {_SPECIAL:g}", (0.9, 1.1),
            [seed["cross_ratio"] for seed in logits],
            f"largest of a block {max(seed['cross_largest_ratio'] for seed in logits):.2f}",
        ),
        between(
            f"spread of attention logits over that before, self-attention, budget {_SPECIAL:g}", (0.9, 1.1),
            [seed["self_ratio"] for seed in logits],
        ),
    ]  # fmt: skip


def _nowcast_rows(found: Found) -> list[Row]:
    contenders = [name for name in found[0]["nowcasts"] if name != "hold"]
    return [
        Row(f"steps of Adam alone over those of {name}, adapters of cross-attention", "", speed_ups, "printed")
        for name in contenders
        for speed_ups in [[seed["nowcasts"][name] for seed in found]]
    ]


def _recovered(seed: Mapping[str, Any], name: str) -> float:
    gap: float = seed["drifted"] - seed["old"]
    return float(seed["drifted"] - seed[name]["loss"]) / gap


def _mean_ratio(found: Found) -> float:
    return sum(seed["drifted"] / seed["old"] for seed in found) / len(found)


def _steps(values: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(values)]


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Random seeds of each result.")
@click.option("--workers", default=2, show_default=True, help="Random seeds that are measured at the same time.")
@click.option("--quick", is_flag=True, help="Everything in a minute, with trainings too short to judge anything.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("claims"), show_default=True, help="Folder.")
def main(seeds: int, workers: int, quick: bool, output: Path) -> None:
    """Measure all claims, print them, and write claims.json and claims.md."""
    output.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if quick else Sizes()
    jobs = [Job(output, seed, sizes) for seed in range(seeds)]
    stored = Stored(output / "finished.jsonl")
    found: dict[int, Any] = {}
    for index, result in map_in_processes(everything, jobs, workers):
        if isinstance(result, Exception):
            raise result
        found[index] = stored.of({"seed": index, "sizes": str(sizes)}, partial(dict, result))
    torch.set_num_threads(1)
    title = f"Claims about adapters, {counted(seeds, 'random seed')}"
    measures = [lambda: rows([found[index] for index in range(seeds)]), cost_of_budgets]
    measure_and_publish(title, measures, output, quick=quick)


if __name__ == "__main__":
    main()
