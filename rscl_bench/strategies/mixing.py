"""The mixing coefficient λ that data mixup and model mixup both draw."""

from typing import Annotated

from pydantic import Field

from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Fraction, Spec


class MixingParams(Spec):
    """Where λ comes from.

    Attributes:
        alpha: λ ~ Beta(alpha, alpha); 1 is the uniform distribution on [0, 1].
        constant: A fixed λ instead of a drawn one.
    """

    alpha: Annotated[float, Field(gt=0)] = 0.4
    constant: Fraction | None = None

    def draw(self, count: int, seed: int, *purpose: int | str) -> list[float]:
        """Draw ``count`` coefficients, a function of seed and purpose alone."""
        if self.constant is not None:
            return [self.constant] * count
        values = numpy_generator(seed, "mixing", *purpose).beta(self.alpha, self.alpha, count)
        return [float(value) for value in values]
