"""CMID (Muhtar et al. 2023, "CMID: A Unified Self-Supervised Learning Framework for ...")."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from lightly.models import utils
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.objectives.embedding import (
    BYOL_COLOURS,
    Temperature,
    distil_by_contrast,
    in_fp32,
    mlp,
)
from rscl_bench.objectives.masking import (
    Ratio,
    check_mask_count,
    draw_singly,
    enlarged,
    mask_of,
    nearest_divisor,
)
from rscl_bench.objectives.moco_v2 import moco_loss
from rscl_bench.objectives.momentum import cosine_to_one, ema_update, teacher_copy
from rscl_bench.objectives.queue import Queue
from rscl_bench.objectives.self_distillation import (
    DINOHead,
    TeacherTargets,
    cross_entropies,
    warmed_up,
)
from rscl_bench.spec import Fraction, Positive, Spec
from rscl_bench.views.crops import Crops
from rscl_bench.views.view import Share, View


class CMIDParams(Spec):
    """Views, masking, heads and losses (Muhtar et al. 2023, Section III; their code).

    Attributes:
        first_view: How the first view is made: a crop, and no more.
        second_view: How the second view is made.
        mask_ratio: Share of mask units that are hidden, rounded up to whole units.
        mask_unit: Side of a mask unit as a share of the image's side; what is nearest to it of
            whole cells that tile the image is taken. The paper's is 32 of 224 pixels.
        focus: α of the focal L1 loss; larger weighs small errors less.
        frequency_weight: Weight of the focal frequency loss.
        visible_weight: Share of the predicted visible pixels in the spectrum that takes gradient;
            the rest is the mean of prediction and image, without gradient.
        hidden_dim: Hidden width of both heads.
        output_dim: Width of the global projections.
        global_temperature: τ of the contrast.
        queue: Keys of past batches that are negatives.
        bottleneck_dim: Width of the local head before its prototypes.
        prototypes: Prototypes K of the local head.
        matches: Share of a view's places, those nearest to places of the other view, that are
            compared. The authors' is 20 of 7 x 7.
        student_temperature: τ_s of the local loss.
        start_temperature: Teacher's τ_t at the start of a task.
        teacher_temperature: τ_t after its warm-up.
        warmup: Share of a task that the warm-up takes; the authors take 50 of 400 epochs.
        centre_momentum: Of the centre of the local targets.
        momentum: Of the teacher at the start of a task; it rises to 1.
    """

    first_view: View = View(min_scale=0.3)
    second_view: View = BYOL_COLOURS.model_copy(
        update={
            "min_scale": 0.3,
            "blur": 1.0,
            "noise": 0.6,
            "noise_std": (10**0.5 / 255, 50**0.5 / 255),
            "solarise": 0.2,
        }
    )
    mask_ratio: Ratio = 0.6
    mask_unit: Annotated[float, Field(gt=0, lt=1)] = 1 / 7
    focus: Annotated[float, Field(gt=0)] = 0.2
    frequency_weight: Annotated[float, Field(ge=0)] = 1.0
    visible_weight: Fraction = 0.001
    hidden_dim: Positive = 2048
    output_dim: Positive = 256
    global_temperature: Temperature = 0.2
    queue: Positive = 65536
    bottleneck_dim: Positive = 256
    prototypes: Positive = 2048
    matches: Share = 20 / 49
    student_temperature: Temperature = 0.1
    start_temperature: Temperature = 0.04
    teacher_temperature: Temperature = 0.07
    warmup: Fraction = 0.125
    centre_momentum: Fraction = 0.9
    momentum: Fraction = 0.996


class CMID(Objective):
    """Reconstructs both masked views, contrasts them whole, and distils where they overlap.

    The student sees views whose hidden units are filled with the image's mean and marked by a
    token; a momentum teacher sees them whole. The loss is the sum of three, each averaged over both
    views: pixels of hidden units, contrast of pooled features, and distributions over prototypes at
    the places of both views that are nearest to each other on the ground.
    """

    Params = CMIDParams
    momentum = True
    negatives = True

    def __init__(self, params: CMIDParams, encoder: Encoder):
        """Build heads and teacher.

        Args:
            params: Views, masking, heads and losses.
            encoder: Any.
        """
        super().__init__(params, encoder)
        self.params = params
        self.views = (params.first_view, params.second_view)
        width = encoder.feature_dim
        self.token = nn.Parameter(torch.zeros(encoder.token_dim))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.predict = nn.Linear(width, encoder.feature_stride**2 * encoder.channels)
        self.projector = mlp(width, params.hidden_dim, params.output_dim, norm=False)
        self.projected_dim = params.output_dim
        self.local_head = DINOHead(
            width, params.hidden_dim, params.bottleneck_dim, params.prototypes
        )
        self.teacher = teacher_copy(encoder)
        self.teacher_projector = teacher_copy(self.projector)
        self.teacher_head = teacher_copy(self.local_head)
        self.queue = Queue(params.queue, params.output_dim)
        self.targets = TeacherTargets(params.prototypes, params.centre_momentum, "mean")
        self.temperature = params.start_temperature
        self.crops: Sequence[Crops] = ()
        self.keys: Tensor | None = None

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the sum of the three losses; see `Objective.forward`."""
        hidden = [self.draw(len(view), view.shape[-1], generator) for view in views]
        encoded = tuple(self.encode(*pair) for pair in zip(views, hidden, strict=True))
        with torch.no_grad():
            taught = [self.teacher(view) for view in views]
        projected = tuple(self.projector(self.encoder.pool(one)) for one in encoded)
        own = [self.encoder.locations(one) for one in encoded]
        theirs = [self.teacher.locations(one) for one in taught]
        pixels = [self.pixel_loss(*one) for one in zip(views, own, hidden, strict=True)]
        loss = torch.stack(pixels).mean() + self.global_loss(projected, taught)
        return ObjectiveOutput(loss + self.local_loss(own, theirs), encoded, projected)

    # Masking.

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> Tensor:
        """Return which mask units are hidden, ``[B, n, n]`` bool."""
        cells = image_size // self.encoder.mask_stride
        side = cells // nearest_divisor(cells, self.params.mask_unit * cells)
        wanted = math.ceil(self.params.mask_ratio * side**2)
        wanted = check_mask_count(wanted, side**2, "mask units")
        return mask_of(draw_singly(count, side**2, wanted, generator), side)

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return what the encoder makes of filled and marked images."""
        size = images.shape[-1]
        pixels = enlarged(hidden, size)[:, None]
        filled = torch.where(pixels, images.mean(dim=(2, 3), keepdim=True), images)
        cells = enlarged(hidden, size // self.encoder.mask_stride)
        return self.encoder.forward_with_mask_token_added(filled, cells, self.token)

    # Losses.

    def pixel_loss(self, images: Tensor, features: Tensor, hidden: Tensor) -> Tensor:
        """Return focal L1 of hidden pixels, and the focal frequency loss of the whole image.

        Args:
            images: ``[B, C, H, W]``.
            features: The student's at all places, ``[B, N, D]``.
            hidden: Which mask units are hidden, ``[B, n, n]`` bool.
        """
        size, params = images.shape[-1], self.params
        painted = utils.unpatchify(
            self.predict(features), self.encoder.feature_stride, self.encoder.channels
        ).float()
        painted = painted[..., :size, :size]  # a ResNet's last places reach over the border
        pixels = enlarged(hidden, size)[:, None]
        focal = focal_l1(painted, images, params.focus)
        loss = focal.where(pixels, 0.0).sum() / (pixels.sum() * images.shape[1])
        weight = torch.where(pixels, 1.0, params.visible_weight)
        mixed = weight * painted + (1 - weight) * (painted.detach() + images) / 2
        return loss + params.frequency_weight * in_fp32(focal_frequency, mixed, images)

    def global_loss(self, projected: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
        """Return the contrast of each view with the teacher's other one, averaged."""
        with torch.no_grad():
            keys = [self.teacher_projector(self.encoder.pool(one)) for one in taught]
            keys = [F.normalize(one.float(), dim=1) for one in keys]
        self.keys = torch.cat(keys[::-1])
        temperature = self.params.global_temperature
        loss = partial(moco_loss, negatives=self.queue.rows, temperature=temperature)
        pairs = zip(projected, keys[::-1], strict=True)
        return torch.stack([in_fp32(loss, *pair) for pair in pairs]).mean()

    def local_loss(self, own: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy at places that are nearest to each other, averaged over views.

        Images that a strategy put behind those of the task have no known place and take no part.

        Args:
            own: The student's features at all places of each view, ``[B, N, D]``.
            taught: The teacher's.
        """
        sides = [math.isqrt(one.shape[1]) for one in own]
        centres = [centres_of(*pair) for pair in zip(self.crops, sides, strict=True)]
        losses = []
        for first, second in ((0, 1), (1, 0)):
            count = max(1, round(self.params.matches * sides[first] ** 2))
            near, partner = nearest(centres[first], centres[second], count)
            student = self.local_head(utils.get_at_index(own[first][: len(near)], near))
            with torch.no_grad():
                teacher = self.teacher_head(
                    utils.get_at_index(taught[second][: len(near)], partner)
                ).flatten(0, 1)
            with torch.autocast(student.device.type, enabled=False):
                targets = self.targets(teacher, self.temperature)
                each = cross_entropies(
                    targets, student.flatten(0, 1), self.params.student_temperature
                )
                self.targets.update_centre(teacher)
            losses.append(each.mean())
        return torch.stack(losses).mean()

    # The stream.

    def before_step(self, info: StepInfo) -> None:
        """Set the teacher's temperature, and note which parts of tiles the views are."""
        params = self.params
        self.temperature = warmed_up(
            params.start_temperature, params.teacher_temperature, params.warmup, info.progress
        )
        self.crops = info.crops

    def after_update(self, info: StepInfo) -> None:
        """Let the teacher follow, and the keys of the batch replace the oldest."""
        momentum = cosine_to_one(self.params.momentum, info.progress)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)
        ema_update(self.teacher_head, self.local_head, momentum)
        assert self.keys is not None
        self.queue.push(self.keys)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast of predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)


def focal_l1(predicted: Tensor, target: Tensor, focus: float) -> Tensor:
    """Return |e| (2 σ(α |e|) − 1) of every value: small errors weigh less (the authors' code)."""
    error = (predicted - target).abs()
    return error * (2 * torch.sigmoid(focus * error) - 1)


def focal_frequency(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the focal frequency loss of the batch's mean spectrum (Jiang et al. 2021, Eq. 8).

    Squared distances of Fourier coefficients, weighed by log(1 + distance) over its maximum,
    without gradient, as the authors of CMID set it.

    Args:
        predicted: ``[B, C, H, W]`` float32.
        target: The same.
    """
    spectra = [torch.fft.fft2(images, norm="ortho").mean(dim=0) for images in (predicted, target)]
    difference = torch.view_as_real(spectra[0] - spectra[1])
    squared = difference.square().sum(dim=-1)
    with torch.no_grad():
        weight = torch.log1p(squared.sqrt())
        weight = weight / weight.max().clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * squared).mean()


def centres_of(crops: Crops, side: int) -> Tensor:
    """Return where the centres of a view's places are in its tile, in pixels, row by row.

    Args:
        crops: Of one view of n images.
        side: Places along a side of the view.

    Returns:
        Row and column, ``[n, side², 2]`` float32.
    """
    share = (torch.arange(side, device=crops.top.device) + 0.5) / side
    across = torch.where(crops.flip[:, None], 1 - share, share)
    rows = crops.top[:, None] + crops.height[:, None] * share
    columns = crops.left[:, None] + crops.width[:, None] * across
    both = rows[:, :, None].expand(-1, -1, side), columns[:, None].expand(-1, side, -1)
    return torch.stack(both, dim=-1).flatten(1, 2)


def nearest(own: Tensor, other: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the pairs of points that are nearest to each other.

    Each of one's own points is paired with the nearest other; the closest pairs are kept.

    Args:
        own: ``[n, N, 2]``.
        other: ``[n, M, 2]``.
        count: Pairs to keep, at most N.

    Returns:
        Numbers of own and of other points, ``[n, count]`` int64 each.
    """
    # By differences: products lose what tells near points apart.
    between = torch.cdist(own, other, compute_mode="donot_use_mm_for_euclid_dist")
    distance, partner = between.min(dim=2)
    kept = distance.argsort(dim=1, stable=True)[:, :count]
    return kept, partner.gather(1, kept)
