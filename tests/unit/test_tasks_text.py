import os
import re
import subprocess
import sys
import time

import pytest
import torch

from metaopt.core.errors import TaskDataError
from metaopt.tasks import load_task
from metaopt.tasks.tokenizers import Bytes, Characters, Pieces

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
def test_parts_follow_on_one_another_and_labels_on_inputs(file, tokenizer):
    task = load(file, tokenizer=tokenizer, vocab_size=400, block_size=16)
    end = 0
    for name in ("train", "meta", "guard", "validation"):
        inputs, labels = task.splits[name][:]
        assert inputs.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], labels[:, :-1])
        assert torch.equal(inputs[1:, 0], labels[:-1, -1])
        said = task.decode(inputs.flatten()).rstrip("�")  # a block may end within a character
        assert TEXT.find(said) >= end
        end = TEXT.find(said) + len(said)
    assert task.model_facts["block_size"] == 16


def test_vocabularies(file):
    sizes = [load(file, tokenizer=name, vocab_size=400).model_facts["vocab_size"] for name in ("bytes", "characters")]
    assert sizes == [256, len(set(TEXT))]
    assert load(file, tokenizer="sentencepiece", vocab_size=400).model_facts["vocab_size"] == 400


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters(TEXT), "pieces"])
def test_what_is_encoded_can_be_decoded(tokenizer):
    tokenizer = Pieces.learned(TEXT, 400) if tokenizer == "pieces" else tokenizer
    for text in (TEXT[:200], "", "  of  the  dog\n\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pieces_say_what_they_never_saw():
    pieces = Pieces.learned(TEXT, 400)
    assert pieces.decode(pieces.encode("日本\t€")) == "日本\t€"


def test_characters_refuse_what_they_never_saw():
    with pytest.raises(TaskDataError, match="'日' is not among"):
        Characters(TEXT).encode("a 日")


def test_pieces_are_learned_once(home, monkeypatch):
    first = Pieces.learned(TEXT, 400)
    monkeypatch.setattr("sentencepiece.SentencePieceTrainer.train", None)
    assert torch.equal(Pieces.learned(TEXT, 400).encode(TEXT), first.encode(TEXT))


def test_pieces_are_learned_from_the_training_part_alone(file):
    task = load(file, tokenizer="sentencepiece", vocab_size=400, block_size=16)
    file.write_bytes((TEXT[:-500] + "x" * 500).encode())
    other = load(file, tokenizer="sentencepiece", vocab_size=400, block_size=16)
    assert torch.equal(task.encode(TEXT), other.encode(TEXT))


def test_one_long_line_is_enough_to_learn_from():
    assert Pieces.learned(TEXT.replace("\n", " "), 400).vocab_size == 400


@pytest.mark.parametrize(("size", "advice"), [(32000, r"vocab_size=(\d+) or less"), (20, r"vocab_size=(\d+) or more")])
def test_a_vocabulary_that_does_not_fit_names_one_that_does(file, size, advice, capfd):
    with pytest.raises(TaskDataError, match=f"text.txt: vocab_size is {size}.*{advice}") as caught:
        load(file, tokenizer="sentencepiece", vocab_size=size)
    fits = int(re.search(advice, str(caught.value))[1])
    assert load(file, tokenizer="sentencepiece", vocab_size=fits).model_facts["vocab_size"] == fits
    assert capfd.readouterr() == ("", "")  # SentencePiece keeps its log to itself


def test_a_folder_is_read_in_the_order_of_names(tmp_path, file):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "2.txt").write_text(TEXT[1000:])
    (folder / "1.txt").write_text("\ufeff" + TEXT[:999])
    (folder / "notes.md").write_text("not this")
    assert TEXT[999] != "\n"
    assert load(folder).decode(load(folder).splits["train"][:1].inputs[0]) == TEXT.encode()[:128].decode()


def test_text_that_is_too_short_says_what_would_fit(file):
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
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(TaskDataError, match=message) as caught:
        load(tmp_path / "text.txt")
    assert str(tmp_path / "text.txt") in str(caught.value)


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(TaskDataError, match=r"holds no \*\.txt files"):
        load(tmp_path)


def test_perplexity_of_any_loss(file):
    task = load(file)
    assert task.metrics_of_loss(0.0) == {"perplexity": 1.0}
    assert task.metrics_of_loss(1e9)["perplexity"] > 1e300


def test_measurements_are_bounded_in_memory(file):
    assert load(file, block_size=2).rows_at_once == 500
    assert load(file, tokenizer="sentencepiece", vocab_size=500, block_size=512).rows_at_once == 65


@pytest.mark.parametrize("without", [{"HF_HUB_OFFLINE": "1"}, {"HTTPS_PROXY": "http://127.0.0.1:9"}])
def test_stories_without_a_network_name_the_way_out_at_once(tmp_path, without):
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


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'pip install "metaopt\[datasets\]"'):
        load_task("tinystories")
