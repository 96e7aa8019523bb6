"""Tables of aliases: one network has other names for the same modules in another library.

The names of Wan 2.1 and 2.2 (https://github.com/Wan-Video/Wan2.2) and of `diffusers.WanTransformer3DModel` are known.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

WRAPPERS = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "module.", "model.")
"""Prefixes under which programs store a whole network."""


class AliasTable:
    """Names of the same modules in two namings.

        from metaopt.adapters import WAN

        WAN.translated("blocks.0.cross_attn.k.weight")  # 'blocks.0.attn2.to_k.weight'
        WAN.spellings("blocks.0.attn2.to_k")  # ('blocks.0.attn2.to_k', 'blocks.0.cross_attn.k')

    Args:
        pairs: the other name by the original name, both of whole pieces between dots; longer ones first take effect.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)

    def translated(self, name: str) -> str:
        """An original name in the other naming."""
        return self._translate(name)

    def spellings(self, name: str) -> tuple[str, ...]:
        """A name, followed by what the same module is called in the other naming."""
        return tuple(dict.fromkeys((name, self._translate(name), self._translate_back(name))))

    def is_original(self, names: Iterable[str]) -> bool:
        """Whether names are in the original naming: one of them has a piece that the other naming does not have."""
        return any(self._telling.search(name) for name in names)

    def comparable(self, names: Iterable[str]) -> dict[str, str]:
        """Names under which networks of both namings, wrapped or not, can be compared.

        Returns: for each name, the name in the other naming, without prefixes of `WRAPPERS` that all names have; the
            names themselves, if two would become equal.
        """
        names = [*names]
        wrapper = wrapper_of(names)
        translate = self._translate if self.is_original(names) else str
        found = {name: translate(name.removeprefix(wrapper)) for name in names}
        return found if len({*found.values()}) == len(found) else {name: name for name in names}

    @cached_property
    def _translate(self) -> Callable[[str], str]:
        return _replacing(self.pairs)

    @cached_property
    def _translate_back(self) -> Callable[[str], str]:
        return _replacing({other: original for original, other in reversed(self.pairs.items())})

    @cached_property
    def _telling(self) -> re.Pattern[str]:
        return _pattern(self.pairs.keys() - self.pairs.values())


def wrapper_of(names: Iterable[str]) -> str:
    """The prefixes of `WRAPPERS` that all names have, joined."""
    names, found = [*names], ""
    while longer := next((each for each in WRAPPERS if names and _all_begin(names, found + each)), None):
        found += longer
    return found


def _all_begin(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _pattern(pieces: Iterable[str]) -> re.Pattern[str]:
    """Finds any of some pieces between dots; the longest one where several begin. Nothing if there are none."""
    longest_first = sorted(pieces, key=len, reverse=True)
    return re.compile(rf"(?<![^.])(?:{'|'.join(map(re.escape, longest_first))})(?![^.])")


def _replacing(pairs: Mapping[str, str]) -> Callable[[str], str]:
    """Replaces all at once, so that two names can be exchanged."""
    pattern = _pattern(pairs)
    return lambda name: pattern.sub(lambda found: pairs[found[0]], name)


def _attention(original: str, other: str) -> dict[str, str]:
    parts = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
    return {f"{original}.{ours}": f"{other}.{theirs}" for ours, theirs in parts.items()}


WAN = AliasTable(
    {
        **_attention("self_attn", "attn1"),
        **_attention("cross_attn", "attn2"),
        "cross_attn.k_img": "attn2.add_k_proj",
        "cross_attn.v_img": "attn2.add_v_proj",
        "cross_attn.norm_k_img": "attn2.norm_added_k",
        "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
        "norm2": "norm3",
        "norm3": "norm2",
        "modulation": "scale_shift_table",
        "head.modulation": "scale_shift_table",
        "head.head": "proj_out",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
        "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
        "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
        "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
        "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    }
)
"""The original names of Wan's transformer, and those of `diffusers.WanTransformer3DModel`."""

ALIASES: Mapping[str, AliasTable] = {"wan": WAN}
"""Tables by name."""
