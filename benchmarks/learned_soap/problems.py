"""The small trainings over which the numbers are found. None is a frozen case."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metaopt.targets import get_target_model, target_config
from metaopt.tasks import Task, load_task, task_config
from metaopt.tasks.base import Batch

VALIDATION_EXAMPLES = 1000
"""Most examples of a measurement; texts have a sixteenth of it, since each has many characters [count]."""


class GatedNetwork(nn.Module):
    """A language model with one gated recurrent layer, of linear maps only, so that many can be trained at once."""

    def __init__(self, vocab_size: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.gates = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab_size"]:
        """Logits of the next token at each position."""
        inputs = self.embedding(tokens)
        hidden, outputs = torch.zeros_like(inputs[:, 0]), []
        for step in range(tokens.shape[1]):
            gate, candidate = self.gates(torch.cat([inputs[:, step], hidden], -1)).chunk(2, -1)
            hidden = hidden.lerp(candidate.tanh(), gate.sigmoid())
            outputs.append(hidden)
        return self.head(torch.stack(outputs, 1))


@dataclass(frozen=True)
class Problem:
    """A training: a task, a network and a batch size.

    Attributes:
        data: path of the data in the folder of all data; empty for a task that reads no files.
        folder: the folder of all data.
    """

    task_name: str
    data: str
    task_options: dict[str, Any]
    target: str
    target_options: dict[str, Any]
    batch_size: int
    folder: Path = Path()

    @cached_property
    def task(self) -> Task:
        """The task with its data."""
        path = self.folder / self.data if self.data else None
        return load_task(self.task_name, **task_config(self.task_name, self.task_options, path))

    def network(self, seed: int) -> nn.Module:
        """The network with the initial weights of a random seed."""
        torch.manual_seed(seed)
        if self.target == "GatedNetwork":
            return GatedNetwork(self.task.model_facts["vocab_size"], **self.target_options)
        return get_target_model(self.target, **target_config(self.target, self.task.model_facts, self.target_options))

    def batches(self, seed: int) -> Iterator[Batch]:
        """Training batches, without end."""
        for epoch in count():
            yield from self.task.batches(self.batch_size, seed, epoch)

    def validation(self) -> Batch:
        """The validation examples."""
        examples = VALIDATION_EXAMPLES // 16 if self.task_name == "text" else VALIDATION_EXAMPLES
        return self.task.splits["validation"][:examples]


def problems(folder: Path) -> dict[str, list[Problem]]:
    """The problems by kind of network; a generation trains one of each kind.

    Args:
        folder: folder of all data: MNIST, cifar10_images and text.
    """
    images, text = ("image-folder", "cifar10_images"), ("text", "text/tinyshakespeare.txt")
    small, medium = {"image_size": 6, "flip": True}, {"image_size": 12, "flip": True}
    characters = {"tokenizer": "characters", "validation_fraction": 0.02}
    return {
        "perceptron": [
            Problem(*images, small, "MLP", {"widths": [48, 48]}, 32, folder),
            Problem(*images, small, "MLP", {"widths": [40]}, 32, folder),
            Problem(*images, small, "MLP", {"widths": [32, 32, 32]}, 32, folder),
        ],
        "convolutions": [Problem(*images, medium, "ConvNet", {"widths": [8, 16], "stride": 2}, 32, folder)],
        "recurrent": [Problem(*text, {**characters, "block_size": 12}, "GatedNetwork", {}, 16, folder)],
        "transformer": [
            Problem(*text, {**characters, "block_size": block}, "GPT", {"n_layer": 1, **sizes}, 16, folder)
            for block, sizes in ((16, {"n_head": 2, "n_embd": 24}), (24, {"n_head": 1, "n_embd": 16}))
        ],
    }
