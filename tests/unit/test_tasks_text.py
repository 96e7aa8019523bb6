import os
import re
import subprocess
import sys
import time

import pytest
import torch

from metaopt.core.errors import TaskDataError
from metaopt.tasks import load_task
from metaopt.tasks.tokenizers import Bytes, Characters, SentencePieces

TEXT = "".join(f"The {n}th dög of {n * n} cats ran to the {n % 7} houses.\n" for n in range(1500))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def load(path, **options):
    return load_task("text", data_dir=path, **options)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return tmp_path / "text.txt"


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "sentencepiece"])
def test_splits_are_consecutive_and_labels_are_the_next_tokens(file, tokenizer):
    task = load(file, tokenizer=tokenizer, vocab_size=400, block_size=16)
    end = 0
    for name in ("train", "meta", "guard", "validation"):
        inputs, labels = task.splits[name][:]
        assert inputs.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], labels[:, :-1])
        assert torch.equal(inputs[1:, 0], labels[:-1, -1])
        text = task.decode(inputs.flatten()).rstrip("�")  # a block may end within a character
        assert TEXT.find(text) >= end
        end = TEXT.find(text) + len(text)
    assert task.model_facts["block_size"] == 16


def test_vocabulary_sizes(file):
    sizes = [load(file, tokenizer=name, vocab_size=400).model_facts["vocab_size"] for name in ("bytes", "characters")]
    assert sizes == [256, len(set(TEXT))]
    assert load(file, tokenizer="sentencepiece", vocab_size=400).model_facts["vocab_size"] == 400


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters(TEXT), "sentencepiece"])
def test_decoding_restores_the_text(tokenizer):
    tokenizer = SentencePieces.train(TEXT, 400) if tokenizer == "sentencepiece" else tokenizer
    for text in (TEXT[:200], "", "  of  the  dog\n\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepiece_encodes_unknown_characters_as_bytes():
    pieces = SentencePieces.train(TEXT, 400)
    assert pieces.decode(pieces.encode("日本\t€")) == "日本\t€"


def test_an_unknown_character_is_an_error():
    with pytest.raises(TaskDataError, match="'日' is not among"):
        Characters(TEXT).encode("a 日")


def test_sentencepiece_is_trained_once(home, monkeypatch):
    first = SentencePieces.train(TEXT, 400)
    monkeypatch.setattr("sentencepiece.SentencePieceTrainer.train", None)
    assert torch.equal(SentencePieces.train(TEXT, 400).encode(TEXT), first.encode(TEXT))


def test_sentencepiece_is_trained_on_the_training_split_alone(file):
    task = load(file, tokenizer="sentencepiece", vocab_size=400, block_size=16)
    file.write_bytes((TEXT[:-500] + "x" * 500).encode())
    other = load(file, tokenizer="sentencepiece", vocab_size=400, block_size=16)
    assert torch.equal(task.encode(TEXT), other.encode(TEXT))


def test_sentencepiece_can_be_trained_on_one_long_line():
    assert SentencePieces.train(TEXT.replace("\n", " "), 400).vocab_size == 400


@pytest.mark.parametrize(("size", "advice"), [(32000, r"vocab_size=(\d+) or less"), (20, r"vocab_size=(\d+) or more")])
def test_an_impossible_vocabulary_size_is_an_error_with_a_possible_one(file, size, advice, capfd):
    with pytest.raises(TaskDataError, match=f"text.txt: vocab_size is {size}.*{advice}") as caught:
        load(file, tokenizer="sentencepiece", vocab_size=size)
    fits = int(re.search(advice, str(caught.value))[1])
    assert load(file, tokenizer="sentencepiece", vocab_size=fits).model_facts["vocab_size"] == fits
    assert capfd.readouterr() == ("", "")  # no log of SentencePiece


def test_a_folder_is_read_in_the_order_of_names(tmp_path, file):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "2.txt").write_text(TEXT[1000:])
    (folder / "1.txt").write_text("\ufeff" + TEXT[:999])
    (folder / "notes.md").write_text("not this")
    assert TEXT[999] != "\n"
    assert load(folder).decode(load(folder).splits["train"][:1].inputs[0]) == TEXT.encode()[:128].decode()


def test_endings_in_upper_case_are_read_and_other_files_are_counted(tmp_path, file, caplog):
    before = load(file)
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "1.TXT").write_text(TEXT[:1000])
    (folder / "2.Txt").write_text(TEXT[1000:])
    for name in ("notes.md", "deep/3.txt", ".ipynb_checkpoints/1.txt", ".DS_Store"):
        (folder / name).write_text("not this")
    (folder / "4.txt").symlink_to("nowhere")
    (folder / "5.txt").write_text(" \n")
    task = load(folder)
    assert sum(map(len, task.splits.values())) == pytest.approx(sum(map(len, before.splits.values())), abs=1)
    first, second = task.notes
    assert first == (
        f"{folder}: ignored 1 broken link, 1 folder, 1 hidden or system file, 1 hidden or system folder, "
        "1 file with other endings (.md 1)"
    )
    assert second == f"{folder}: 1 empty file of 3"
    assert first in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_states_the_encoding(tmp_path, file, encoding):
    (tmp_path / "other.txt").write_bytes(TEXT.encode(encoding))
    assert load(tmp_path / "other.txt").digest() == load(file).digest()


def test_one_enormous_line_is_a_text(tmp_path, file):
    (tmp_path / "line.txt").write_bytes(TEXT.replace("\n", " ").encode() * 20)
    task = load(tmp_path / "line.txt", tokenizer="sentencepiece", vocab_size=400)
    assert task.describe().notes == ()


def test_a_text_that_is_too_short_is_an_error_with_a_possible_block_size(file):
    with pytest.raises(TaskDataError, match=r"guard \d+.*block_size=\d+ or less") as caught:
        load(file, block_size=10000)
    fits = int(str(caught.value).partition("block_size=")[2].split()[0])
    assert len(load(file, block_size=fits).splits["guard"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*No such file.*UTF-8.*data_dir"),
        (b"", "no text in it"),
        (b" \n", "no text in it"),
        (b"abc", "too short for blocks of 128 tokens"),
        (b"abc\xffdef", r"text\.txt is not UTF-8: byte 3 \(0xff\)"),
        ("für".encode("latin-1"), r"text\.txt is not UTF-8: byte 1 \(0xfc\).*iconv"),
        (b"\xff\xfea\0b", r"text\.txt is not UTF-16"),
        (b"abc\0def", r"text\.txt contains a NUL character \(number 3\)"),
        (TEXT.replace("ö", "o").encode("utf-16-le"), r"NUL character.* UTF-16 without a byte order mark"),
    ],
)
def test_an_invalid_file_is_an_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(TaskDataError, match=message) as caught:
        load(tmp_path / "text.txt")
    assert str(tmp_path / "text.txt") in str(caught.value)


def test_a_folder_without_text_files_is_an_error(tmp_path):
    with pytest.raises(TaskDataError, match=r"holds no \*\.txt files"):
        load(tmp_path)


def test_perplexity_does_not_overflow(file):
    task = load(file)
    assert task.metrics_of_loss(0.0) == {"perplexity": 1.0}
    assert task.metrics_of_loss(1e9)["perplexity"] > 1e300


def test_the_batch_size_of_evaluation_is_bounded_by_the_logits(file):
    assert load(file, block_size=2).rows_at_once == 500
    assert load(file, tokenizer="sentencepiece", vocab_size=500, block_size=512).rows_at_once == 65


@pytest.mark.parametrize("without", [{"HF_HUB_OFFLINE": "1"}, {"HTTPS_PROXY": "http://127.0.0.1:9"}])
def test_tinystories_without_a_network_is_an_error_at_once(tmp_path, without):
    program = (
        "from metaopt.tasks import load_task\nfrom metaopt.core.errors import TaskDataError\n"
        "try: load_task('tinystories')\nexcept TaskDataError as error: print(error)"
    )
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment = kept | {"HF_HOME": str(tmp_path)} | without
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "cannot download roneneldan/TinyStories" in done.stdout
    assert "the task `text`" in done.stdout
    assert time.monotonic() - started < 60


def test_a_missing_package_is_an_error_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'pip install "metaopt\[datasets\]"'):
        load_task("tinystories")
