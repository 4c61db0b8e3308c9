"""Elastic weight consolidation (EWC) for self-supervised losses."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rscl_bench.models import foreach
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
        estimate: Whose gradients are squared and averaged: those of single images, or of whole
            batches, which losses that compare images with each other need.
        images: Images of the task that the Fisher information is estimated on; with ``batch``, as
            many whole batches of the protocol as fit into them, at least one.
    """

    weight: Annotated[float, Field(ge=0)] = 100.0
    mode: Literal["separate", "online"] = "separate"
    decay: Fraction = 1.0
    estimate: Literal["image", "batch"] = "image"
    images: Positive = 2000


class EWC(QuadraticPenalty):
    """From the second task on, adds (λ/2) Σ_i Σ_k F_k^i (θ_k − θ_k^{*i})².

    Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks", Eq. 3, with
    the diagonal Fisher information of a self-supervised loss: the mean over images of its squared
    gradient, one image at a time. It holds encoder and heads. Needs a loss that is a mean over
    images: of one that compares images with each other, one image has no gradient. For these,
    ``estimate = "batch"`` takes the squared gradients of batches, as Marsocci & Scardapane (2023),
    "Continual Barlow Twins", in their code.
    """

    Params = EWCParams
    needs = ("same_parameters",)

    @classmethod
    def needs_with(cls, params: Spec) -> tuple[str, ...]:
        """Return what the estimate needs too."""
        assert isinstance(params, EWCParams)
        loss = "per_image_loss" if params.estimate == "image" else "stateless_loss"
        return (*cls.needs, loss)

    def __init__(self, params: EWCParams, context: Context):
        super().__init__(params, context, params.weight)
        self.params = params

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Hold the parameters to the end of this task too."""
        importance = self._fisher(trainer)
        if self.params.mode == "separate":
            self.hold_too(importance)
            return
        if self.curvature:
            foreach.add_(importance, self.curvature, alpha=self.params.decay)
        self.hold(importance)

    def _fisher(self, trainer: Trainer) -> Values:
        """Return the diagonal, scaled to mean 1 over all parameters."""
        seed, task, device = self.context.seed, trainer.task, self.context.device
        objective = self.context.objective
        total = [torch.zeros_like(p) for p in self.parameters()]
        with evaluating(objective):
            for number, indices in enumerate(self._chosen(trainer)):
                views = trainer.views_of([(task, indices)], f"fisher {number}")
                mask = torch_generator(device, seed, "fisher", task, number)
                gradients = torch.autograd.grad(objective(views, mask).loss, self.parameters())
                foreach.addcmul_(total, gradients, gradients)
        mean = torch.stack([t.sum() for t in total]).sum() / sum(t.numel() for t in total)
        return [t / mean for t in total]

    def _chosen(self, trainer: Trainer) -> Sequence[Tensor]:
        """Return indices of tiles of the current task, those of one gradient together."""
        generator = torch_generator("cpu", self.context.seed, "fisher images", trainer.task)
        order = torch.randperm(trainer.tile_counts[trainer.task], generator=generator)
        batch = self.context.protocol.training.batch_size
        size = 1 if self.params.estimate == "image" else batch
        count = max(1, min(self.params.images, len(order)) // size)
        return [order[k * size : (k + 1) * size] for k in range(count)]
