import math

import pytest
import torch

from metaopt.errors import InvalidConfig, TaskDataError, UnknownName
from metaopt.tasks import get_task
from metaopt.tasks.base import generator


def test_digits_are_divided_as_documented():
    task = get_task("digits")
    assert {name: len(batch.inputs) for name, batch in task.splits.items()} == {
        "train": 1079,
        "meta": 269,
        "validation": 449,
    }
    assert task.model_facts == {"in_channels": 1, "image_size": 8, "classes": 10}
    assert task.baseline_loss == pytest.approx(math.log(10))


def test_digits_are_normalised():
    inputs = torch.cat([batch.inputs for batch in get_task("digits").splits.values()])
    assert inputs.mean().abs() < 1e-5
    assert inputs.std() == pytest.approx(1.0, abs=1e-5)


def test_another_split_seed_divides_otherwise():
    assert get_task("digits").digest() != get_task("digits", split_seed=1).digest()


def test_mnist_from_files(mnist_dir):
    task = get_task("mnist", data_dir=mnist_dir, download=False)
    assert task.model_facts == {"in_channels": 1, "image_size": 28, "classes": 10}
    assert task.splits["train"].inputs.dtype == torch.float32


def test_mnist_without_files_says_what_to_do(tmp_path):
    with pytest.raises(TaskDataError, match="--data-dir"):
        get_task("mnist", data_dir=tmp_path, download=False)


def test_unknown_task_shows_the_nearest():
    with pytest.raises(UnknownName, match="did you mean digits"):
        get_task("digit")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, "half"])
def test_bad_fraction_is_refused(fraction):
    with pytest.raises(InvalidConfig, match="meta_fraction"):
        get_task("digits", meta_fraction=fraction)


def test_generator_depends_on_every_number():
    first = {int(torch.randint(2**40, (), generator=generator(*n))) for n in [(1, 2), (2, 1), (12,), (1, 2, 0), (1,)]}
    assert len(first) == 5
