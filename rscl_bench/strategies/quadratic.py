"""Quadratic penalties on parameters, the base of EWC and synaptic intelligence."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from rscl_bench.models import foreach
from rscl_bench.models.band_weights import band_parameters
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
        self._counted: list[int] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Return the penalised parameters: all trained parameters of the objective."""
        return [p for p in self.context.objective.parameters() if p.requires_grad]

    def names(self) -> list[str]:
        """Return the names of the penalised parameters."""
        named = self.context.objective.named_parameters()
        return [name for name, parameter in named if parameter.requires_grad]

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
        self.anchor, self.curvature, self._counted = self.values(), importance, None
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
        squares = self._dot(curved, moved)
        self.constant = self.constant + 2 * self._dot(self.slope, moved) + squares
        foreach.add_(self.slope, curved)
        foreach.add_(self.curvature, importance)
        self.anchor, self._counted = current, None

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
        value = self._dot(self._gradient, moved) + self._dot(self.slope, moved) + self.constant
        return self.weight / 2 * value

    def _dot(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return the inner product over the parameters that have had a curvature.

        Weights of bands that no image has had yet stay out, so that they change no rounding.
        """
        if self._counted is None:
            new = band_parameters(self.context.objective)
            pairs = enumerate(zip(self.names(), self.curvature, strict=True))
            self._counted = [k for k, (name, one) in pairs if name not in new or one.any()]
        return dot([first[k] for k in self._counted], [second[k] for k in self._counted])

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
        """Return anchor, curvature, slope and constant, by name of a parameter."""
        if not self.anchor:
            return {}
        parts = {"anchor": self.anchor, "curvature": self.curvature, "slope": self.slope}
        return {**self.named(parts), "constant": self.constant}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore anchor, curvature, slope and constant."""
        if not state:
            self.anchor, self.curvature, self.slope = [], [], []
            self.constant = torch.zeros((), device=self.context.device)
            return
        self.anchor, self._counted = self.loaded(state, "anchor", self.values()), None
        for part in ("curvature", "slope"):
            zeros = [torch.zeros_like(value) for value in self.anchor]
            setattr(self, part, self.loaded(state, part, zeros))
        self.constant = state["constant"].to(self.context.device)

    def named(self, parts: Mapping[str, Values]) -> dict[str, Tensor]:
        """Return values as a state: ``part.parameter`` by name of a part and of a parameter."""
        names = self.names()
        return {
            f"{part}.{name}": value
            for part, values in parts.items()
            for name, value in zip(names, values, strict=True)
        }

    def loaded(self, state: Mapping[str, Tensor], part: str, of_new: Values) -> Values:
        """Return the values of a part of a state.

        Args:
            state: From `named`.
            part: Name of the part.
            of_new: Values of the parameters that the state lacks: the weights of bands that are new
                in a stream that goes on.

        Raises:
            KeyError: If the state lacks another parameter.
        """
        new = band_parameters(self.context.objective)
        return [
            of_new[index]
            if name in new and f"{part}.{name}" not in state
            else state[f"{part}.{name}"].to(self.context.device)
            for index, name in enumerate(self.names())
        ]


def dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two sequences of tensors, a scalar."""
    parts = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(first, second, strict=True)]
    return torch.stack(parts).sum()
