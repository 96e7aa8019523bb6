"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8×8 pixels, no download."""

import torch

from ..core.config import option
from .base import Batch, SplitConfig, held_out
from .images import VariedImages, resized


class DigitsConfig(SplitConfig):
    """How the digits are divided and varied."""

    validation_fraction: float = option(default=0.25, help="Share of all images that only judge.", above=0.0, below=1.0)
    image_size: int = option(default=8, help="Height and width to which images are brought [pixels].", at_least=2)
    shift: int = option(default=1, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)


class Digits(VariedImages):
    """Name the digit (Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits, test part).

    Training images are shifted by up to a pixel, anew in each epoch, because the thousand of them are soon learned by
    heart.
    """

    Config = DigitsConfig

    def __init__(self, config: DigitsConfig) -> None:
        from sklearn.datasets import load_digits  # slow to import, and only this task wants it

        self.shift = config.shift
        images, labels = load_digits(return_X_y=True)
        inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        inputs = inputs if config.image_size == 8 else resized(inputs, config.image_size)
        inputs = (inputs - inputs.mean()) / inputs.std()
        digits = Batch(inputs, torch.tensor(labels, dtype=torch.int64))
        train, validation = held_out(digits, config.validation_fraction, config.split_seed)
        super().__init__(train, validation, classes=10, config=config)
