"""The contract of tasks: those of metaopt and of plug-ins."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import vmap

from metaopt.core.errors import TaskDataError
from metaopt.tasks import TASKS, load_task, task_config
from metaopt.tasks.cache import CacheEntry, cache_key, cached

SPLITS = {"train", "meta", "guard", "validation"}
HERE = Path(__file__).parent


def write_images(folder):
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 10)):
        for name in ("cat", "dog", "eel"):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return {"data_dir": folder, "image_size": 8, "shift": 1, "flip": True}


def write_idx(folder, name):
    """The format of MNIST: a magic number, the shape, bytes."""
    random = np.random.default_rng(0)
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 30)):
        images, labels = random.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    return {"data_dir": folder, "download": False}


def words(count):
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzäß€"))
    return " ".join("".join(random.choice(letters, random.integers(2, 9))) for _ in range(count))


def write_text(folder, tokenizer):
    (folder / "words.txt").write_text(words(4000), encoding="utf-8")
    return {"data_dir": folder / "words.txt", "tokenizer": tokenizer, "vocab_size": 350, "block_size": 16}


def write_haystack(folder):
    return {"data_dir": write_text(folder, "bytes")["data_dir"], "examples": 200, "block_size": 128}


def write_table(folder, predict):
    random = np.random.default_rng(0)
    rows = [
        f"{a},{b},{a - 2 * b if predict == 'regression' else 'yes' if a > b else 'no'}"
        for a, b in random.random((200, 2))
    ]
    (folder / "rows.csv").write_text("\n".join(["a,b,label", *rows]))
    return {"data_dir": folder / "rows.csv", "predict": predict}


def write_latents(folder):
    from ..latents import write_tokenizer, write_videos  # another process imports this module as a script

    return {
        "data_dir": write_videos(folder / "videos"),
        "tokenizer": write_tokenizer(folder / "tokenizer"),
        "prompt_length": 6,
    }


def cache_stories():
    """Fill the cache as a download of 50 stories would."""
    text = torch.frombuffer(bytearray(words(4000).encode()), dtype=torch.uint8)
    cached("tinystories", cache_key("roneneldan/TinyStories", 50), lambda: CacheEntry({"text": text}, {}))
    return {"stories": 50, "block_size": 16}


CASES = {  # name of a case, which begins with the name of its task: writes its data, returns its options
    "associative-recall": lambda folder, real: {"examples": 200, "block_size": 32, "pairs": 3, "random_filler": True},
    "captioned-latents": lambda folder, real: write_latents(folder),
    "captioned-shapes": lambda folder, real: {"examples": 120, "frames": 2, "size": 6},
    "cifar10": lambda folder, real: {"data_dir": real("cifar-10-batches-py"), "download": False},
    "csv classification": lambda folder, real: write_table(folder, "classification"),
    "csv regression": lambda folder, real: write_table(folder, "regression"),
    "digits": lambda folder, real: {},
    "fashion-mnist": lambda folder, real: write_idx(folder, "FashionMNIST"),
    "image-folder": lambda folder, real: write_images(folder),
    "mnist": lambda folder, real: write_idx(folder, "MNIST"),
    "mnist real": lambda folder, real: {"data_dir": real("MNIST/raw"), "download": False},
    "needle": lambda folder, real: {"examples": 200, "needles": 2},
    "needle text": lambda folder, real: write_haystack(folder),
    "passkey": lambda folder, real: {"examples": 200, "block_size": 128, "digits": 3},
    "text bytes": lambda folder, real: write_text(folder, "bytes"),
    "text characters": lambda folder, real: write_text(folder, "characters"),
    "text sentencepiece": lambda folder, real: write_text(folder, "sentencepiece"),
    "tinystories": lambda folder, real: cache_stories(),
}

each = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def built(tmp_path_factory, real_data, cache_home):
    """Returns name, configuration and task of a case; cached, because loading takes longer than any test."""

    @cache
    def of(case):
        name = case.partition(" ")[0]
        config = task_config(name, CASES[case](tmp_path_factory.mktemp("data"), real_data))
        return name, config, load_task(name, **config)

    return of


@pytest.fixture
def task(case, built):
    return built(case)[2]


def rows(batch):
    return {row.numpy().tobytes() for row in batch.inputs}


def outputs_for(task, labels, *batch):
    """Random outputs of a network: one row per label, or per label of a token."""
    facts = task.model_facts
    last = () if "video_shape" in facts else (facts.get("classes") or facts["vocab_size"],)
    shape = (*batch, *labels.shape, *last)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def constant_outputs(task, labels):
    zeros = torch.zeros_like(outputs_for(task, labels))
    return zeros + labels.mean() if task.kind == "regression" else zeros


def told_apart(task, batch):
    """What an epoch does not change: a task may augment its inputs, and noise replaces all but the video."""
    if "video_shape" not in task.model_facts:
        return batch.labels
    numbers = batch.labels.shape[1]
    videos = batch.inputs[:, :numbers] - batch.inputs[:, [numbers]] * batch.labels  # x_0 = x_t - t v
    return (videos * 1000).round().int()


def fingerprint(task):
    """Digests of the data and of the batches of an epoch."""
    sha = hashlib.sha256()
    for batch in task.batches(64, seed=5, epoch=1):
        for tensor in batch:
            sha.update(tensor.contiguous().numpy().tobytes())
    return [task.digest(), sha.hexdigest()]


def test_every_task_of_metaopt_has_a_case():
    ours = {name for name in TASKS.names() if TASKS.origin(name) == "metaopt"}
    assert {case.partition(" ")[0] for case in CASES} == ours


@each
def test_has_all_splits_and_they_are_disjoint(task):
    assert set(task.splits) == SPLITS
    examples = {name: rows(split[:]) for name, split in task.splits.items()}
    assert all(examples.values())
    for one, other in combinations(examples, 2):
        assert not examples[one] & examples[other], (one, other)


@each
def test_same_random_seed_gives_the_same_batches(task):
    assert fingerprint(task) == fingerprint(task)


@each
@pytest.mark.parametrize(("seed", "epoch"), [(6, 1), (5, 2)])
def test_another_seed_or_epoch_gives_another_order(task, seed, epoch):
    first, other = next(task.batches(64, seed=5, epoch=1)), next(task.batches(64, seed=seed, epoch=epoch))
    assert not torch.equal(first.inputs, other.inputs)


@each
def test_an_epoch_contains_every_training_example_once(task):
    batches = list(task.batches(64, seed=0, epoch=0))
    found = torch.cat([told_apart(task, batch) for batch in batches])
    assert sorted(found.tolist()) == sorted(told_apart(task, task.splits["train"][:]).tolist())
    assert all(len(batch.inputs) == len(batch.labels) for batch in batches)


@each
def test_sample_is_without_replacement_and_bounded(task):
    size = len(task.splits["meta"])
    batch = task.sample("meta", size + 100, torch.Generator().manual_seed(0))
    assert len(batch.inputs) == len(batch.labels) == size
    assert rows(batch) == rows(task.splits["meta"][:])


@each
def test_loss_and_metrics_are_finite_and_differentiable(task):
    labels = task.splits["train"][:32].labels
    outputs = outputs_for(task, labels).requires_grad_()
    loss = task.loss(outputs, labels)
    loss.backward()
    assert loss.ndim == 0
    assert loss.isfinite()
    assert outputs.grad.isfinite().all()
    assert all(metric.isfinite() for metric in task.metrics(outputs.detach(), labels).values())


@each
def test_metric_names_are_complete(task):
    labels = task.splits["train"][:8].labels
    found = {*task.metrics(outputs_for(task, labels), labels), *task.metrics_of_loss(1.0)}
    assert found == set(task.metric_names)


@each
def test_vmap_over_networks_gives_the_loss_of_each(task):
    labels = task.splits["train"][:8].labels
    outputs = outputs_for(task, labels, 3)
    together = vmap(task.loss, in_dims=(0, None))(outputs, labels)
    assert torch.allclose(together, torch.stack([task.loss(each, labels) for each in outputs]))


@each
def test_losses_are_those_of_each_example_and_their_mean_is_the_loss(task):
    labels = task.splits["train"][:8].labels
    outputs = outputs_for(task, labels)
    losses = task.losses(outputs, labels)
    alone = [task.loss(outputs[[row]], labels[[row]]) for row in range(len(labels))]
    assert torch.allclose(losses, torch.stack(alone), atol=1e-6)
    assert float(losses.mean()) == pytest.approx(float(task.loss(outputs, labels)), rel=1e-4)


@each
def test_a_constant_prediction_has_the_baseline_loss(task):
    labels = task.splits["train"][:].labels
    assert float(task.loss(constant_outputs(task, labels), labels)) == pytest.approx(task.baseline_loss, rel=1e-4)


@each
def test_the_description_is_json(task):
    described = task.describe().to_mapping()
    assert json.loads(json.dumps(described)) == described
    assert 0 < described["target_loss"] < described["baseline_loss"]
    assert json.loads(json.dumps(dict(task.model_facts))) == task.model_facts


@each
def test_digest_is_stable_short_and_covers_every_split(task):
    digest = task.digest()
    assert len(digest) == 32
    for name in SPLITS:
        complete, task.splits[name] = task.splits[name], type(task.splits[name])(*task.splits[name][:1])
        assert task.digest() != digest
        task.splits[name] = complete
    assert task.digest() == digest


@each
def test_a_configuration_round_trips_through_json(case, built):
    name, config, _ = built(case)
    assert task_config(name, json.loads(json.dumps(config))) == config


@each
def test_works_on_another_device(task):
    """A fake GPU: an operation on tensors of two devices raises."""
    labels = task.splits["train"][:8].labels
    outputs = outputs_for(task, labels)
    with FakeTensorMode() as mode:
        outputs, labels = (mode.from_tensor(each).to("cuda") for each in (outputs, labels))
        found = [task.loss(outputs, labels), task.losses(outputs, labels), *task.metrics(outputs, labels).values()]
    assert {each.device.type for each in found} == {"cuda"}


WITHOUT_FILES = ("associative-recall", "captioned-shapes", "digits", "needle", "passkey", "tinystories")
reads_files = pytest.mark.parametrize("case", [case for case in CASES if case not in WITHOUT_FILES])


@reads_files
def test_whatever_else_a_data_folder_holds_is_ignored_or_refused(case, built, tmp_path, monkeypatch):
    name, config, task = built(case)
    source = Path(config["data_dir"])
    if "real" in case or source.is_file():
        pytest.skip("a file, or data that must stay as it is")
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    folders = [copy, *(path for path in sorted(copy.rglob("*")) if path.is_dir())]
    for folder in folders:
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "@eaDir").mkdir()
        (folder / "loop").symlink_to(copy)
        for path in [each for each in folder.iterdir() if each.is_file()][:1]:
            for hidden in (".ipynb_checkpoints", "@eaDir"):
                shutil.copy(path, folder / hidden)
    other = load_task(name, **config | {"data_dir": copy})
    assert other.digest() == task.digest()
    for folder in folders:
        os.mkfifo(folder / f"pipe{next((path.suffix for path in folder.iterdir() if path.is_file()), '')}")
    try:
        assert load_task(name, **config | {"data_dir": copy}).digest() == task.digest()
    except TaskDataError as error:
        assert "a pipe" in str(error)  # noqa: PT017 - one of two right answers


@reads_files
@pytest.mark.parametrize("kind", ["pipe", "device", "nothing"])
def test_what_is_no_regular_file_is_refused_as_data(case, built, tmp_path, kind):
    name, config, _ = built(case)
    if kind == "pipe":
        os.mkfifo(tmp_path / kind)
    elif kind == "device":
        (tmp_path / kind).symlink_to("/dev/zero")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TaskDataError):
        load_task(name, **config | {"data_dir": tmp_path / kind})
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def other_process(built):
    """The fingerprints of all tasks in another process."""
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from test_tasks import fingerprint, load_task\n"
        "for case, (name, config) in json.load(sys.stdin).items():\n"
        "    print(json.dumps([case, fingerprint(load_task(name, **config))]))"
    )
    cases = {}
    for case in CASES:
        with suppress(pytest.skip.Exception):
            cases[case] = built(case)[:2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(HERE)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(map(json.loads, done.stdout.splitlines()))


@each
def test_another_process_has_the_same_data_and_batches(case, task, request):
    assert request.getfixturevalue("other_process")[case] == fingerprint(task)
