"""Quadratic penalties on parameters, the base of EWC and synaptic intelligence."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from rscl_bench.models import foreach
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer

Values = list[Tensor]  # one tensor per parameter, in the objective's order


class QuadraticPenalty(Strategy):
    """Adds ½ w Σ_i Σ_k F_k^i (θ_k − θ_k^{*i})² over the objective's trained parameters.

    A sum of quadratics is a quadratic: around the latest anchor θ*, with d = θ − θ*, it is
    ½ w (Σ_k (A_k d_k² + 2 B_k d_k) + c), A = Σ_i F^i, B = Σ_i F^i (θ* − θ^{*i}),
    c = Σ_i Σ_k F_k^i (θ*_k − θ_k^{*i})². So the cost of a step does not grow with the number of
    tasks. The gradient w (A d + B) is added in closed form after the backward pass, because an
    autograd graph over all parameters would cost more than the penalty.

    Attributes:
        weight: w.
        anchor: θ*; empty until the first call of `hold`.
        curvature: A.
        slope: B.
        constant: c, a scalar.
    """

    needs: ClassVar[tuple[str, ...]] = ("same_parameters",)

    def __init__(self, params: Spec, context: Context, weight: float):
        super().__init__(params, context)
        self.weight = weight
        self.anchor: Values = []
        self.curvature: Values = []
        self.slope: Values = []
        self.constant = torch.zeros((), device=context.device)
        self._gradient: Values = []

    def parameters(self) -> list[nn.Parameter]:
        """Return the penalised parameters: all trained parameters of the objective."""
        return [p for p in self.context.objective.parameters() if p.requires_grad]

    def gradients(self) -> list[Tensor]:
        """Return the gradients; 0 where a parameter has none.

        By the contract of objectives, every parameter has one, except the kernels of bands that no
        image of the batch has.
        """
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]

    def values(self) -> Values:
        """Return copies of the parameters."""
        return [p.detach().clone() for p in self.parameters()]

    def hold(self, importance: Values) -> None:
        """Replace the penalty by one around the current parameters."""
        self.anchor, self.curvature = self.values(), importance
        self.slope = [torch.zeros_like(value) for value in importance]
        self.constant = torch.zeros_like(self.constant)

    def hold_also(self, importance: Values) -> None:
        """Add a term around the current parameters to the penalty."""
        if not self.anchor:
            self.hold(importance)
            return
        current = self.values()
        moved = foreach.sub(current, self.anchor)
        curved = foreach.mul(self.curvature, moved)
        self.constant = self.constant + 2 * dot(self.slope, moved) + dot(curved, moved)
        foreach.add_(self.slope, curved)
        foreach.add_(self.curvature, importance)
        self.anchor = current

    @abstractmethod
    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Compute the importances of the ended task, and call `hold` or `hold_also`."""

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the value of the penalty to the loss."""
        if self.anchor:
            trainer.loss = trainer.loss + self._penalty()

    @torch.no_grad()
    def _penalty(self) -> Tensor:
        """Return the value without a graph, and keep A d + B for `after_backward`."""
        moved = foreach.sub(cast("Values", self.parameters()), self.anchor)
        self._gradient = list(foreach.addcmul(self.slope, self.curvature, moved))
        value = dot(self._gradient, moved) + dot(self.slope, moved) + self.constant
        return self.weight / 2 * value

    @torch.no_grad()
    def after_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the gradient of the penalty, w Σ_i F^i (θ − θ^{*i}).

        The kernels of bands that no image of the batch has stay as they are.
        """
        if self._gradient:
            pairs = zip(self.parameters(), self._gradient, strict=True)
            moved = [(p.grad, gradient) for p, gradient in pairs if p.grad is not None]
            foreach.add_([own for own, _ in moved], [g for _, g in moved], alpha=self.weight)
            self._gradient = []

    def state_dict(self) -> dict[str, Tensor]:
        """Return anchor, curvature, slope and constant."""
        if not self.anchor:
            return {}
        parts = {"anchor": self.anchor, "curvature": self.curvature, "slope": self.slope}
        state = {f"{part}.{k}": v for part, values in parts.items() for k, v in enumerate(values)}
        return {**state, "constant": self.constant}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore anchor, curvature, slope and constant."""
        indices = range(len(self.parameters())) if state else range(0)
        device = self.context.device

        def values(part: str) -> Values:
            return [state[f"{part}.{index}"].to(device) for index in indices]

        self.anchor, self.curvature = values("anchor"), values("curvature")
        self.slope = values("slope")
        self.constant = state.get("constant", torch.zeros(())).to(device)


def dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two sequences of tensors, a scalar."""
    parts = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(first, second, strict=True)]
    return torch.stack(parts).sum()
