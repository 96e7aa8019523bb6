"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8×8 pixels, no download."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..configuration import option
from .base import Batch, SplitConfig, generator
from .classification import Classification


class DigitsConfig(SplitConfig):
    """How the digits are divided and varied."""

    validation_fraction: float = option(default=0.25, help="Share of all images that only judge.", above=0.0, below=1.0)
    shift: int = option(default=1, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)


class Digits(Classification):
    """Name the digit (Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits, test part).

    Training images are shifted by up to a pixel, anew in each epoch, because the thousand of them are soon learned by
    heart.
    """

    Config = DigitsConfig

    def __init__(self, config: DigitsConfig) -> None:
        from sklearn.datasets import load_digits  # slow to import, and only this task wants it

        self._shift = config.shift
        images, labels = load_digits(return_X_y=True)
        inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        inputs = (inputs - inputs.mean()) / inputs.std()
        targets = torch.tensor(labels, dtype=torch.int64)
        order = torch.randperm(len(inputs), generator=generator(config.split_seed))
        judged, rest = order.split([(n := int(len(order) * config.validation_fraction)), len(order) - n])
        super().__init__(
            train=Batch(inputs[rest], targets[rest]),
            validation=Batch(inputs[judged], targets[judged]),
            classes=10,
            config=config,
        )

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of shifted training batches; order and shifts depend on the random seed and the epoch alone."""
        random = generator(seed, epoch, self._shift)
        for inputs, labels in super().batches(batch_size, seed, epoch):
            yield Batch(shifted(inputs, self._shift, random), labels)


def shifted(
    images: Float[Tensor, "batch channels height width"], pixels: int, random: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Move each image by up to some pixels up or down, left or right; its darkest value fills the gap."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, value=float(images.min()))
    down, right = torch.randint(0, 2 * pixels + 1, (2, count, 1, 1), generator=random)
    rows = down + torch.arange(height).reshape(1, -1, 1)
    columns = right + torch.arange(width).reshape(1, 1, -1)
    return padded[torch.arange(count).reshape(-1, 1, 1), :, rows, columns].movedim(-1, 1)
