"""A small classification, its network, and trainings of it with and without `Nowcast`."""

import torch
from torch import nn
from torch.utils.data import Dataset

from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.nowcast import Nowcast
from metaopt.weights.layout import Layout

HELD_OUT = 10_000
"""The batch for guards: no training here gets to this step."""

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
"""Arguments of a `Trainer` of Lightning that writes nothing."""


def network(*middle):
    """A network of 51 weights, always the same; `middle` are layers of six numbers before its activation."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.ReLU(), nn.Linear(6, 3))


def network_with_batchnorm():
    """The same with BatchNorm, as its second layer."""
    return network(nn.BatchNorm1d(6))


def batch(step, count=16):
    """Points, and which of their first three coordinates is the largest."""
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(step))
    return inputs, inputs[:, :3].argmax(1)


class Rows(Dataset):
    """The same points as a data set of dictionaries."""

    def __init__(self, seed, count=64):
        self.inputs, self.labels = batch(seed, count)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


def loss_at(model, step):
    """The loss on the batch of a step."""
    inputs, labels = batch(step)
    return nn.functional.cross_entropy(model(inputs), labels)


def train(model, optimizer, steps):
    """Train with the batches of these steps."""
    for step in steps:
        optimizer.zero_grad()
        loss_at(model, step).backward()
        optimizer.step()


def adam(model, **options):
    """The base optimizer, unless a test is about another one."""
    return torch.optim.Adam(model.parameters(), lr=0.01, **options)


def trained_alone(steps, build=network):
    """A network after so many steps of the base optimizer alone."""
    model = build()
    train(model, adam(model), range(steps))
    return model


EVERY_NOWCAST = {"every": 4, "stride": 2, "horizons": 4, "max_overhead": None}


def nowcast(model, forecaster="Line", base=None, **options):
    """A nowcast every four steps, by a forecaster or by a new one of a name, without a guard."""
    if forecaster in GENERATIVE_OPTIMIZERS.names():
        forecaster = get_optimizer_model(forecaster)
    return Nowcast(base or adam(model), model, forecaster, **{**EVERY_NOWCAST, **options})


def guarded(model, *arguments, **options):
    """The same with a guard, of the loss on the batch for guards."""
    return nowcast(model, *arguments, guard=lambda: loss_at(model, HELD_OUT), **options)


def weights(model):
    """The trainable weights as one vector."""
    return Layout.of(model).read(model)


def same_state(one, other):
    """Whether two networks have the same weights and buffers, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
