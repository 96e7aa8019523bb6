"""Probes: what a change of a network did, measured on the network before and after it.

    from metaopt import get_target_model, load_task
    from metaopt.probes import get_probe, run_probe, sample_examples

    task = load_task("digits")
    before, after = (get_target_model("MLP", task.model_facts, widths=(8,)) for _ in range(2))
    examples = sample_examples(task, "validation", 64)
    result = run_probe(get_probe("weight-norms"), before, after, task, examples)
    print(result.values["norm_ratio"], result.rows[0])

`PROBES` names the module that defines each probe; plug-ins add some by the entry-point group `metaopt.probes`.
"""

from collections.abc import Sequence

from torch import nn

from ..core.config import build_configured
from ..core.errors import InvalidConfig
from ..core.registry import Registry
from ..tasks import Task
from .base import Probe, ProbeConfig, ProbeResult
from .running import run_probe, sample_examples, why_not

PROBES = Registry(
    "probe",
    "metaopt.probes",
    {
        "attention-logits": "metaopt.probes.attention_logits:AttentionLogits",
        "dead-units": "metaopt.probes.dead_units:DeadUnits",
        "delta-budgets": "metaopt.probes.delta_budgets:DeltaBudgets",
        "embedding-drift": "metaopt.probes.embedding_drift:EmbeddingDrift",
        "loss-line": "metaopt.probes.loss_line:LossLine",
        "null-text-drift": "metaopt.probes.null_text_drift:NullTextDrift",
        "prompt-grid": "metaopt.probes.prompt_grid:PromptGrid",
        "spectrum": "metaopt.probes.spectrum:Spectrum",
        "weight-norms": "metaopt.probes.weight_norms:WeightNorms",
    },
    base=Probe,
)
"""Probes by name, including those of installed plug-ins."""

ALL = "all"
"""Instead of names: all probes that apply."""


def get_probe(name: str) -> Probe:
    """A probe by name.

    Raises:
        UnknownName: there is no such probe; the message lists the nearest names.
    """
    probe: Probe = build_configured(PROBES.get(name), {})
    return probe


def get_probes(names: Sequence[str]) -> dict[str, Probe]:
    """Probes by name; all of them for the one name `all`.

    Raises:
        UnknownName: there is no such probe; the message lists the nearest names.
        InvalidConfig: no name is given, or one twice, or `all` beside others.
    """
    if not names:
        raise InvalidConfig(f"no probe is given; expected some of {', '.join(PROBES.names())}, or {ALL}")
    if len({*names}) < len(names) or (ALL in names and len(names) > 1):
        raise InvalidConfig(f"the probes are {', '.join(names)}; give each one once, or only {ALL}")
    return {name: get_probe(name) for name in (PROBES.names() if ALL in names else names)}


def applicable(names: Sequence[str], model: nn.Module, task: Task) -> tuple[dict[str, Probe], dict[str, str]]:
    """The probes of some names that apply to a network, and why the others of `all` do not.

    Raises:
        UnknownName: there is no such probe; the message lists the nearest names.
        InvalidConfig: no name is given, one twice, or one that does not apply.
    """
    probes = get_probes(names)
    reasons = {name: reason for name, probe in probes.items() if (reason := why_not(probe, model, task)) is not None}
    if reasons and ALL not in names:
        found = "; ".join(f"{name} does not apply to {type(model).__name__}: {why}" for name, why in reasons.items())
        raise InvalidConfig(f"{found}. Leave it out, or give {ALL} for those that apply")
    return {name: probe for name, probe in probes.items() if name not in reasons}, reasons


__all__ = [
    "ALL",
    "PROBES",
    "Probe",
    "ProbeConfig",
    "ProbeResult",
    "applicable",
    "get_probe",
    "get_probes",
    "run_probe",
    "sample_examples",
]
