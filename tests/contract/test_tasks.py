"""What every task must keep, ours and those of plug-ins."""

from itertools import combinations

import pytest
import torch

from metaopt.tasks import TASKS, get_task

BUILT: dict[str, object] = {}

pytestmark = pytest.mark.parametrize("name", TASKS.names())


@pytest.fixture
def task(name, request):
    options = {}
    if "data_dir" in TASKS.get(name).Config.names():
        options = {"data_dir": request.getfixturevalue("mnist_dir"), "download": False}
    if name not in BUILT:  # reading the data takes longer than any test here
        BUILT[name] = get_task(name, **options)
    return BUILT[name]


def rows(batch):
    return {row.numpy().tobytes() for row in batch.inputs}


def outputs_for(task, labels):
    return torch.randn(len(labels), task.model_facts["classes"], generator=torch.Generator().manual_seed(0))


def test_has_all_splits_and_they_are_disjoint(task):
    assert set(task.splits) == {"train", "meta", "guard", "validation"}
    examples = {name: rows(split[:]) for name, split in task.splits.items()}
    assert all(examples.values())
    for one, other in combinations(examples, 2):
        assert not examples[one] & examples[other], (one, other)


def test_same_random_seed_gives_the_same_batches(task):
    first, again = (list(task.batches(64, seed=5, epoch=1)) for _ in range(2))
    assert all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) for a, b in zip(first, again, strict=True)
    )


@pytest.mark.parametrize(("seed", "epoch"), [(6, 1), (5, 2)])
def test_another_seed_or_epoch_gives_another_order(task, seed, epoch):
    first, other = next(task.batches(64, seed=5, epoch=1)), next(task.batches(64, seed=seed, epoch=epoch))
    assert not torch.equal(first.inputs, other.inputs)


def test_an_epoch_holds_every_training_example_once(task):
    batches = list(task.batches(64, seed=0, epoch=0))
    labels = torch.cat([batch.labels for batch in batches])  # a task may vary its inputs, never its labels
    assert torch.equal(labels.sort().values, task.splits["train"][:].labels.sort().values)
    assert all(len(batch.inputs) == len(batch.labels) for batch in batches)


def test_sample_is_without_repetition_and_bounded(task):
    size = len(task.splits["meta"][:].inputs)
    batch = task.sample("meta", size + 100, torch.Generator().manual_seed(0))
    assert len(batch.inputs) == len(batch.labels) == size
    assert rows(batch) == rows(task.splits["meta"][:])


def test_loss_and_metrics_are_finite_and_differentiable(task):
    labels = task.splits["train"][:].labels[:32]
    outputs = outputs_for(task, labels).requires_grad_()
    loss = task.loss(outputs, labels)
    loss.backward()
    assert loss.ndim == 0
    assert loss.isfinite()
    assert outputs.grad.isfinite().all()
    assert all(metric.isfinite() for metric in task.metrics(outputs.detach(), labels).values())


def test_a_constant_answer_scores_the_baseline_loss(task):
    labels = task.splits["train"][:].labels
    loss = task.loss(torch.zeros(len(labels), task.model_facts["classes"]), labels)
    assert float(loss) == pytest.approx(task.baseline_loss, rel=1e-4)


def test_digest_is_stable_and_short(task):
    assert task.digest() == task.digest()
    assert len(task.digest()) == 32
