import math

import pytest
import torch

from metaopt.core.errors import InvalidConfig, TaskDataError, UnknownName
from metaopt.core.rng import generator
from metaopt.tasks import Examples, load_task
from metaopt.tasks.image_augmentation import flipped, shifted
from metaopt.tasks.measure import batches_of


def test_digits_are_divided_as_documented():
    task = load_task("digits")
    assert {name: len(examples) for name, examples in task.splits.items()} == {
        "train": 945,
        "meta": 269,
        "guard": 134,
        "validation": 449,
    }
    assert task.model_facts == {"in_features": 64, "in_channels": 1, "image_size": 8, "classes": 10}
    assert task.baseline_loss == pytest.approx(math.log(10))


def test_digits_are_standardised():
    inputs = torch.cat([examples[:].inputs for examples in load_task("digits").splits.values()])
    assert inputs.mean().abs() < 1e-5
    assert inputs.std() == pytest.approx(1.0, abs=1e-5)


def test_another_split_seed_gives_other_splits():
    assert load_task("digits").digest() != load_task("digits", split_seed=1).digest()


def test_mnist_from_files(mnist_dir):
    task = load_task("mnist", data_dir=mnist_dir, download=False)
    assert task.model_facts == {"in_features": 784, "in_channels": 1, "image_size": 28, "classes": 10}
    assert task.splits["train"][:].inputs.dtype == torch.float32


def test_missing_mnist_files_are_an_error_with_advice(tmp_path):
    with pytest.raises(TaskDataError, match="--data-dir"):
        load_task("mnist", data_dir=tmp_path, download=False)


def test_an_unknown_task_lists_the_nearest():
    with pytest.raises(UnknownName, match="did you mean digits"):
        load_task("digit")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, "half"])
def test_an_invalid_fraction_is_an_error(fraction):
    with pytest.raises(InvalidConfig, match="meta_fraction"):
        load_task("digits", meta_fraction=fraction)


def test_generator_depends_on_every_number():
    first = {int(torch.randint(2**40, (), generator=generator(*n))) for n in [(1, 2), (2, 1), (12,), (1, 2, 0), (1,)]}
    assert len(first) == 5


def test_training_digits_are_shifted_again_in_each_epoch():
    task, plain = load_task("digits"), load_task("digits", shift=0)
    first, second, unshifted = (next(t.batches(64, 0, e)).inputs for t, e in ((task, 0), (task, 1), (plain, 0)))
    assert not torch.equal(first, unshifted)
    assert not torch.equal(first, second)
    assert first.shape == unshifted.shape


def test_a_shifted_image_keeps_its_content():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 4] = 1
    places = {tuple(shifted(image, 1, generator(seed))[0, 0].nonzero()[0].tolist()) for seed in range(60)}
    assert places == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}


def test_a_flipped_image_is_its_mirror_image_or_itself():
    image = torch.arange(4.0).reshape(1, 1, 1, 4)
    seen = {tuple(flipped(image, generator(seed)).flatten().tolist()) for seed in range(20)}
    assert seen == {(0, 1, 2, 3), (3, 2, 1, 0)}


@pytest.mark.parametrize(
    ("features", "device", "rows"), [(64, "cpu", 500), (784, "cpu", 51), (100_000, "cpu", 16), (784, "cuda", 500)]
)
def test_batches_of_large_inputs_fit_into_the_caches_of_a_cpu(features, device, rows):
    task = load_task("digits")
    examples = Examples(torch.zeros(600, features), torch.zeros(600))
    batches = list(batches_of(examples, task, torch.device(device)))
    assert len(batches[0].inputs) == rows
    assert sum(len(batch.inputs) for batch in batches) == 600
