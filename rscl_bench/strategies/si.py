"""Synaptic intelligence (SI): importance is a parameter's contribution to the loss's decrease."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rscl_bench.models import foreach
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.quadratic import QuadraticPenalty, Values


class SIParams(Spec):
    """The penalty.

    Attributes:
        weight: c of Eq. 4.
        damping: ξ of Eq. 5.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    damping: Annotated[float, Field(gt=0)] = 1e-3


class SI(QuadraticPenalty):
    """From the second task on, adds c Σ_k Ω_k (θ_k − θ*_k)², θ* from the end of the last task.

    Zenke et al. (2017), "Continual Learning Through Synaptic Intelligence", Eq. 4 and 5: during a
    task, ω_k = −Σ_steps g_k Δθ_k with the gradient g without the penalty; at its end
    Ω_k ← max(0, Ω_k + ω_k / ((θ_k(end) − θ_k(start))² + ξ)). The maximum is in the authors' code.
    """

    Params = SIParams

    def __init__(self, params: SIParams, context: Context):
        super().__init__(params, context, 2 * params.weight)
        self.params = params
        self._path: Values = []
        self._start: Values = []
        self._before: Values = []
        self._loss_gradient: Values = []

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Start the path integral of the task at zero."""
        self._start = self.values()
        self._path = [torch.zeros_like(value) for value in self._start]

    @torch.no_grad()
    def after_backward(self, trainer: Trainer, **kwargs: Any) -> None:
        """Keep the gradient of the loss, then add the gradient of the penalty."""
        self._loss_gradient = [gradient.clone() for gradient in self.gradients()]
        self._before = self.values()
        super().after_backward(trainer, **kwargs)

    @torch.no_grad()
    def after_update(self, trainer: Trainer, **_: Any) -> None:
        """Add the step's −g Δθ to the path integral."""
        moved = foreach.sub(list(self.parameters()), self._before)
        foreach.addcmul_(self._path, self._loss_gradient, moved, value=-1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the penalty, and the path of the current task."""
        path = self.named({"path": self._path, "start": self._start}) if self._path else {}
        return {**super().state_dict(), **path}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the penalty, and the path of the current task."""
        self._path, self._start = [], []
        if state:
            values = self.values()
            self._start = self.loaded(state, "start", values)
            self._path = self.loaded(state, "path", [torch.zeros_like(value) for value in values])
        super().load_state_dict(
            {name: v for name, v in state.items() if not name.startswith(("path.", "start."))}
        )

    @torch.no_grad()
    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Turn the path into importances, and penalise changes from the current parameters."""
        importance = [
            path / ((end - start).square() + self.params.damping)
            for path, end, start in zip(self._path, self.values(), self._start, strict=True)
        ]
        if self.curvature:
            foreach.add_(importance, self.curvature)
        self.hold([value.clamp(min=0) for value in importance])
