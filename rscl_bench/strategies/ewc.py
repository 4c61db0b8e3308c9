"""Elastic weight consolidation (EWC) for self-supervised losses."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from rscl_bench.models.encoder import evaluating
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Fraction, Positive, Spec
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.quadratic import QuadraticPenalty, Values


class EWCParams(Spec):
    """The penalty and the estimate of the Fisher information.

    Attributes:
        weight: λ; importances have mean 1, so that it reads the same for every model.
        mode: ``separate`` has one term per past task (Kirkpatrick et al. 2017), ``online`` one for
            all, F ← γ F + F_new, held to the last task's end (Schwarz et al. 2018).
        decay: γ of ``online``.
        images: Images of the task that the Fisher information is estimated on.
    """

    weight: Annotated[float, Field(ge=0)] = 100.0
    mode: Literal["separate", "online"] = "separate"
    decay: Fraction = 1.0
    images: Positive = 2000


class EWC(QuadraticPenalty):
    """From the second task on, adds (λ/2) Σ_i Σ_k F_k^i (θ_k − θ_k^{*i})².

    Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks", Eq. 3, with
    the diagonal Fisher information of a self-supervised loss: the mean over images of its squared
    gradient, one image at a time. It holds encoder and heads. Needs a loss that is a mean over
    images: of one that compares images with each other, one image has no gradient.
    """

    Params = EWCParams
    needs = ("same_parameters", "per_image_loss")

    def __init__(self, params: EWCParams, context: Context):
        super().__init__(params, context, params.weight)
        self.params = params

    def after_training_exp(self, strategy: Trainer, **_: Any) -> None:
        """Hold the parameters to the end of this task too."""
        importance = self._fisher(strategy)
        if self.params.mode == "separate":
            self.hold_too(importance)
            return
        if self.curvature:
            torch._foreach_add_(importance, self.curvature, alpha=self.params.decay)
        self.hold(importance)

    def _fisher(self, strategy: Trainer) -> Values:
        """Return the diagonal, scaled to mean 1 over all parameters."""
        seed, task, device = self.context.seed, strategy.task, self.context.device
        count = strategy.tile_counts[task]
        generator = torch_generator("cpu", seed, "fisher images", task)
        chosen = torch.randperm(count, generator=generator)[: self.params.images]
        objective = self.context.objective
        total = [torch.zeros_like(p) for p in self.parameters()]
        with evaluating(objective):
            for number, index in enumerate(chosen):
                views = strategy.views_of([(task, index[None])], f"fisher {number}")
                mask = torch_generator(device, seed, "fisher", task, number)
                gradients = torch.autograd.grad(objective(views, mask).loss, self.parameters())
                torch._foreach_addcmul_(total, gradients, gradients)
        mean = torch.stack([t.sum() for t in total]).sum() / sum(t.numel() for t in total)
        return [t / mean for t in total]
