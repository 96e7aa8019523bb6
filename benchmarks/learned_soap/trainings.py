"""Many whole trainings at once: the same network, start and batches, each with its own numbers of the optimizer."""

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaopt.evaluation.read_outs import GrowingAverage
from metaopt.optimizers.learned_soap import change_by_elements, change_in_bases
from metaopt.optimizers.matrix import is_matrix

from .problems import Problem

GAMMAS = (3, 8, 16)
"""γ of the growing averages that are read out beside the weights."""

_PERIOD, _EPSILON = 10, 1e-8

Weights = dict[str, Tensor]


class Trainings:
    """Trainings of one problem with one random seed.

    Args:
        rules: numbers of `LearnedSOAP` by name, `lr` among them; one mapping for each training.
    """

    def __init__(self, problem: Problem, seed: int, rules: Sequence[Mapping[str, float]]) -> None:
        self._count = len(rules)
        self._batches = problem.batches(seed)
        model = problem.network(seed)
        self._matrices = [name for name, parameter in model.named_parameters() if is_matrix(parameter)]
        self._weights = {
            name: parameter.detach().expand(self._count, *parameter.shape).clone()
            for name, parameter in model.named_parameters()
        }
        self._averages = [{name: GrowingAverage(gamma) for name in self._weights} for gamma in GAMMAS]
        self._update_averages()
        self._validation = problem.validation()
        self._states: dict[str, dict[str, Tensor]] = {name: {} for name in self._weights}
        self._numbers = {name: torch.tensor([rule[name] for rule in rules], dtype=torch.float32) for name in rules[0]}
        self._steps = 0
        buffers = dict(model.named_buffers())

        def outputs(weights: Weights, inputs: Tensor) -> Tensor:
            result: Tensor = functional_call(model, (weights, buffers), (inputs,))
            return result

        self._outputs = vmap(outputs, in_dims=(0, None))

    def losses(self, steps: int, every: int) -> Float[Tensor, "read_outs trainings points"]:
        """Train, and measure the validation loss every few steps: of the weights and of their averages."""
        measured = []
        for batch in islice(self._batches, steps):
            self._step(batch.inputs, batch.labels)
            if self._steps % every == 0:
                with torch.no_grad():
                    averages = [{name: each.weights() for name, each in of.items()} for of in self._averages]
                    read_outs = [self._weights, *averages]
                    measured.append(torch.stack([self._loss(weights, *self._validation) for weights in read_outs]))
        return torch.stack(measured, -1).nan_to_num(nan=torch.inf)

    def _step(self, inputs: Tensor, labels: Tensor) -> None:
        leaves = {name: weights.requires_grad_() for name, weights in self._weights.items()}
        gradients = torch.autograd.grad(self._loss(leaves, inputs, labels).sum(), list(leaves.values()))
        self._steps += 1
        with torch.no_grad():
            for (name, weights), gradient in zip(leaves.items(), gradients, strict=True):
                weights.requires_grad_(False)
                weights += self._change(name, gradient.nan_to_num(0.0, 0.0, 0.0)).view_as(weights)
            self._update_averages()

    def _update_averages(self) -> None:
        for averages in self._averages:
            for name, average in averages.items():
                average.update(self._weights[name], snapshot=False)

    def _change(self, name: str, gradient: Tensor) -> Tensor:
        if name not in self._matrices:
            return change_by_elements(gradient, self._states[name], self._numbers_for(gradient.ndim))
        numbers = self._numbers_for(3)
        if name == self._matrices[-1]:
            numbers["lr"] = numbers["lr"] * numbers["output_rate"]
        return change_in_bases(gradient.flatten(2), self._states[name], numbers)

    def _numbers_for(self, dimensions: int) -> dict[str, Tensor | float]:
        shape = (self._count, *[1] * (dimensions - 1))
        numbers: dict[str, Tensor | float] = {name: values.view(shape) for name, values in self._numbers.items()}
        return {**numbers, "period": _PERIOD, "eps": _EPSILON}

    def _loss(self, weights: Weights, inputs: Tensor, labels: Tensor) -> Float[Tensor, " trainings"]:
        with sdpa_kernel(SDPBackend.MATH):  # the others cannot be batched
            outputs = self._outputs(weights, inputs)
        repeated = labels.flatten().long().repeat(self._count)
        losses = nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), repeated, reduction="none")
        return losses.view(self._count, -1).mean(1)
