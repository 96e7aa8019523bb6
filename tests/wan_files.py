"""The tensors of Wan's transformers by name, made from their public configurations, and files that have only headers.

Names and sizes: https://github.com/Wan-Video/Wan2.2 (`wan/configs`, `wan/modules/model.py`) and the conversion script
of diffusers. Totals of the released checkpoints are public, too: 825 tensors of 19,999,150,848 bytes (TI2V 5B), and
1,095 tensors of 14,288,491,584 numbers in each expert (T2V A14B), all in float32.
"""

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]

BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}


class Wan(NamedTuple):
    """The sizes of a transformer: of an embedding, of the layer in a feed-forward network, and of its channels."""

    dim: int
    ffn_dim: int
    layers: int
    in_channels: int
    out_channels: int
    text_dim: int = 4096
    freq_dim: int = 256
    patch: tuple[int, ...] = (1, 2, 2)

    def original(self) -> Shapes:
        """The names in the released files."""
        dim, blocks = self.dim, {}
        for block in (f"blocks.{number}" for number in range(self.layers)):
            for attention in ("self_attn", "cross_attn"):
                for part in "qkvo":
                    blocks |= _linear(f"{block}.{attention}.{part}", dim, dim)
                blocks |= {f"{block}.{attention}.norm_{part}.weight": (dim,) for part in "qk"}
            blocks |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
            blocks |= {f"{block}.modulation": (1, 6, dim)}
            blocks |= {**_linear(f"{block}.ffn.0", self.ffn_dim, dim), **_linear(f"{block}.ffn.2", dim, self.ffn_dim)}
        return {
            "patch_embedding.weight": (dim, self.in_channels, *self.patch),
            "patch_embedding.bias": (dim,),
            **_linear("text_embedding.0", dim, self.text_dim),
            **_linear("text_embedding.2", dim, dim),
            **_linear("time_embedding.0", dim, self.freq_dim),
            **_linear("time_embedding.2", dim, dim),
            **_linear("time_projection.1", 6 * dim, dim),
            **blocks,
            **_linear("head.head", self.out_channels * prod(self.patch), dim),
            "head.modulation": (1, 2, dim),
        }

    def of_diffusers(self) -> Shapes:
        """The names of `diffusers.WanTransformer3DModel`."""
        dim, blocks = self.dim, {}
        for block in (f"blocks.{number}" for number in range(self.layers)):
            for attention in ("attn1", "attn2"):
                for part in ("to_q", "to_k", "to_v", "to_out.0"):
                    blocks |= _linear(f"{block}.{attention}.{part}", dim, dim)
                blocks |= {f"{block}.{attention}.norm_{part}.weight": (dim,) for part in "qk"}
            blocks |= {f"{block}.norm2.weight": (dim,), f"{block}.norm2.bias": (dim,)}
            blocks |= {f"{block}.scale_shift_table": (1, 6, dim)}
            blocks |= _linear(f"{block}.ffn.net.0.proj", self.ffn_dim, dim)
            blocks |= _linear(f"{block}.ffn.net.2", dim, self.ffn_dim)
        embedder = "condition_embedder"
        return {
            "scale_shift_table": (1, 2, dim),
            "patch_embedding.weight": (dim, self.in_channels, *self.patch),
            "patch_embedding.bias": (dim,),
            **_linear(f"{embedder}.time_embedder.linear_1", dim, self.freq_dim),
            **_linear(f"{embedder}.time_embedder.linear_2", dim, dim),
            **_linear(f"{embedder}.time_proj", 6 * dim, dim),
            **_linear(f"{embedder}.text_embedder.linear_1", dim, self.text_dim),
            **_linear(f"{embedder}.text_embedder.linear_2", dim, dim),
            **blocks,
            **_linear("proj_out", self.out_channels * prod(self.patch), dim),
        }


TI2V_5B = Wan(dim=3072, ffn_dim=14336, layers=30, in_channels=48, out_channels=48)
T2V_A14B = Wan(dim=5120, ffn_dim=13824, layers=40, in_channels=16, out_channels=16)
I2V_A14B = T2V_A14B._replace(in_channels=36)
TINY = Wan(dim=8, ffn_dim=16, layers=4, in_channels=4, out_channels=4, text_dim=6, freq_dim=4)


def header_of(shapes: Mapping[str, Iterable[int]], dtype: str = "F32", **metadata: str) -> tuple[bytes, int]:
    """The first bytes of a safetensors file, and the size of the tensors after them [bytes]."""
    end, listed = 0, {"__metadata__": metadata} if metadata else {}
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * BYTES[dtype]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return with_length(json.dumps(listed)), end


def with_length(header: str | bytes) -> bytes:
    """A header with its length before it."""
    raw = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw


def write_sparse(path: Path, shapes: Mapping[str, Iterable[int]], dtype: str = "F32", **metadata: str) -> Path:
    """Write a file of full size whose tensors take no space on the disk."""
    header, size = header_of(shapes, dtype, **metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    return path


def write_sharded(folder: Path, shapes: Shapes, files: int, name: str = "diffusion_pytorch_model") -> Path:
    """Write numbered files and their index, as on a model hub, and return the index."""
    names, weight_map = [*shapes], {}
    for number in range(files):
        file = f"{name}-{number + 1:05d}-of-{files:05d}.safetensors"
        part = names[number * len(names) // files : (number + 1) * len(names) // files]
        write_sparse(folder / file, {each: shapes[each] for each in part}, format="pt")
        weight_map |= dict.fromkeys(part, file)
    total = sum(map(prod, shapes.values())) * BYTES["F32"]
    index = folder / f"{name}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}), encoding="utf-8")
    return index


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
