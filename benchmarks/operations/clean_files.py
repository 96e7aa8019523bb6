"""Clean files of all kinds that are validated, made by the code that makes them for users.

A folder of them has `trajectories/`, `checkpoints/`, `models/` and `lines/`.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import save_optimizer
from metaopt.growth.policy import Policy, description_of, save_policy
from metaopt.metatraining.config import TrainOptimizerConfig
from metaopt.metatraining.trainer import train_optimizer
from metaopt.operations.validation.packing import pack
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.tasks.tokenizers import Bytes
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.weights.files import read_tensors, write_tensors

SEEDS = 10
"""Distance of the random seeds of two folders of clean files."""

_SMALL = {"epochs": 2, "snapshot_every": 5, "batch_size": 128, "target_model": "MLP", "target_options": {"widths": [8]}}

MORE: Mapping[str, Mapping[str, Any]] = {
    "ema": {"averaging": 0.9},
    "bfloat16": {"snapshot_dtype": "bfloat16"},
    "batchnorm": {"target_model": "ConvNet", "target_options": {"widths": [4], "norm": "batch"}},
    "grown": {"controller": "heuristic", "growth_options": {"interval": 5, "taps": ["layers.1"]}},
    "frozen": {"space": "layers.3"},
    "steep": {"lr": "0.1"},
}
"""Further recordings, by the names of their runs."""

_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon")
_THINGS = ("a boat", "two keys", "the red kite", "an old map", "seven stones", "the lamp", "a blue cup", "some rope")
_PLACES = ("by the lake", "in Oslo", "at noon", "under the bridge", "on the roof", "near the mill", "after dark")


def make_clean(folder: Path, seed: int, *, names: Iterable[str] = MORE, lines: int = 40) -> None:
    """Write clean files.

    Args:
        folder: a new folder.
        seed: number of the folder; no two have a random seed in common.
        names: further recordings to make.
        lines: of each file of conversations [count].
    """
    first = seed * SEEDS
    places = {"trajectory_dir": folder / "trajectories", "checkpoint_dir": folder / "checkpoints"}
    _record("plain", {"seed": first, "runs": 3}, places)
    for number, name in enumerate(names):
        _record(name, {"seed": first + 3 + number, **MORE[name]}, places)
    _shard(sorted((folder / "trajectories" / "plain").glob("seed_*"))[1])
    _train(folder, first, places)
    _export(folder, seed)
    write_lines(folder / "lines", seed, lines)


def write_lines(folder: Path, seed: int, count: int) -> None:
    """Write a file of each schema; the lines of two files differ."""
    folder.mkdir(parents=True)
    numbers = range(seed * 10 * count, (seed * 10 + 10) * count)
    chats = [_chat(number) for number in numbers[:count]]
    files: dict[str, Iterable[Mapping[str, Any]]] = {
        "chat": ({"schema": "chat_sft_v1", "id": str(index), "messages": each} for index, each in enumerate(chats)),
        "completion": map(_completion, numbers[count : 2 * count]),
        "syllo": map(_syllogism, numbers[2 * count : 3 * count]),
        "packed": (each.line() for each in pack(map(_chat, numbers[3 * count : 4 * count]), Bytes(), 512)),
    }
    for name, values in files.items():
        text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _record(name: str, options: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    settings: dict[str, Any] = {**_SMALL, **options}
    train_targets(TrainTargetConfig(run_name=name, **settings, **places), SilentTracker())  # type: ignore[arg-type]


def _train(folder: Path, seed: int, places: Mapping[str, Path]) -> None:
    """Train an optimizer, and keep a copy of it as a model."""
    options = {"dim": 16, "num_latents": 2, "latent_dim": 16, "heads": 2}
    settings: dict[str, Any] = {"epochs": 1, "pairs_per_epoch": 8, "held_out": 1, "objective": "weights", "seed": seed}
    config = TrainOptimizerConfig(run_name="plain", optimizer_options=options, **settings, **places)  # type: ignore[arg-type]
    trained = train_optimizer(config, SilentTracker())
    save_optimizer(trained.optimizer, folder / "models" / "optimizer.safetensors")


def _shard(trajectory: Path) -> None:
    """Write the snapshots of a trajectory again, in shards."""
    for path in trajectory.glob("step_*.safetensors"):
        tensors, facts = read_tensors(path, "snapshot")
        write_tensors(path, tensors, "snapshot", facts, shard_size=1024)


def _export(folder: Path, seed: int) -> None:
    """Write an untrained optimizer, a policy, and a checkpoint of phase 3 with that policy.

    Training a policy needs packages of the extra `growth`, which take long to import.
    """
    save_optimizer(get_optimizer_model("Slopes"), folder / "models" / "slopes.safetensors")
    policy = Policy(["WAIT", "CULL"], hidden=(8,))
    save_policy(policy, folder / "models" / "policy.safetensors")
    state = {"policy": policy.state_dict(), "rollout": 3, "decisions": 12, "curve": [[0.5, 0.1]], "metrics": {}}
    facts = {"controller": {"task": "digits"}, "settings": {"seed": seed}, "policy": description_of(policy)}
    save_checkpoint(folder / "checkpoints" / "controller" / "rollout_2.safetensors", state, facts)


def _words(number: int) -> Iterator[str]:
    """Three words and the number, the same for each number and all different."""
    chosen = random.Random(number)
    yield from (chosen.choice(_PEOPLE), chosen.choice(_THINGS), chosen.choice(_PLACES), f"No. {number}")


def _chat(number: int) -> list[dict[str, str]]:
    person, thing, place, which = _words(number)
    system = [{"role": "system", "content": "Answer in one sentence; don't guess."}] if number % 3 == 0 else []
    turns = [
        {"role": "user", "content": f"What did {person} find {place}? ({which})"},
        {"role": "assistant", "content": f"{person} found {thing} {place}. – “{which}” ✓"},
    ]
    more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    return [*system, *turns, *(more if number % 4 == 0 else [])]


def _completion(number: int) -> dict[str, Any]:
    person, thing, place, which = _words(number)
    return {"schema": "completion_v1", "prompt": f"{which}: {person} saw", "completion": f" {thing} {place}.\n"}


def _syllogism(number: int) -> dict[str, Any]:
    person, thing, place, which = _words(number)
    value = {
        "schema": "syllo_v1",
        "premises": [f"Whoever is {place} carries {thing}.", f"{person} ({which}) is {place}."],
        "question": f"What does {person} carry?",
        "answer": thing,
        "meta": {"number": number, "nested": [[1.5, None, {"deep": True}]]},
    }
    return value | ({"reasoning": f"{person} is {place}, so the first premise holds."} if number % 2 else {})
