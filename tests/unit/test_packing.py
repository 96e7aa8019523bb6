"""Packing of conversations: only what the assistant says counts in the loss, and the check of that."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from metaopt.core.errors import FileFormatError, InvalidConfig, TaskDataError
from metaopt.operations.validation import Settings, pack, validate
from metaopt.operations.validation.packed_masks import mask_problem
from metaopt.operations.validation.packing import END, MASKED, read_tokenizer
from metaopt.tasks.tokenizers import Bytes, SentencePieces

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes – ✓"},
]
OTHER = [{"role": "user", "content": "Ciao"}, {"role": "assistant", "content": "ciao"}]

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=12).filter(str.strip)
TURNS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


def conversation(turns):
    return [
        message
        for asked, answered in turns
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
    ]


def test_the_labels_are_the_answers_with_their_end_marks():
    (example,) = pack([CHAT, OTHER], Bytes(), 300)
    assert len(example.input_ids) == len(example.labels) == 300
    counted = [label for label in example.labels if label != MASKED]
    assert bytes(counted).decode() == f"4{END}Yes – ✓{END}ciao{END}"
    text = bytes(example.input_ids).decode().rstrip("\0")
    assert text.startswith("<|system|>\nBe brief.<|end|>\n<|user|>\n2 + 2?<|end|>\n<|assistant|>\n4<|end|>\n")
    logits = torch.zeros(300, 256)
    assert cross_entropy(logits, torch.tensor(example.labels)).item() == pytest.approx(torch.tensor(256.0).log().item())


@settings(max_examples=40)
@given(st.lists(TURNS, min_size=1, max_size=6), st.integers(200, 600))
def test_what_is_packed_passes_and_nothing_is_lost(turns, length):
    chats = [conversation(each) for each in turns]
    examples = list(pack(chats, Bytes(), length)) if max(map(size, chats)) <= length else []
    assert all(mask_problem(each.line(), Bytes()) is None for each in examples)
    assert [chat for each in examples for chat in each.conversations] == (chats if examples else [])
    assert all(len(each.input_ids) == length for each in examples)


def size(chat):
    (example,) = pack([chat], Bytes(), 100_000)
    return len(bytes(example.input_ids).decode().rstrip("\0").encode())


@given(st.data())
def test_any_one_label_that_changes_is_found(data):
    (example,) = pack([CHAT, OTHER], Bytes(), 280)
    value = example.line()
    place = data.draw(st.integers(0, 279))
    label = data.draw(st.sampled_from([MASKED, value["input_ids"][place], 3]))
    changed = label != value["labels"][place]
    value["labels"] = [*value["labels"][:place], label, *value["labels"][place + 1 :]]
    assert (mask_problem(value, Bytes()) is not None) == changed


def test_a_mask_of_another_template_is_judged_by_its_texts():
    """Tokens of another program: another rendering, one message masked that should count."""
    text = "[INST] 2 + 2? [/INST]4</s>"
    ids = list(text.encode())
    answer = len("[INST] 2 + 2? [/INST]")
    value = {
        "schema": "packed_v1",
        "conversations": [[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]],
        "input_ids": ids,
        "labels": [MASKED] * answer + ids[answer:],
        "end": "</s>",
    }
    assert mask_problem(value, Bytes()) is None
    assert "expected the answer with its end mark, '4</s>'" in mask_problem({**value, "labels": ids}, Bytes())
    assert "0 runs of tokens count" in mask_problem({**value, "labels": [MASKED] * len(ids)}, Bytes())
    without_end = [*value["labels"][:-4], *[MASKED] * 4]
    assert "the run 1 of tokens that count is '4'" in mask_problem({**value, "labels": without_end}, Bytes())


def test_a_conversation_that_does_not_fit_or_contains_a_mark_is_refused():
    with pytest.raises(TaskDataError, match=r"the conversation 2 has .* expected at most 60"):
        list(pack([OTHER, CHAT], Bytes(), 60))
    with pytest.raises(TaskDataError, match="contains a mark"):
        list(pack([[*OTHER[:1], {"role": "assistant", "content": f"x{END}"}]], Bytes(), 600))


def test_the_check_reads_the_tokens_of_sentencepiece_and_of_hugging_face(tmp_path):
    corpus = "Be brief. 2 + 2? 4 Sure? Yes – ✓ Ciao ciao assistant system user end\n" * 50
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from metaopt.tasks import tokenizers as ours

    model = ours._train(corpus, 286)
    (tmp_path / "own.model").write_bytes(model)
    other = Tokenizer(models.BPE())
    other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    other.train_from_iterator([corpus], trainer)
    other.save(str(tmp_path / "tokenizer.json"))
    for name in ("own.model", "tokenizer.json"):
        tokenizer = read_tokenizer(str(tmp_path / name))
        (example,) = pack([CHAT, OTHER], tokenizer, 400)
        path = tmp_path / "packed.jsonl"
        path.write_text(json.dumps(example.line()) + "\n", encoding="utf-8")
        given_tokenizer = Settings(tokenizer=str(tmp_path / name))
        assert not validate([path], settings=given_tokenizer).failed
        example.labels[example.labels.index(MASKED)] = example.input_ids[0]
        path.write_text(json.dumps(example.line()) + "\n", encoding="utf-8")
        assert validate([path], settings=given_tokenizer).failed
    assert isinstance(read_tokenizer(str(tmp_path / "own.model")), SentencePieces)


def test_a_tokenizer_that_is_none_is_an_error_in_words(tmp_path):
    for name in ("a.model", "a.json"):
        (tmp_path / name).write_bytes(b"\x80nothing")
        with pytest.raises(FileFormatError, match="is no tokenizer"):
            read_tokenizer(str(tmp_path / name))
    with pytest.raises(InvalidConfig, match="expected bytes, a file"):
        read_tokenizer("gpt2")
    with pytest.raises(FileFormatError, match="cannot read"):
        read_tokenizer(str(tmp_path / "gone.model"))
