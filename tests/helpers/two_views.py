"""An objective of two views, for tests of strategies that average over views."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Spec
from rscl_bench.views.view import View


class NoParams(Spec):
    pass


class TwoViews(Objective):
    views = (View(), View())

    def __init__(self, encoder: Any):
        super().__init__(NoParams(), encoder)

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        encoded = [self.encoder(view) for view in views]
        return ObjectiveOutput((encoded[0] - encoded[1]).square().mean(), tuple(encoded))
