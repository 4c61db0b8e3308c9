"""Osiris: current, past and cross-task losses, the latter two in an embedding of their own."""

import copy
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import Encoder, keep_in_autocast_dtype
from rscl_bench.objectives.embedding import Temperature
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.buffer import BufferedStrategy
from rscl_bench.strategies.distillation import frozen_encoder
from rscl_bench.views.view import Share


class OsirisParams(Spec):
    """The losses beside the objective's own.

    Attributes:
        past: Loss on the past: ``distil`` contrasts the current batch with its features by the
            encoder at the end of the last task (Osiris-D), ``replay`` contrasts the memory's images
            with each other (Osiris-R).
        share: Number of images of the memory in a step, as a share of the batch; at least two.
        temperature: τ of all three losses.
        weight: Weight of the sum of both losses.
    """

    past: Literal["distil", "replay"] = "distil"
    share: Share = 0.75
    temperature: Temperature = 0.1
    weight: Annotated[float, Field(ge=0)] = 0.5


class Osiris(BufferedStrategy):
    """From the second task on, adds w · (L_cross + L_past) on projections h of their own.

    Zhang et al. (2024), "Integrating Present and Past in Unsupervised Continual Learning", and the
    authors' code. The objective's own loss and projector g learn the current task. h starts as g at
    the beginning of the second task. L_cross tells the images of the batch from those of the
    memory.
    """

    Params = OsirisParams
    needs = ("whole_views",)
    least_batch = 2

    def __init__(self, params: OsirisParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.objective = context.objective
        self.head = copy.deepcopy(self.objective.projector)
        self.previous: Encoder | None = None
        self.ntxent = NTXentLoss(params.temperature)
        self.pair = [n for n, view in enumerate(self.objective.views) if view.size == 1][:2]

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Start h as g in the second task."""
        if trainer.task == 1:
            assert self.head is not None
            self.head.load_state_dict(self.objective.projector.state_dict())

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add both losses."""
        if self.previous is None or not self.params.weight:
            return
        encoder, feature = self.objective.encoder, self.objective.feature
        count = max(2, int(self.params.share * len(trainer.views[0])))
        drawn = self.buffer.draw(count, "osiris", trainer.task, trainer.step)
        memory = trainer.views_of(drawn, "osiris")
        parts = [encoder.pool(trainer.mb_output.encoded[n], feature) for n in self.pair]
        parts += [encoder.pool(encoder(memory[n]), feature) for n in self.pair]
        if self.params.past == "distil":
            parts += [self._previous(trainer.views[n]) for n in self.pair]
        assert self.head is not None
        projected = self.head(torch.cat(parts)).float().split([len(part) for part in parts])
        with torch.autocast(parts[0].device.type, enabled=False):  # losses are fp32
            added = cross_contrast(*projected[:4], temperature=self.params.temperature)
            added = added + self._past_loss(projected)
        trainer.loss = trainer.loss + self.params.weight * added

    @torch.no_grad()
    def _previous(self, view: Tensor) -> Tensor:
        """Return features ``[B, D]`` of a view by the encoder at the end of the last task."""
        assert self.previous is not None
        keep_in_autocast_dtype(self.previous, self.context.device.type)
        return self.previous.pool(self.previous(view), self.objective.feature)

    def _past_loss(self, projected: tuple[Tensor, ...]) -> Tensor:
        if self.params.past == "replay":
            loss: Tensor = self.ntxent(*projected[2:4])
            return loss
        new, old = torch.cat(projected[:2]), torch.cat(projected[4:])
        return distil_contrast(new, old, self.params.temperature)

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the ended task to the memory, and keep the encoder."""
        super().after_training_exp(trainer)
        self.previous = frozen_encoder(self.objective.encoder)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the buffer, and the previous encoder."""
        past = {} if self.previous is None else self.previous.state_dict()
        return {**super().state_dict(), **{f"past.{name}": value for name, value in past.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the buffer, and the previous encoder."""
        past = {n.removeprefix("past."): v for n, v in state.items() if n.startswith("past.")}
        self.previous = None
        if past:
            self.previous = frozen_encoder(self.objective.encoder)
            self.previous.load_state_dict(past)
        super().load_state_dict({n: v for n, v in state.items() if not n.startswith("past.")})


def cross_contrast(
    first: Tensor, second: Tensor, past_first: Tensor, past_second: Tensor, *, temperature: float
) -> Tensor:
    """Return Osiris's cross-task loss: views of an image against all images of the other group.

    Args:
        first: Projections of the first view of the current images, ``[B, P]``.
        second: Those of the second view.
        past_first: Projections of the first view of the memory's images, ``[n, P]``.
        past_second: Those of the second view.
        temperature: τ.

    Returns:
        The mean of both groups' losses, a scalar.
    """
    groups = [
        [F.normalize(view, dim=1) for view in group]
        for group in ((first, second), (past_first, past_second))
    ]
    others = torch.cat(groups[0]) @ torch.cat(groups[1]).T
    losses = []
    for (one, two), negatives in zip(groups, (others, others.T), strict=True):
        positives = (one * two).sum(dim=1).repeat(2)[:, None]
        logits = torch.cat([positives, negatives], dim=1) / temperature
        losses.append(F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long)))
    return torch.stack(losses).mean()


def distil_contrast(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """Return Osiris-D's loss: each view by one encoder against other images by the other encoder.

    Args:
        new: Projections of the first views, then of the second views, by the current encoder,
            ``[2B, P]``.
        old: Projections of the same views by the old encoder.
        temperature: τ.

    Returns:
        The mean of both directions, a scalar. The other view of the same image is no negative.
    """
    logits = F.normalize(new, dim=1) @ F.normalize(old, dim=1).T / temperature
    numbers = torch.arange(len(logits), device=logits.device)
    other_view = numbers[:, None] == numbers.roll(len(numbers) // 2)[None]
    logits = logits.masked_fill(other_view, float("-inf"))
    directions = F.cross_entropy(logits, numbers), F.cross_entropy(logits.T, numbers)
    return torch.stack(directions).mean()
