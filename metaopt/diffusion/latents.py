"""The task `captioned-latents`: videos that an autoencoder has encoded, with captions, learned by flow matching."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.config import option
from ..core.dependencies import import_extra
from ..core.errors import InvalidConfig, TaskDataError
from ..core.rng import generator
from ..core.text import reason_of, shown
from ..tasks.base import Batch, error_source, hold_out, split_examples
from ..tasks.data_files import find_files, open_text
from ..weights.safetensors_header import COPY_AGAIN, entries, read_safetensors_header
from .captions import END, PAD
from .flow_task import FlowConfig, FlowMatching

LATENTS = "latents"
"""Name of the tensor in each file."""

_SUFFIX = ".safetensors"
_VALIDATION = 0.1  # of the videos
_DIMENSIONS = 4  # channels, frames, height, width


class CaptionedLatentsConfig(FlowConfig):
    """Folders of the videos and of the tokenizer, and the length of a prompt."""

    data_dir: Path = option(
        default=Path("latents"), help="Folder of <name>.safetensors, each with a tensor latents, and <name>.txt."
    )
    tokenizer: Path = option(
        default=Path("tokenizer"), help="Folder of a tokenizer of transformers, such as that of UMT5 in Wan."
    )
    prompt_length: int = option(default=512, help="Tokens of a prompt, padding included [count].", at_least=2)


class CaptionedLatents(FlowMatching):
    """Videos that an autoencoder has encoded, with captions.

    The folder has a file `<name>.safetensors` for each video, with the tensor `latents` [channels, frames, height,
    width] as the network expects it, so already scaled; all have one shape. `<name>.txt` beside it is its caption in
    UTF-8. The tokenizer is a local folder of `transformers`; nothing is downloaded. Padding must be token 0 and the end
    of a text token 1, as for T5 and UMT5.

        metaopt train-target --config configs/wan22_dit_lora_translator.yaml

    Raises:
        TaskDataError: no videos, a file that is damaged or has another shape, or a missing or empty caption.
        InvalidConfig: the tokenizer cannot be used, or a caption has a token that it does not know or is too long.
    """

    Config = CaptionedLatentsConfig

    def __init__(self, config: CaptionedLatentsConfig) -> None:
        self.tokenizer = LibraryTokenizer(config.tokenizer, config.prompt_length)
        (found,) = find_files([config.data_dir], [_SUFFIX])
        with error_source(config.data_dir):
            if not found.files:
                raise TaskDataError(f"no files <name>{_SUFFIX}; encode videos into such files, and add <name>.txt")
            tokens = self.tokenizer.encode([_caption(path) for path in found.files])
            videos = _read_videos(found.files)
            clean = split_examples(*hold_out(Batch(videos, tokens), _VALIDATION, config.split_seed), config)
        super().__init__(config, clean, self.tokenizer.encode([""]), generator(config.split_seed))
        self._shape = list(videos.shape[1:])

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Shape of a video, tokens of a prompt, size and digest of the vocabulary."""
        return {
            "video_shape": self._shape,
            "prompt_length": self.tokenizer.length,
            "vocab_size": self.tokenizer.vocab_size,
            "tokenizer": self.tokenizer.digest,
        }


class LibraryTokenizer:
    """A tokenizer of transformers, of a local folder.

    Args:
        folder: what `save_pretrained` writes. Code in it is not run.
        length: tokens of a prompt [count].
    Raises:
        InvalidConfig: there is no such tokenizer, or its padding and end are not the tokens 0 and 1.
    """

    def __init__(self, folder: Path, length: int) -> None:
        transformers = import_extra("transformers", "adapters")
        if not folder.is_dir():
            raise InvalidConfig(f"tokenizer is {shown(str(folder))}; expected a folder with one of transformers")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the exception types differ between tokenizers
            raise InvalidConfig(f"{folder} is no tokenizer that transformers reads ({reason_of(error)})") from error
        special = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        if special != (PAD, END):
            raise InvalidConfig(
                f"the tokenizer {folder} has the tokens {special} for padding and end; expected {(PAD, END)}, as of T5"
            )
        self.length = length

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self._tokenizer)

    @property
    def digest(self) -> str:
        """A digest of the vocabulary and the length: 32 hexadecimal characters."""
        words = sorted(self._tokenizer.get_vocab().items())
        return hashlib.sha256(json.dumps([self.length, words]).encode()).hexdigest()[:32]

    def encode(self, prompts: Sequence[str]) -> Int[Tensor, "prompts length"]:
        """The tokens of prompts: an end after each, then padding. The empty prompt is an end alone.

        Raises:
            InvalidConfig: a prompt has a token that the tokenizer does not know, or is too long.
        """
        return torch.tensor([self._row(prompt) for prompt in prompts], dtype=torch.long).reshape(-1, self.length)

    def decode(self, tokens: Int[Tensor, "prompts length"]) -> list[str]:
        """The prompts of tokens."""
        found: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return found

    def _row(self, prompt: str) -> list[int]:
        tokens = [*self._tokenizer(prompt, add_special_tokens=False)["input_ids"], END]
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown in tokens:
            raise InvalidConfig(f"the prompt {shown(prompt)} has characters or words that the tokenizer does not know")
        if len(tokens) > self.length:
            raise InvalidConfig(
                f"the prompt {shown(prompt)} has {len(tokens)} tokens; expected at most {self.length}: shorten it, or "
                "raise prompt_length"
            )
        return tokens + [PAD] * (self.length - len(tokens))


def _read_videos(paths: Sequence[Path]) -> Tensor:
    """The videos of all files, stacked."""
    shapes = {path: _shape_of(path) for path in paths}
    first, *others = shapes
    for path in others:
        if shapes[path] != shapes[first]:
            raise TaskDataError(
                f"{path.name} has the shape {shapes[path]} and {first.name} {shapes[first]}; expected one shape for all"
            )
    videos = torch.empty(len(paths), *shapes[first])
    for row, path in zip(videos, paths, strict=True):
        try:
            with safe_open(path, framework="pt") as file:
                row.copy_(file.get_tensor(LATENTS))
        except (SafetensorError, OSError) as error:
            raise TaskDataError(f"{path.name} is truncated or damaged ({error}); {COPY_AGAIN}") from error
        if not row.isfinite().all():
            raise TaskDataError(f"{path.name} holds NaN or infinity; encode the video again")
    return videos


def _shape_of(path: Path) -> tuple[int, ...]:
    try:
        listed = entries(path, read_safetensors_header(path).listed)
    except ValueError as error:
        raise TaskDataError(str(error)) from error
    if LATENTS not in listed or len(listed[LATENTS].shape) != _DIMENSIONS:
        found = listed[LATENTS].shape if LATENTS in listed else f"only {', '.join(map(shown, [*listed][:3]))}"
        raise TaskDataError(
            f"{path.name} has {found}; expected a tensor {LATENTS} of channels, frames, height and width"
        )
    return listed[LATENTS].shape


def _caption(path: Path) -> str:
    with open_text(path.with_suffix(".txt"), "the caption of a video, in UTF-8") as file:
        try:
            caption = " ".join(file.read().split())
        except UnicodeDecodeError as error:
            raise TaskDataError(f"{path.with_suffix('.txt').name} is no text in UTF-8 ({error})") from error
    if not caption:
        raise TaskDataError(f"{path.with_suffix('.txt').name} is empty; expected the caption of {path.name}")
    return caption
