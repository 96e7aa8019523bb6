"""Small data for the task `captioned-latents`: a tokenizer of words, and encoded videos with captions."""

from pathlib import Path

import torch
from safetensors.torch import save_file

WORDS = ("a", "cat", "dog", "runs", "sleeps")
SHAPE = (4, 2, 4, 4)


def write_tokenizer(folder: Path, words=WORDS, special=("<pad>", "</s>", "<unk>")) -> Path:
    """A tokenizer of whole words, as `save_pretrained` of transformers writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*special, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def write_videos(folder: Path, count: int = 40, shape=SHAPE, dtype=torch.float32) -> Path:
    """Encoded videos whose mean depends on the caption."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(0)
    for number in range(count):
        animal, verb = WORDS[1 + number % 2], WORDS[3 + number // 2 % 2]
        latents = torch.randn(shape, generator=random) + (number % 2)
        save_file({"latents": latents.to(dtype)}, folder / f"video_{number:03d}.safetensors")
        (folder / f"video_{number:03d}.txt").write_text(f"a {animal} {verb}\n", encoding="utf-8")
    return folder
