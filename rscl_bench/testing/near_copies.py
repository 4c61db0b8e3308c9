"""Finds near-copies, images of the same ground, between two splits of an archive."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from rscl_bench.archives.adapter import DatasetAdapter

#: Side of the square to which images are resized.
SIDE = 40
#: Deviation of the Gaussian whose blur is subtracted, so that brightness and shading do not count.
_BLUR = 3.0
#: Two images must overlap by this share of their area; a smaller overlap is alike by chance.
_LEAST_OVERLAP = 0.35
#: Energy of the overlap, as grey values squared, below which two images are alike by noise.
_LEAST_ENERGY = 1e-3
_BATCH = 512


@dataclass(frozen=True)
class Pair:
    """Two images of different splits.

    Attributes:
        similarity: Largest normalised cross-correlation over all shifts, between -1 and 1.
        first: File of the first split.
        second: File of the second split.
    """

    similarity: float
    first: Path
    second: Path


def near_copies(
    first: DatasetAdapter,
    second: DatasetAdapter,
    threshold: float,
    group: Callable[[Path], str] = lambda _: "",
) -> list[Pair]:
    """Return the pairs of images of two splits that are alike, the most alike first.

    Images are turned grey, resized to 40 × 40 pixels and freed of coarse shading. Their similarity
    is the largest normalised cross-correlation over all shifts at which they overlap by 35 % or
    more, so that a shifted view of the same ground is found. Rotated and scaled views are not.

    Args:
        first: A split.
        second: Another split of the same archive.
        threshold: Similarity above which a pair is returned. Images of unlike content have up to
            about 0.5; textures and shapes that are alike, such as stadiums, up to about 0.75.
        group: Function of a file; only files of one group are compared.
    """
    ones, others = _by_group(first, group), _by_group(second, group)
    pairs = [
        pair
        for name in sorted(set(ones) & set(others))
        for pair in _pairs(first, ones[name], second, others[name], threshold)
    ]
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _by_group(adapter: DatasetAdapter, group: Callable[[Path], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, path in enumerate(adapter.files):
        groups.setdefault(group(path), []).append(index)
    return groups


def _pairs(
    first: DatasetAdapter,
    ones: list[int],
    second: DatasetAdapter,
    others: list[int],
    threshold: float,
) -> Iterator[Pair]:
    seconds = _Spectra.of(second, others)
    for index in ones:
        similarities = seconds.similarities(_prepared(first, index))
        for place in torch.nonzero(similarities > threshold).flatten().tolist():
            yield Pair(float(similarities[place]), first.files[index], second.files[others[place]])


@dataclass(frozen=True)
class _Spectra:
    """Fourier transforms of n prepared images, padded to twice their side.

    Attributes:
        images: Of the images, ``[n, 2 S, S + 1]``.
        squares: Of the squared images.
        window: Of ones where an image lies.
        enough: Which shifts leave enough overlap, ``[2 S, 2 S]``.
    """

    images: Tensor
    squares: Tensor
    window: Tensor
    enough: Tensor

    @classmethod
    def of(cls, adapter: DatasetAdapter, indices: list[int]) -> "_Spectra":
        images = torch.stack([_prepared(adapter, index) for index in indices])
        window = _spectrum(torch.ones(SIDE, SIDE))
        overlap = _correlation(window, window)
        return cls(
            _spectrum(images),
            _spectrum(images.square()),
            window,
            overlap > _LEAST_OVERLAP * SIDE**2,
        )

    def similarities(self, image: Tensor) -> Tensor:
        """Return the similarity of an image ``[S, S]`` with each of the n."""
        spectrum = _spectrum(image)
        own_energy = _correlation(_spectrum(image.square()), self.window)
        found = []
        for start in range(0, len(self.images), _BATCH):
            part = slice(start, start + _BATCH)
            energy = own_energy * _correlation(self.window, self.squares[part])
            product = _correlation(spectrum, self.images[part])
            scaled = product / energy.clamp(min=_LEAST_ENERGY).sqrt()
            found.append(scaled.masked_fill(~self.enough, -1.0).flatten(1).amax(dim=1))
        return torch.cat(found)


def _spectrum(images: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.rfft2(images, s=(2 * SIDE, 2 * SIDE))
    return spectrum


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    correlation: Tensor = torch.fft.irfft2(first.conj() * second, s=(2 * SIDE, 2 * SIDE))
    return correlation


def _prepared(adapter: DatasetAdapter, index: int) -> Tensor:
    """Return an image grey, resized and without coarse shading, ``[S, S]`` float32."""
    grey = adapter.scene(index).image.mean(axis=2, dtype=np.float32)
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))
    return torch.from_numpy(small - gaussian_filter(small, _BLUR))
