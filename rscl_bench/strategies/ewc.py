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
        weight: λ. Importances are scaled to mean 1, so that λ has the same meaning for every model.
        mode: ``separate`` has one term per past task (Kirkpatrick et al. 2017). ``online`` has one
            term, F ← γ F + F_new, around the weights at the end of the last task (Schwarz et al.
            2018).
        decay: γ of ``online``.
        estimate: Whether the gradients of single images or of whole batches are squared and
            averaged. A loss that compares images with each other needs batches.
        images: Number of images for the estimate. With ``batch``, the estimate takes the whole
            batches that fit into this number, at least one.
    """

    weight: Annotated[float, Field(ge=0)] = 100.0
    mode: Literal["separate", "online"] = "separate"
    decay: Fraction = 1.0
    estimate: Literal["image", "batch"] = "image"
    images: Positive = 2000


class EWC(QuadraticPenalty):
    """From the second task on, adds (λ/2) Σ_i Σ_k F_k^i (θ_k − θ_k^{*i})².

    Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks", Eq. 3, with
    the diagonal Fisher information of a self-supervised loss, which is the mean over images of the
    squared gradient of one image. The penalty covers encoder and heads. The loss must be a mean
    over images. A loss that compares images with each other has no gradient for one image; then
    ``estimate = "batch"`` takes the squared gradients of batches, as does the code of Marsocci &
    Scardapane (2023), "Continual Barlow Twins".
    """

    Params = EWCParams
    needs = ("same_parameters",)

    @classmethod
    def needs_with(cls, params: Spec) -> tuple[str, ...]:
        """Return ``needs`` and the property of the loss that the estimate needs."""
        assert isinstance(params, EWCParams)
        loss = "per_image_loss" if params.estimate == "image" else "stateless_loss"
        return (*cls.needs, loss)

    def __init__(self, params: EWCParams, context: Context):
        super().__init__(params, context, params.weight)
        self.params = params

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Estimate the Fisher information, and penalise changes from the current parameters."""
        importance = self._fisher(trainer)
        if self.params.mode == "separate":
            self.hold_also(importance)
            return
        if self.curvature:
            foreach.add_(importance, self.curvature, alpha=self.params.decay)
        self.hold(importance)

    def _fisher(self, trainer: Trainer) -> Values:
        """Return the diagonal Fisher information, scaled to mean 1 over all parameters.

        Where no parameter has a gradient, the information is 0 everywhere and stays 0: the task is
        not penalised. The kernels of bands that no image of the task has do not count for the mean.
        """
        seed, task, device = self.context.seed, trainer.task, self.context.device
        objective = self.context.objective
        total = [torch.zeros_like(p) for p in self.parameters()]
        seen = [False] * len(total)
        with evaluating(objective):
            for draw, indices in enumerate(self._chosen(trainer)):
                views = trainer.views_of([(task, indices)], f"fisher {draw}")
                mask = torch_generator(device, seed, "fisher", task, draw)
                loss = objective(views, mask).loss
                gradients = torch.autograd.grad(loss, self.parameters(), allow_unused=True)
                seen = [known or g is not None for known, g in zip(seen, gradients, strict=True)]
                used = [(t, g) for t, g in zip(total, gradients, strict=True) if g is not None]
                own = [gradient for _, gradient in used]
                foreach.addcmul_([t for t, _ in used], own, own)
        counted = [t for t, known in zip(total, seen, strict=True) if known]
        mean = torch.stack([t.sum() for t in counted]).sum() / sum(t.numel() for t in counted)
        scale = torch.where(mean > 0, mean, 1.0)
        return [t / scale for t in total]

    def _chosen(self, trainer: Trainer) -> Sequence[Tensor]:
        """Return indices of tiles of the current task ``[n]``, one tensor for each gradient."""
        generator = torch_generator("cpu", self.context.seed, "fisher images", trainer.task)
        order = torch.randperm(trainer.tile_counts[trainer.task], generator=generator)
        batch = self.context.protocol.training.batch_size
        size = 1 if self.params.estimate == "image" else batch
        count = max(1, min(self.params.images, len(order)) // size)
        return [order[k * size : (k + 1) * size] for k in range(count)]
