"""A moving average of the encoder's weights, which is probed in place of the trained encoder."""

import copy
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rscl_bench.models import foreach
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer


class EMAParams(Spec):
    """The average.

    Attributes:
        momentum: m, the share of the average that an update keeps.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99


class EMA(Strategy):
    """After every update, θ̄ ← m θ̄ + (1 − m) θ; probes evaluate and a run keeps θ̄.

    Soutif-Cormerais et al. (2023), "Improving Online Continual Learning Performance and Stability
    with Temporal Ensembles", and the authors' code. The average starts as the untrained encoder and
    goes on over all tasks. Running statistics of batch normalisation are averaged, too. Training
    itself stays the same, to the last bit.
    """

    Params = EMAParams

    def __init__(self, params: EMAParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.averaged = copy.deepcopy(context.objective.encoder).requires_grad_(False)

    def after_update(self, trainer: Trainer, **_: Any) -> None:
        """Move the average towards the new weights."""
        assert self.averaged is not None
        average(self.averaged, self.context.objective.encoder, 1 - self.params.momentum)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average."""
        assert self.averaged is not None
        return dict(self.averaged.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the average."""
        assert self.averaged is not None
        self.averaged.load_state_dict(state)


@torch.no_grad()
def average(averaged: Encoder, encoder: Encoder, weight: float) -> None:
    """Set θ̄ ← (1 − w) θ̄ + w θ in place, over parameters and buffers.

    Args:
        averaged: Holds θ̄.
        encoder: Holds θ. Buffers of integers are copied.
        weight: w.
    """
    foreach.lerp_(list(averaged.parameters()), list(encoder.parameters()), weight)
    for old, new in zip(averaged.buffers(), encoder.buffers(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, weight)
        else:
            old.copy_(new)
