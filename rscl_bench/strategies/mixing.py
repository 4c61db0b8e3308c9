"""The mixing coefficient λ of data mixup and model mixup."""

from typing import Annotated

from pydantic import Field

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
