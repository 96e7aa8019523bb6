"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8×8 pixels, no download."""

from collections.abc import Iterator

import torch

from ..configuration import option
from .base import Batch, SplitConfig, generator, held_out
from .classification import Classification
from .images import resized, varied


class DigitsConfig(SplitConfig):
    """How the digits are divided and varied."""

    validation_fraction: float = option(default=0.25, help="Share of all images that only judge.", above=0.0, below=1.0)
    image_size: int = option(default=8, help="Height and width to which images are brought [pixels].", at_least=2)
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
        inputs = inputs if config.image_size == 8 else resized(inputs, config.image_size)
        inputs = (inputs - inputs.mean()) / inputs.std()
        digits = Batch(inputs, torch.tensor(labels, dtype=torch.int64))
        train, validation = held_out(digits, config.validation_fraction, config.split_seed)
        super().__init__(train, validation, classes=10, config=config)

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of shifted training batches; order and shifts depend on the random seed and the epoch alone."""
        random = generator(seed, epoch, self._shift)
        return varied(super().batches(batch_size, seed, epoch), random, self._shift)
