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
from rscl_bench.objectives.masking import require_maskable
from rscl_bench.objectives.self_distillation import TeacherTargets, cross_entropies
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.masks import block_masks, enlarged
from rscl_bench.views.view import View

_VIEWS = crops((0.25, 1.0), (0.05, 0.25))


class IBOTParams(DINOParams):
    """DINO's parameters with the paper's crops, and masking (Zhou et al. 2022, Section 4; code).

    Attributes:
        masked: Probability that a global view is masked.
        least_mask: Smallest share of locations that a masked view hides.
        most_mask: Largest share of locations that a masked view hides.
        min_block: Smallest area of a block, in locations of a 14 × 14 map; the area scales with the
            map.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
        place_weight: Weight of the loss at hidden locations.
    """

    first_view: View = _VIEWS[0]
    second_view: View = _VIEWS[1]
    local_view: View = _VIEWS[2]
    local_views: NonNegativeInt = 10
    prototypes: Several = 8192
    masked: Fraction = 0.5
    least_mask: Fraction = 0.1
    most_mask: Fraction = 0.5
    min_block: Positive = 16
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3
    place_weight: Annotated[float, Field(ge=0)] = 1.0


class IBOT(DINO):
    """DINO with masked global views: the student also predicts the teacher at hidden locations.

    Views and locations share one head. The location loss of a view without hidden locations is 0.
    """

    Params = IBOTParams
    params: IBOTParams
    encoder: MaskableEncoder

    def __init__(self, params: IBOTParams, encoder: Encoder):
        """Build head, teacher and token.

        Args:
            params: Views, masking, head, targets and teacher.
            encoder: An encoder that can hide parts of an image; see also `DINO`.

        Raises:
            SpecError: If the encoder cannot hide parts of an image, or cannot pool
                ``params.feature``.
        """
        width = require_maskable(encoder, "ibot").token_dim
        super().__init__(params, encoder)
        self.token = nn.Parameter(torch.zeros(width))  # zeros, as in the code of iBOT and DINOv2
        self.place_targets = TeacherTargets(
            params.prototypes, params.centre_momentum, params.centring
        )

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the losses of views and of hidden locations; see `Objective.forward`."""
        images = torch.cat([*views[:2]])
        hidden = self.draw(len(images), images.shape[-1] // self.encoder.feature_stride, generator)
        cells = enlarged(hidden, images.shape[-1] // self.encoder.mask_stride)
        masked = self.encoder.forward_masked(images, cells, self.token)
        encoded = (*masked.chunk(2), *forward_multicrop(self.encoder, views[2:]))
        logits = self.logits(encoded)
        with torch.no_grad():
            whole = self.teacher(images)
            teacher_logits = self.teacher_projector(self.teacher.pool(whole, self.feature))
        loss = self.compare(teacher_logits, logits)
        loss = loss + self.params.place_weight * self.location_loss(masked, whole, hidden)
        return ObjectiveOutput(loss, encoded, tuple(logits))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the hidden locations of each view, ``[count, side, side]`` bool."""
        params = self.params
        drawn = torch.rand(2, count, generator=generator, device=generator.device)
        ratios = params.least_mask + (params.most_mask - params.least_mask) * drawn[0]
        ratios = ratios.where(drawn[1] < params.masked, 0.0)
        return self.blocks(ratios, side, generator)

    def blocks(self, ratios: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Return masks that hide blocks of locations.

        Args:
            ratios: Share of locations to hide in each view, ``[n]``.
            side: Number of locations along a side of a view.
            generator: Source of randomness.

        Returns:
            ``[n, side, side]`` bool.
        """
        counts = (ratios * side**2).round().long()
        min_area = self.params.min_block * side**2 / 14**2
        return block_masks(counts, side, min_area, self.params.min_aspect, generator)

    def location_loss(self, masked: Tensor, whole: Tensor, hidden: Tensor) -> Tensor:
        """Return the cross-entropy at hidden locations: the mean over each view, then over views.

        Args:
            masked: The student's encoding of the masked global views.
            whole: The teacher's encoding of the whole global views.
            hidden: The hidden locations, ``[2 B, side, side]`` bool.
        """
        hidden = hidden.flatten(1)
        logits = self.projector(self.encoder.locations(masked)[hidden])
        with torch.no_grad():
            teacher_logits, for_centre = self.hidden_teacher_logits(
                self.teacher.locations(whole), hidden
            )
        with torch.autocast(logits.device.type, enabled=False):
            targets = self.place_targets(teacher_logits, self.temperature)
            losses = cross_entropies(targets, logits, self.params.student_temperature)
            weights = (hidden / hidden.sum(dim=1, keepdim=True).clamp(min=1))[hidden]
            self.place_targets.update_centre(for_centre)
            return (losses * weights).sum() / len(hidden)

    def hidden_teacher_logits(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's logits at hidden locations, and the logits that move the centre.

        Args:
            features: The teacher's features at all locations, ``[2 B, N, D]``.
            hidden: The hidden locations, ``[2 B, N]`` bool.

        Returns:
            Logits at the M hidden locations, ``[M, K]``, and at all locations, ``[2 B N, K]``.
        """
        logits: Tensor = self.teacher_projector(features)
        return logits[hidden], logits.flatten(0, 1)
