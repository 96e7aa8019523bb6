"""Small networks that grow while they train, with their tasks."""

from functools import cache

import torch
from torch import nn

from metaopt.growth import Growth, GrowthConfig
from metaopt.optimizers import build_optimizer
from metaopt.targets import get_target_model
from metaopt.tasks import Task, load_task
from metaopt.tasks.language_model import CorpusConfig, LanguageModel

TAPS = {
    "HostCNN": ("blocks.1",),
    "HostCNN with BatchNorm": ("blocks.0", "blocks.1"),
    "TransformerHost": ("blocks.0", "blocks.1"),
    "ConvNet": ("blocks.0",),
    "MLP": ("layers.1",),
    "Sequential": ("2",),
}
"""Taps at which each network grows. The last three are no hosts."""

HOSTS = ("HostCNN", "HostCNN with BatchNorm", "TransformerHost")


@cache
def task_of(name: str) -> Task:
    if name == "TransformerHost":
        text = "The quick brown fox jumps over the lazy dog. " * 40
        return LanguageModel(text, CorpusConfig(tokenizer="characters", block_size=8))
    return load_task("digits")


def network(name: str) -> nn.Module:
    """A network, always the same."""
    torch.manual_seed(0)
    facts = task_of(name).model_facts
    if name == "TransformerHost":
        return get_target_model(name, facts, n_embd=8, n_head=2, dropout=0.1)
    if name == "Sequential":
        layers = [nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 10)]
        return nn.Sequential(*layers)
    if name == "HostCNN with BatchNorm":
        return get_target_model("HostCNN", facts, widths=(4, 8, 8), norm="batch")
    return get_target_model(name, facts, **({"widths": (4, 8, 8)} if name == "HostCNN" else {}))


class Training:
    """A training that can grow, with batches that follow from the step.

    Args:
        name: a name in `TAPS`.
        grows: whether it has a `Growth`; without it, the loop is that of any training.
        optimizer: name of the base optimizer.
        options: fields of `GrowthConfig`.
    """

    def __init__(self, name: str, grows: bool = True, optimizer: str = "Adam", **options) -> None:
        self.task, self.model = task_of(name), network(name)
        settings = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = build_optimizer(optimizer, self.model.parameters(), 0.01, settings)
        defaults = {"taps": TAPS[name], "train_steps": 2, "blend_steps": 3, "probation_steps": 1, "embargo_steps": 1}
        config = GrowthConfig(**{**defaults, "examples": 16, **options})
        self.growth = Growth(self.model, self.optimizer, self.task, config) if grows else None
        self.steps = 0
        torch.manual_seed(1)  # dropout

    def batch(self, step: int):
        examples = self.task.splits["train"]
        rows = torch.randint(len(examples), (8,), generator=torch.Generator().manual_seed(step))
        return examples[rows]

    def train(self, steps: int = 1, loss: float | None = None, before_step=lambda: None) -> list:
        """Train; `loss` is reported in place of the last step's."""
        events = []
        for _ in range(steps):
            self.steps += 1
            batch = self.batch(self.steps)
            self.optimizer.zero_grad()
            found = self.task.loss(self.model(batch.inputs), batch.labels)
            found.backward()
            if self.growth:
                self.growth.after_backward(batch)
            before_step()
            self.optimizer.step()
            if self.growth:
                events += self.growth.after_step(self.steps, found.item() if loss is None else loss)
        return events

    def reach(self, stage: str, tap: str, blueprint: str) -> None:
        """Bring the seed of a tap to a stage by three steps in each stage before it; measurements favour it."""
        self.growth.germinate(tap, blueprint)
        slot = self.growth.slots[tap]
        for _ in range(12):
            if slot.stage == stage:
                return
            if slot.stage in ("training", "shadowing", "probationary"):
                self.train(2)
                slot.loss_with, slot.loss_without = 1.0, 2.0
                assert self.growth.advance(tap).passed
            else:
                self.train()
        raise AssertionError(f"{tap} is {slot.stage}, not {stage}")

    def state(self) -> dict:
        """All that a checkpoint of it holds."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps,
            "growth": self.growth.state_dict(), "random": torch.get_rng_state(),
        }  # fmt: skip

    def load(self, state: dict) -> None:
        self.growth.load_state_dict(state["growth"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        torch.set_rng_state(state["random"])


def same(one, other) -> bool:
    """Whether two nested states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other


def structure(model: nn.Module) -> list:
    """Names of modules, parameters and buffers, and how many hooks each module has."""
    modules = [(name, type(module).__name__, len(module._forward_hooks)) for name, module in model.named_modules()]
    return [*modules, *model.state_dict()]
