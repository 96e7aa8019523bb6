"""Adapters as files that PEFT and diffusers load."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import FileFormatError, InvalidConfig, LayoutMismatch
from ..core.text import reason_of, shown
from ..trajectories.whole_network import read_whole_network
from ..weights.atomic import replacing, write_text
from ..weights.building import check_finite
from ..weights.files import digest_of
from ..weights.safetensors_header import COPY_AGAIN, read_safetensors_header
from .aliases import WAN
from .lora import AdapterFacts, adapters_of, described_adapters, insert_adapters
from .merging import tensors_of

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

_PEFT_PREFIX = "base_model.model."
_DIFFUSERS_PREFIX = "transformer."
_BASE = "metaopt_base"  # in the metadata: digest of the matrices that the adapters change
_FACTS = "metaopt_adapter"


@dataclass(frozen=True)
class ExportedAdapter:
    """Files of an adapter.

    Attributes:
        folder: where they are.
        modules: the modules that it changes, by their names in the network that it is for.
        rank: of each adapter.
    """

    folder: Path
    modules: tuple[str, ...]
    rank: int


def export_adapter(weights: Path | str, folder: Path | str, module: str = "") -> ExportedAdapter:
    """Write the adapters of a recorded network as files that PEFT and diffusers load.

        from metaopt.adapters import export_adapter
        from metaopt.core.tracker import SilentTracker
        from metaopt.recording.record import TrainTargetConfig, train_targets

        config = TrainTargetConfig(run_name="lora", target_model="MLP", epochs=1, adapter="lora", rank=2)
        (recorded,) = train_targets(config, SilentTracker())
        print(export_adapter(recorded, "lora").modules)

    The folder holds `adapter_model.safetensors` and `adapter_config.json` for `peft.PeftModel.from_pretrained`, and
    `pytorch_lora_weights.safetensors` for `load_lora_adapter` and pipelines of diffusers, whose names of Wan are used.

    Args:
        weights: the folder of a trajectory, for its last snapshot; a snapshot; or generated weights.
        folder: created if missing; files of the same names are replaced.
        module: the files are for this module of the network, such as `transformer`; empty for the whole network.
    Raises:
        FileFormatError: a file is damaged or of another kind.
        LayoutMismatch: the network has no adapters.
        InvalidConfig: an adapter is not in the module.
        StorageError: the disk is full or not writable.
    """
    path, target = Path(weights), Path(folder)
    tensors, stored = read_whole_network(path)
    run = stored.get("run", {})
    if "adapter" not in run:
        raise LayoutMismatch(f"{path} has no adapters; expected a recording of `train-target --adapter lora`")
    facts = described_adapters(run["adapter"])
    found = tensors_of(tensors, facts)
    check_finite({name: part for name, parts in found.items() for part in parts})
    inside = f"{module}." if module else ""
    if outside := next((each for each in facts.modules if not each.startswith(inside)), None):
        raise InvalidConfig(f"module is {shown(module)}, but the adapter of {shown(outside)} is not in it")
    modules = [each.removeprefix(inside) for each in facts.modules]
    pairs = {own.removeprefix(inside): parts for own, parts in found.items()}
    base = digest_of({name: parts.base for name, parts in pairs.items()}, {})
    metadata = {"format": "pt", _BASE: base, _FACTS: json.dumps(facts._replace(modules=modules)._asdict())}
    _write(target / PEFT_WEIGHTS, {_PEFT_PREFIX + name: parts for name, parts in pairs.items()}, metadata)
    write_text(target / PEFT_CONFIG, json.dumps(_peft_config(facts, modules), indent=2) + "\n")
    rename = WAN.translated if WAN.is_original(modules) else str
    theirs = {name: rename(name.removeprefix(_DIFFUSERS_PREFIX)) for name in modules}
    lora = {f"transformer.{key}": value for key, value in _peft_config(facts, [*theirs.values()]).items()}
    _write(
        target / DIFFUSERS_WEIGHTS,
        {_DIFFUSERS_PREFIX + theirs[name]: parts for name, parts in pairs.items()},
        {"format": "pt", "lora_adapter_metadata": json.dumps(lora)},
    )
    return ExportedAdapter(target, tuple(modules), facts.rank)


def load_adapter(model: nn.Module, folder: Path | str) -> nn.Module:
    """Insert exported adapters into the network that they were trained in; returns the network.

    Args:
        model: the base without adapters, changed in place.
        folder: that of `export_adapter`.
    Raises:
        FileFormatError: the file is missing, damaged, or not of `export_adapter`.
        InvalidConfig: the matrices that the adapters change are not those of the base that they were trained in; the
            network is unchanged.
        LayoutMismatch: the network has no such modules.
    """
    path = Path(folder) / PEFT_WEIGHTS
    metadata = read_safetensors_header(path).metadata or {}
    try:
        facts, base = described_adapters(json.loads(metadata[_FACTS])), metadata[_BASE]
        with safe_open(path, framework="pt") as file:
            read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is no adapter that metaopt exported ({reason_of(error)}); expected the folder of export_adapter. "
            f"If it was, {COPY_AGAIN}"
        ) from error
    weights = dict(model.named_parameters())
    matrices = {name for name, tensor in weights.items() if tensor.ndim == 2}
    if missing := next((name for name in facts.modules if f"{name}.weight" not in matrices), None):
        raise LayoutMismatch(f"{type(model).__name__} has no matrix {shown(missing)}, which {path} changes")
    own = digest_of({name: weights[f"{name}.weight"].detach() for name in facts.modules}, {})
    if own != base:
        raise InvalidConfig(
            f"{path} is an adapter of another base: the matrices that it changes have the digest {base[:12]}, those of "
            f"this {type(model).__name__} {own[:12]}. Load the weights that it was trained from first"
        )
    for name in facts.modules:
        rows, columns = weights[f"{name}.weight"].shape
        for part, shape in (("A", (facts.rank, columns)), ("B", (rows, facts.rank))):
            found = read.get(f"{_PEFT_PREFIX}{name}.lora_{part}.weight")
            if found is None or tuple(found.shape) != shape:
                raise FileFormatError(f"{path} has no {part} of shape {shape} for {shown(name)}; {COPY_AGAIN}")
    try:
        check_finite(read)
    except LayoutMismatch as error:
        raise FileFormatError(f"{path} cannot be used: {error}") from error
    insert_adapters(model, facts._asdict())
    for each in adapters_of(model):
        for part, parameter in (("A", each.down), ("B", each.up)):
            parameter.data.copy_(read[f"{_PEFT_PREFIX}{each.module}.lora_{part}.weight"])
    return model


def _write(path: Path, adapters: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parts in adapters.items():
        tensors |= {f"{name}.lora_A.weight": parts.down, f"{name}.lora_B.weight": parts.up}
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary, dict(metadata))


def _peft_config(facts: AdapterFacts, modules: list[str]) -> dict[str, Any]:
    """The configuration that PEFT reads. Names in a list would be suffixes, so they are one regular expression."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "r": facts.rank,
        "lora_alpha": facts.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": "|".join(map(re.escape, modules)),
        "inference_mode": True,
    }
