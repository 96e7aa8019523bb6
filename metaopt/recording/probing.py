"""Probes during a training: the network now, compared with the network at the first step."""

import logging
from collections.abc import Sequence
from copy import deepcopy

from torch import nn

from ..core.documents import markdown
from ..core.text import counted, shortened
from ..probes import ProbeResult, applicable, run_probe, sample_examples
from ..probes.sections import sections_of
from ..tasks import Task

EXAMPLES = 256
"""Examples of the validation split on which probes measure [count]."""

log = logging.getLogger(__name__)


class TrainingProbes:
    """The probes of one training. They only describe it: a probe that fails is a warning.

    Args:
        names: of the probes.
        model: the network with the weights of its first step, of which a copy is kept. A resumed training draws the
            same ones, so that it compares with the same network.
    Raises:
        UnknownName: there is no such probe.
        InvalidConfig: a probe does not apply to the network.
    """

    def __init__(self, names: Sequence[str], model: nn.Module, task: Task) -> None:
        self._probes, _ = applicable(names, model, task)
        self._before, self._task = deepcopy(model), task
        self._examples = sample_examples(task, "validation", EXAMPLES)
        self._last: dict[str, ProbeResult] = {}

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """All values of all probes, as metrics."""
        self._last = self._measure(model)
        return {
            f"probe_{name.replace('-', '_')}_{value}": number
            for name, result in self._last.items()
            for value, number in result.values.items()
        }

    def report(self, title: str, model: nn.Module) -> str:
        """A document about the change from the first step to the last epoch that was measured.

        Args:
            model: the network now, for a training that has not measured any since it was resumed.
        """
        results, count = self._last or self._measure(model), len(self._examples.labels)
        introduction = [
            f"The network at the first step and after the last epoch, on {counted(count, 'example')} of the validation "
            "split. The metrics `probe_<probe>_<value>` of the run have each value after each epoch."
        ]
        return markdown(f"Probes of {title}", introduction, sections_of(self._probes, results, images=False))

    def _measure(self, model: nn.Module) -> dict[str, ProbeResult]:
        results = {}
        for name, probe in self._probes.items():
            try:
                results[name] = run_probe(probe, self._before, model, self._task, self._examples)
            except Exception as error:  # of any kind: a probe may be that of a plug-in
                log.warning("the probe %s failed: %s: %s", name, type(error).__name__, shortened(str(error)))
        return results
