"""CroMo-Mixup: compares mixtures of tasks with features of the current and of the old model."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import keep_in_autocast_dtype
from rscl_bench.randomness import seeded
from rscl_bench.spec import Fraction
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.buffer import BufferedStrategy
from rscl_bench.strategies.cassle import Past, current_projections
from rscl_bench.strategies.mixing import MixingParams, mixed
from rscl_bench.views.view import Share


class CroMoMixupParams(MixingParams):
    """The mixture and its loss.

    Attributes:
        constant: λ, the share of the current image; None to draw λ from Beta(alpha, alpha).
        share: Number of mixtures of a step, as a share of the batch; at least two.
        weight: Weight of the loss.
    """

    constant: Fraction | None = 0.7
    share: Share = 0.25
    weight: Annotated[float, Field(ge=0)] = 1.0


class CroMoMixup(BufferedStrategy):
    """From the second task on, adds w · (λ L(z̃, z) + (1 − λ) L(z̃, z̄^M)).

    Mushtaq et al. (2024), "CroMo-Mixup: Augmenting Cross-Model Representations for Continual
    Self-Supervised Learning", and the authors' code. z̃ is the projection of the mixture
    λ x + (1 − λ) x^M of a current image with an image of the memory, z that of the current image,
    and z̄^M that of the memory's image by the model at the end of the last task. L is the
    objective's ``distil``. The paper's distillation is CaSSLe's: ``cassle`` beside this strategy.
    """

    Params = CroMoMixupParams
    least_batch = 2

    def __init__(self, params: CroMoMixupParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.objective = context.objective
        self.past: Past | None = None
        with seeded(context.seed, "cromo-mixup head of the objective"):
            head = self.objective.distil_head()
        self.head = None if head is None else head.to(context.device)

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the loss of the mixtures, averaged over the views of full size."""
        if self.past is None or not self.params.weight:
            return
        keep_in_autocast_dtype(self.past, self.context.device.type)
        current = current_projections(self.objective, trainer.mb_output)
        count = max(2, round(self.params.share * len(trainer.views[0])))
        drawn = self.buffer.draw(count, "cromo-mixup", trainer.task, trainer.step)
        memory = trainer.views_of(drawn, "cromo-mixup")
        key = ("cromo-mixup", trainer.task, trainer.step)
        (weight,) = self.params.draw(1, self.context.seed, *key)
        views = self.objective.views[: len(current)]  # those that the encoder sees
        losses = [
            self._loss(trainer.views[index][:count], memory[index], current[index][:count], weight)
            for index, view in enumerate(views)
            if view.size == 1
        ]
        trainer.loss = trainer.loss + self.params.weight * torch.stack(losses).mean()

    def _loss(self, new: Tensor, old: Tensor, current: Tensor, weight: float) -> Tensor:
        """Return the loss of the mixtures of one view.

        Args:
            new: Current images, ``[n, C, H, W]``.
            old: Images of the memory, of the same shape.
            current: Projections of the current images, ``[n, P]``.
            weight: λ.
        """
        assert self.past is not None
        objective = self.objective
        encoder, feature = objective.encoder, objective.feature
        share = torch.tensor(weight, device=new.device)
        mixture = encoder(mixed(old, new, share, encoder.bands is not None))
        predicted = objective.projector(encoder.pool(mixture, feature)).float()
        if self.head is not None:
            predicted = self.head(predicted)
        with torch.no_grad():
            past = self.past.projected(old, feature).float()
        with torch.autocast(new.device.type, enabled=False):  # losses are fp32
            by_new = objective.distil([predicted], [current.float()])
            by_old = objective.distil([predicted], [past])
        return weight * by_new + (1 - weight) * by_old

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the ended task to the memory, and keep encoder and projector."""
        super().after_training_exp(trainer)
        self.past = Past(self.objective.encoder, self.objective.projector)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the buffer, and the past encoder and projector."""
        past = {} if self.past is None else self.past.state_dict()
        return {**super().state_dict(), **{f"past.{name}": value for name, value in past.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the buffer, and the past encoder and projector."""
        past = {n.removeprefix("past."): v for n, v in state.items() if n.startswith("past.")}
        self.past = None
        if past:
            self.past = Past(self.objective.encoder, self.objective.projector)
            self.past.load_state_dict(past)
        super().load_state_dict({n: v for n, v in state.items() if not n.startswith("past.")})
