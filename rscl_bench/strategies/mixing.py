"""The mixing coefficient λ of data mixup and model mixup, and the mixture of two images."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Fraction, Spec


class MixingParams(Spec):
    """The distribution of λ.

    Attributes:
        alpha: λ ~ Beta(alpha, alpha); 1 is the uniform distribution on [0, 1].
        constant: A fixed value of λ; None to draw λ.
    """

    alpha: Annotated[float, Field(gt=0)] = 0.4
    constant: Fraction | None = None

    def draw(self, count: int, seed: int, *purpose: int | str) -> list[float]:
        """Draw ``count`` coefficients in [0, 1], which depend on seed and purpose alone."""
        if self.constant is not None:
            return [self.constant] * count
        values = numpy_generator(seed, "mixing", *purpose).beta(self.alpha, self.alpha, count)
        return [float(value) for value in values]


def mixed(old: Tensor, new: Tensor, weight: Tensor, bands_differ: bool) -> Tensor:
    """Return λ new + (1 − λ) old.

    Where images differ in bands, the mixture has the bands of both images. A band that one image
    lacks is the other image's band times the other image's share: the image that lacks it adds 0,
    which is the mean of a standardised band.

    Args:
        old: Images ``[B, C, H, W]``; NaN in bands that an image lacks.
        new: Images of the same shape.
        weight: λ, a scalar or ``[B, 1, 1, 1]``.
        bands_differ: Whether images may lack bands.
    """
    if not bands_differ:
        return torch.lerp(old, new, weight)
    no_old, no_new = old.isnan(), new.isnan()
    mixture = torch.lerp(old.where(~no_old, 0.0), new.where(~no_new, 0.0), weight)
    return mixture.where(~(no_old & no_new), torch.nan)
