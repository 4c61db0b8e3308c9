"""iBOT (Zhou et al. 2022, "iBOT: Image BERT Pre-Training with Online Tokenizer")."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder, MaskableEncoder
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.objectives.dino import DINO, DINOParams, crops
from rscl_bench.objectives.embedding import forward_multicrop
from rscl_bench.objectives.masking import block_masks, enlarged, require_maskable
from rscl_bench.objectives.self_distillation import TeacherTargets, cross_entropies
from rscl_bench.spec import Fraction, Positive
from rscl_bench.views.view import View

_VIEWS = crops((0.25, 1.0), (0.05, 0.25))


class IBOTParams(DINOParams):
    """DINO's with the paper's crops, and masking (Zhou et al. 2022, Section 4; their code).

    Attributes:
        masked: Chance that a global view is masked at all.
        least_mask: Smallest share of places that a masked view hides.
        most_mask: Largest share.
        min_block: Smallest area that is drawn for a block, in places at 14 x 14; it scales along.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
        place_weight: Weight of the loss of hidden places.
    """

    first_view: View = _VIEWS[0]
    second_view: View = _VIEWS[1]
    local_view: View = _VIEWS[2]
    local_views: NonNegativeInt = 10
    prototypes: Positive = 8192
    masked: Fraction = 0.5
    least_mask: Fraction = 0.1
    most_mask: Fraction = 0.5
    min_block: Positive = 16
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3
    place_weight: Annotated[float, Field(ge=0)] = 1.0


class IBOT(DINO):
    """DINO whose student sees masked global views and predicts the teacher's hidden places too.

    One head serves views and places. A view that hides nothing has a loss of 0 for its places.
    """

    Params = IBOTParams
    params: IBOTParams
    encoder: MaskableEncoder

    def __init__(self, params: IBOTParams, encoder: Encoder):
        """Build head, teacher and token.

        Args:
            params: Views, masking, head, targets and teacher.
            encoder: One that can hide parts of an image; see `DINO`.

        Raises:
            SpecError: If it cannot, or cannot pool as ``feature`` says.
        """
        width = require_maskable(encoder, "ibot").token_dim
        super().__init__(params, encoder)
        self.token = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.place_targets = TeacherTargets(
            params.prototypes, params.centre_momentum, params.centring
        )

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the losses of views and of hidden places; see `Objective.forward`."""
        images = torch.cat([*views[:2]])
        hidden = self.draw(len(images), images.shape[-1] // self.encoder.feature_stride, generator)
        cells = enlarged(hidden, images.shape[-1] // self.encoder.mask_stride)
        masked = self.encoder.forward_masked(images, cells, self.token)
        encoded = (*masked.chunk(2), *forward_multicrop(self.encoder, views[2:]))
        logits = self.logits(encoded)
        with torch.no_grad():
            seen = self.teacher(images)
            taught = self.teacher_projector(self.teacher.pool(seen, self.feature))
        loss = self.compare(taught, logits)
        loss = loss + self.params.place_weight * self.place_loss(masked, seen, hidden)
        return ObjectiveOutput(loss, encoded, tuple(logits))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return which places of each view are hidden, ``[count, side, side]`` bool."""
        params = self.params
        drawn = torch.rand(2, count, generator=generator, device=generator.device)
        shares = params.least_mask + (params.most_mask - params.least_mask) * drawn[0]
        shares = shares.where(drawn[1] < params.masked, 0.0)
        return self.blocks(shares, side, generator)

    def blocks(self, shares: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Return masks that hide a share of the places of each view, ``[B]``, in blocks."""
        counts = (shares * side**2).round().long()
        least = self.params.min_block * side**2 / 14**2
        return block_masks(counts, side, least, self.params.min_aspect, generator)

    def place_loss(self, masked: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Return the cross-entropy at hidden places: the mean over each view's, then over views.

        Args:
            masked: What the student made of masked views.
            seen: What the teacher made of whole ones.
            hidden: ``[2 B, side, side]`` bool.
        """
        hidden = hidden.flatten(1)
        own = self.projector(self.encoder.locations(masked)[hidden])
        with torch.no_grad():
            taught, centred = self.taught_places(self.teacher.locations(seen), hidden)
        with torch.autocast(own.device.type, enabled=False):
            targets = self.place_targets(taught, self.temperature)
            each = cross_entropies(targets, own, self.params.student_temperature)
            weights = (hidden / hidden.sum(dim=1, keepdim=True).clamp(min=1))[hidden]
            self.place_targets.update_centre(centred)
            return (each * weights).sum() / len(hidden)

    def taught_places(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's logits at hidden places, and those that the centre follows: all.

        Args:
            features: ``[2 B, N, D]``.
            hidden: ``[2 B, N]`` bool.

        Returns:
            ``[M, K]`` and ``[2 B N, K]``.
        """
        logits: Tensor = self.teacher_projector(features)
        return logits[hidden], logits.flatten(0, 1)
