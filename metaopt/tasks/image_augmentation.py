"""Image preprocessing and augmentation: standardise, resize, random shifts and mirror images."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..core.rng import generator
from .base import Batch
from .supervised import Classification

Images = Float[Tensor, "batch channels height width"]


class AugmentedClassification(Classification):
    """Base class of image classification tasks that augment the training images."""

    shift: int = 0
    """Largest random shift [pixels]; 0 for none."""
    flip: bool = False
    """Mirror half of the images."""

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """The augmented training batches of one epoch; a function of the random seed and the epoch alone."""
        random = generator(seed, epoch, self.shift)
        return augmented(super().batches(batch_size, seed, epoch), random, self.shift, self.flip)


def standardised(
    images: UInt8[Tensor, "batch channels height width"],
    mean: Float[Tensor, "channels 1 1"],
    std: Float[Tensor, "channels 1 1"],
) -> Images:
    """(images / 255 − mean) / std.

    Args:
        mean, std: of each channel of the training images [0 to 1].
    """
    return (images.float() / 255 - mean) / std


def resized(
    images: Shaped[Tensor, "batch channels height width"], size: int
) -> Shaped[Tensor, "batch channels size size"]:
    """Images, as floats or bytes, interpolated to squares of `size` [pixels]."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def augmented(batches: Iterable[Batch], random: torch.Generator, shift: int = 0, flip: bool = False) -> Iterator[Batch]:
    """The same batches with randomly shifted and mirrored images.

    Args:
        shift: largest shift [pixels].
        flip: mirror half of the images.
    """
    for images, labels in batches:
        images = shifted(images, shift, random) if shift else images
        yield Batch(flipped(images, random) if flip else images, labels)


def shifted(images: Images, pixels: int, random: torch.Generator) -> Images:
    """Shift each image at random by at most `pixels` along each axis, padded with the darkest value of the batch."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, value=float(images.min()))
    down, right = torch.randint(0, 2 * pixels + 1, (2, count, 1, 1), generator=random)
    rows = down + torch.arange(height).reshape(1, -1, 1)
    columns = right + torch.arange(width).reshape(1, 1, -1)
    return padded[torch.arange(count).reshape(-1, 1, 1), :, rows, columns].movedim(-1, 1)


def flipped(images: Images, random: torch.Generator) -> Images:
    """Mirror each image left to right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=random) < 0.5
    return torch.where(mirrored, images.flip(-1), images)
