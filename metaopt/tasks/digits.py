"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8×8 pixels, no download."""

import torch

from ..configuration import option
from .base import Batch, Classification, ClassificationConfig, generator


class DigitsConfig(ClassificationConfig):
    """How the digits are divided."""

    validation_fraction: float = option(default=0.25, help="Share of all images that only judge.", above=0.0, below=1.0)


class Digits(Classification):
    """Name the digit (Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits, test part)."""

    Config = DigitsConfig

    def __init__(self, config: DigitsConfig) -> None:
        from sklearn.datasets import load_digits  # slow to import, and only this task wants it

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
