"""Embeddings of prompts that are computed once: on disk, a file per prompt, and in memory beside a network."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.errors import FileFormatError, InvalidConfig
from ..tasks.cache import CacheEntry, cache_dir, cache_key, cached
from ..weights.files import digest_of, read_facts

_NAME = "embedding"

Encode = Callable[[Int[Tensor, "1 length"]], Float[Tensor, "1 length width"]]
Embeddings = Float[Tensor, "batch length width"]


def encoder_digest(encoder: nn.Module) -> str:
    """A digest of the weights and buffers of an encoder: 32 hexadecimal characters."""
    return digest_of({name: tensor.detach() for name, tensor in encoder.state_dict().items()}, {})[:32]


class EmbeddingCache:
    """Embeddings of prompts on disk, for one encoder and one tokenizer: a file of safetensors per prompt.

        from metaopt import get_target_model, load_task
        from metaopt.diffusion import EmbeddingCache, encoder_digest

        task = load_task("captioned-shapes", examples=100)
        model = get_target_model("TextToVideo", task.model_facts)
        cache = EmbeddingCache(encoder_digest(model.encoder), task.tokenizer.digest, "embeddings")
        tokens = task.tokenizer.encode(["a red square moving left"])
        embeddings = cache.embeddings(tokens, model.encode)  # [1, 8, 48]; the next time they are read

    A damaged file is computed again, and so is one that cannot be written. Files can be deleted at any time.

    Args:
        encoder: `encoder_digest` of the encoder.
        tokenizer: digest of the tokenizer.
        folder: holds the embeddings of this encoder alone; by default one in the user's cache folder, which holds
            those of all.
    Raises:
        InvalidConfig: the folder holds embeddings of another encoder or tokenizer.
    """

    def __init__(self, encoder: str, tokenizer: str, folder: Path | str | None = None) -> None:
        self._owner = {"encoder": encoder, "tokenizer": tokenizer}
        self.folder = cache_dir() / "embeddings" if folder is None else Path(folder)
        if folder is not None:
            self._check_owner()

    def embeddings(self, tokens: Int[Tensor, "batch length"], encode: Encode) -> Embeddings:
        """The embeddings of prompts on the CPU.

        Args:
            encode: computes those of one prompt; it is called for the prompts that the cache lacks.
        """
        found = {}
        for row in tokens.cpu():
            prompt = tuple(row.tolist())
            if prompt not in found:
                found[prompt] = self._entry(row, encode)
        return torch.stack([found[tuple(row)] for row in tokens.tolist()])

    def _entry(self, row: Int[Tensor, " length"], encode: Encode) -> Float[Tensor, "length width"]:
        facts = {**self._owner, "tokens": row.tolist()}

        def make() -> CacheEntry:
            with torch.no_grad():
                return CacheEntry({"embedding": encode(row.unsqueeze(0))[0].cpu()}, facts)

        key = cache_key(*facts.values())
        return cached(_NAME, key, make, self.folder).tensors["embedding"]

    def _check_owner(self) -> None:
        for path in sorted(self.folder.glob(f"{_NAME}-*.safetensors")):
            try:
                facts = read_facts(path, f"cache {path.stem}")
            except FileFormatError:
                continue  # computed again when it is needed
            for part, digest in self._owner.items():
                if facts.get(part) != digest:
                    raise InvalidConfig(
                        f"{self.folder} holds embeddings of another {part} ({facts.get(part)!s:.40}, here {digest}); "
                        "choose another folder, or delete this one to compute them again"
                    )
            return


class PromptTable:
    """Embeddings in memory of all prompts that a frozen encoder has seen; each is encoded or read from disk once.

    The table begins anew when the weights of the encoder change, by any operation that PyTorch counts. Looking up
    prompts waits for the device of the tokens, because their numbers are compared on the CPU.

    Args:
        encoder: frozen.
        encode: the embeddings of prompts by this encoder.
        tokenizer: digest of the tokenizer.
    """

    def __init__(self, encoder: nn.Module, encode: Encode, tokenizer: str) -> None:
        self._encoder, self._encode, self._tokenizer = encoder, encode, tokenizer
        self._state: list[tuple[nn.Parameter, int, torch.device]] = []
        self._rows: dict[tuple[int, ...], int] = {}
        self._table: Tensor = torch.empty(0)

    def embeddings(self, tokens: Int[Tensor, "batch length"]) -> Embeddings:
        """The embeddings of prompts, on the device of the tokens."""
        self._begin_anew_if_changed()
        prompts = [tuple(row) for row in tokens.tolist()]
        if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rows]:
            self._add(missing, tokens.device)
        return self._table[torch.tensor([self._rows[prompt] for prompt in prompts], device=tokens.device)]

    def _add(self, prompts: list[tuple[int, ...]], device: torch.device) -> None:
        new = self._cache.embeddings(torch.tensor(prompts), lambda tokens: self._encode(tokens.to(device))).to(device)
        self._table = torch.cat([self._table, new]) if self._rows else new
        self._rows.update({prompt: len(self._rows) + place for place, prompt in enumerate(prompts)})

    def _begin_anew_if_changed(self) -> None:
        state = [(weights, weights._version, weights.device) for weights in self._encoder.parameters()]
        known = len(state) == len(self._state) and all(
            new[0] is old[0] and new[1:] == old[1:] for new, old in zip(state, self._state, strict=True)
        )
        if not known:
            self._state, self._rows = state, {}
            self._cache = EmbeddingCache(encoder_digest(self._encoder), self._tokenizer)
