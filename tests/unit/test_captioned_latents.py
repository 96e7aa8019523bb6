"""The task `captioned-latents`: encoded videos, captions and tokenizers from files."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from metaopt import get_target_model
from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.diffusion import unpack
from metaopt.diffusion.captions import END, PAD
from metaopt.diffusion.latents import LibraryTokenizer
from metaopt.tasks import load_task

from ..latents import SHAPE, WORDS, write_tokenizer, write_videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    write_tokenizer(folder / "tokenizer")
    write_videos(folder / "videos")
    return folder


def load(folder, **options):
    return load_task(
        "captioned-latents",
        **{"data_dir": folder / "videos", "tokenizer": folder / "tokenizer", "prompt_length": 6, **options},
    )


def test_videos_have_their_captions(folder):
    task = load(folder)
    batch = task.splits["train"][:]
    videos, times, tokens = unpack(batch.inputs, SHAPE)
    clean = videos - times.reshape(-1, 1, 1, 1, 1) * batch.labels.unflatten(1, SHAPE)
    captions = task.tokenizer.decode(tokens)
    means = {animal: clean[["cat" in caption for caption in captions]].mean() for animal in ("cat",)}
    assert abs(means["cat"] - 0) < 0.1
    assert abs(clean[["dog" in caption for caption in captions]].mean() - 1) < 0.1
    assert sorted({*captions}) == [f"a {animal} {verb}" for animal in ("cat", "dog") for verb in ("runs", "sleeps")]


def test_a_network_of_these_shapes_trains_on_them(folder):
    task = load(folder)
    sizes = {"patch_size": (1, 2, 2), "num_layers": 1, "heads": 1, "ffn_dim": 16, "text_layers": 1, "text_ffn_dim": 16}
    model = get_target_model("TextToVideo", task.model_facts, **sizes)
    inputs, labels = task.splits["validation"][:]
    task.loss(model(inputs), labels).backward()
    assert all(weights.grad is not None for weights in model.transformer.parameters())


def test_a_tokenizer_ends_and_pads_prompts(folder):
    tokenizer = LibraryTokenizer(folder / "tokenizer", 4)
    assert tokenizer.encode(["a cat", ""]).tolist() == [[3, 4, END, PAD], [END, PAD, PAD, PAD]]
    assert tokenizer.decode(tokenizer.encode(["a cat"])) == ["a cat"]
    assert tokenizer.vocab_size == 3 + len(WORDS)


def test_another_vocabulary_has_another_digest(folder, tmp_path):
    own, same = (LibraryTokenizer(folder / "tokenizer", 4).digest for _ in range(2))
    other = LibraryTokenizer(write_tokenizer(tmp_path, ("a", "dog", "cat", "runs", "sleeps")), 4).digest
    assert own == same != other
    assert LibraryTokenizer(folder / "tokenizer", 5).digest != own


def changed(folder, name, change):
    """A copy of the videos with one change."""
    copy = folder.parent / f"{folder.name}_{name}"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    change(copy / "videos")
    return copy


INVALID = {
    "unknown word": (lambda videos: (videos / "video_003.txt").write_text("a bird"), InvalidConfig, "does not know"),
    "long caption": (lambda videos: (videos / "video_003.txt").write_text("a " * 6), InvalidConfig, "has 7 tokens"),
    "no caption": (lambda videos: (videos / "video_003.txt").unlink(), TaskDataError, "video_003.txt"),
    "empty caption": (lambda videos: (videos / "video_003.txt").write_text(" \n"), TaskDataError, "is empty"),
    "binary caption": (lambda videos: (videos / "video_003.txt").write_bytes(b"a \xff"), TaskDataError, "in UTF-8"),
    "other shape": (
        lambda videos: save_file({"latents": torch.zeros(4, 3, 4, 4)}, videos / "video_003.safetensors"),
        TaskDataError,
        r"has the shape \(4, 3, 4, 4\) and video_000.safetensors \(4, 2, 4, 4\)",
    ),
    "other tensor": (
        lambda videos: save_file({"video": torch.zeros(SHAPE)}, videos / "video_003.safetensors"),
        TaskDataError,
        "has only 'video'; expected a tensor latents",
    ),
    "not finite": (
        lambda videos: save_file({"latents": torch.full(SHAPE, torch.nan)}, videos / "video_003.safetensors"),
        TaskDataError,
        "holds NaN or infinity",
    ),
    "pickle": (
        lambda videos: (videos / "video_003.safetensors").write_bytes(b"\x80\x02}q\x00."), TaskDataError, "video_003"
    ),
    "nothing": (lambda videos: [path.unlink() for path in videos.iterdir()], TaskDataError, "no files <name>"),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_data_that_cannot_be_used_is_refused(folder, name):
    change, error, message = INVALID[name]
    with pytest.raises(error, match=message):
        load(changed(folder, name.replace(" ", "_"), change))


def test_tokenizers_that_cannot_be_used_are_refused(folder, tmp_path):
    with pytest.raises(InvalidConfig, match="expected a folder with one of transformers"):
        load(folder, tokenizer=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidConfig, match="is no tokenizer that transformers reads"):
        load(folder, tokenizer=tmp_path / "empty")
    other = write_tokenizer(tmp_path / "other", special=("</s>", "<pad>", "<unk>"))
    with pytest.raises(InvalidConfig, match=r"has the tokens \(1, 0\) for padding and end; expected \(0, 1\)"):
        load(folder, tokenizer=other)
