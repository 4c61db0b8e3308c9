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

from rscl_bench.models.band_heads import (
    difference,
    mean_over_present,
    own_bands,
    pixel_head,
    predict_bands,
)
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import cosine_to_one, ema_update, teacher_copy
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo, TeacherParams
from rscl_bench.objectives.embedding import (
    BYOL_COLOURS,
    Temperature,
    distil_by_contrast,
    in_fp32,
    mlp,
)
from rscl_bench.objectives.masking import Ratio, check_mask_count
from rscl_bench.objectives.moco_v2 import moco_loss
from rscl_bench.objectives.queue import Queue
from rscl_bench.objectives.self_distillation import (
    DINOHead,
    TeacherTargets,
    cross_entropies,
    warmed_up,
)
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.crops import Crops
from rscl_bench.views.masks import draw_singly, enlarged, mask_of, nearest_divisor
from rscl_bench.views.view import Share, View


class CMIDParams(TeacherParams):
    """Views, masking, heads and losses (Muhtar et al. 2023, Section III; their code).

    Attributes:
        first_view: How the first view is made: only cropped.
        second_view: How the second view is made.
        mask_ratio: Share of mask units that are hidden, rounded up to whole units.
        mask_unit: Side of a mask unit as a share of the image's side. The side is rounded to the
            nearest number of mask cells that tiles the image. The paper's is 32 of 224 pixels.
        focus: α of the focal L1 loss. A smaller α gives small errors less weight.
        frequency_weight: Weight of the focal frequency loss.
        visible_weight: Share of a predicted visible pixel that takes gradient in the frequency
            loss. The rest is the mean of prediction and image, without gradient.
        hidden_dim: Hidden width of both heads.
        output_dim: Width of the global projections.
        global_temperature: Temperature τ of the contrast.
        queue: Number of keys of past batches that serve as negatives.
        bottleneck_dim: Width of the local head before its prototypes.
        prototypes: Number K of prototypes of the local head.
        matches: Share of a view's locations that are compared: those that are nearest on the ground
            to a location of the other view. The authors take 20 of 7 × 7.
        student_temperature: Temperature τ_s of the student in the local loss.
        start_temperature: Temperature τ_t of the teacher at the start of a task.
        teacher_temperature: Temperature τ_t of the teacher after its warm-up.
        warmup: Share of a task that the warm-up of τ_t takes; the authors take 50 of 400 epochs.
        centre_momentum: Momentum of the centre of the local targets.
        momentum: Momentum of the teacher at the start of a task. It rises to 1 (`cosine_to_one`).
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
    output_dim: Several = 256
    global_temperature: Temperature = 0.2
    queue: Positive = 65536
    bottleneck_dim: Several = 256
    prototypes: Several = 2048
    matches: Share = 20 / 49
    student_temperature: Temperature = 0.1
    start_temperature: Temperature = 0.04
    teacher_temperature: Temperature = 0.07
    warmup: Fraction = 0.125
    centre_momentum: Fraction = 0.9
    momentum: Fraction = 0.996


class CMID(Objective):
    """Reconstructs two masked views, contrasts the views, and distils locations that they share.

    The student sees masked views: hidden units are filled with the image's mean, and a mask token
    is added to them. The momentum teacher sees whole views. The loss is the sum of three losses,
    each averaged over both views: the reconstruction of hidden pixels, the contrast of pooled
    features, and the cross-entropy of distributions over prototypes at the pairs of locations that
    are nearest on the ground.
    """

    Params = CMIDParams
    momentum = True
    negatives = True

    def __init__(self, params: CMIDParams, encoder: Encoder):
        """Build heads and teacher.

        Args:
            params: Views, masking, heads and losses.
            encoder: Any encoder.
        """
        super().__init__(params, encoder)
        self.params = params
        self.views = (params.first_view, params.second_view)
        width = encoder.feature_dim
        self.token = nn.Parameter(torch.zeros(encoder.token_dim))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.predict = pixel_head(encoder, width, encoder.feature_stride**2, width**-0.5)
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
            teacher_encoded = [self.teacher(view) for view in views]
        projected = tuple(self.projector(self.encoder.pool(view)) for view in encoded)
        student = [self.encoder.locations(view) for view in encoded]
        teacher = [self.teacher.locations(view) for view in teacher_encoded]
        pixels = [self.pixel_loss(*view) for view in zip(views, student, hidden, strict=True)]
        loss = torch.stack(pixels).mean() + self.global_loss(projected, teacher_encoded)
        return ObjectiveOutput(loss + self.local_loss(student, teacher), encoded, projected)

    # Masking.

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> Tensor:
        """Return the hidden mask units of each image, ``[B, n, n]`` bool."""
        cells = image_size // self.encoder.mask_stride
        side = cells // nearest_divisor(cells, self.params.mask_unit * cells)
        hidden = math.ceil(self.params.mask_ratio * side**2)
        check_mask_count(hidden, side**2, "mask units")
        return mask_of(draw_singly(count, side**2, hidden, generator), side)

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Encode masked images: hidden units are filled with the mean, and the token is added."""
        size = images.shape[-1]
        pixels = enlarged(hidden, size)[:, None]
        filled = torch.where(pixels, images.mean(dim=(2, 3), keepdim=True), images)
        cells = enlarged(hidden, size // self.encoder.mask_stride)
        return self.encoder.forward_with_mask_token_added(filled, cells, self.token)

    # Losses.

    def pixel_loss(self, images: Tensor, features: Tensor, hidden: Tensor) -> Tensor:
        """Return the focal L1 loss of hidden pixels plus the focal frequency loss of whole images.

        Args:
            images: ``[B, C, H, W]``.
            features: The student's features at all locations, ``[B, N, D]``.
            hidden: The hidden mask units, ``[B, n, n]`` bool.
        """
        size, stride, params = images.shape[-1], self.encoder.feature_stride, self.params
        predicted = predict_bands(self.predict, features, images)
        painted = utils.unpatchify(predicted, stride, predicted.shape[-1] // stride**2).float()
        painted = painted[
            ..., :size, :size
        ]  # a ResNet's last locations can reach beyond the border
        pixels = enlarged(hidden, size)[:, None]
        if self.encoder.bands is None:
            focal = focal_l1(painted, images, params.focus)
            loss = focal.where(pixels, 0.0).sum() / (pixels.sum() * images.shape[1])
        else:
            images = own_bands(self.encoder, images)
            target = images.where(pixels, torch.nan)
            known = difference(painted, target)
            loss = mean_over_present(focal_l1(known, torch.zeros_like(known), params.focus), target)
            present = ~images.isnan()  # a band that an image lacks has no part in the spectrum
            images, painted = images.where(present, 0.0), painted.where(present, 0.0)
        weight = torch.where(pixels, 1.0, params.visible_weight)
        mixed = weight * painted + (1 - weight) * (painted.detach() + images) / 2
        return loss + params.frequency_weight * in_fp32(focal_frequency, mixed, images)

    def global_loss(self, projected: Sequence[Tensor], teacher_encoded: Sequence[Tensor]) -> Tensor:
        """Return the contrast of each view with the teacher's other view, averaged over views.

        Args:
            projected: The student's projections, one ``[B, P]`` per view.
            teacher_encoded: The teacher's encoding of each view.
        """
        with torch.no_grad():
            keys = [self.teacher_projector(self.encoder.pool(view)) for view in teacher_encoded]
            keys = [F.normalize(key.float(), dim=1) for key in keys]
        self.keys = torch.cat(keys[::-1])
        temperature = self.params.global_temperature
        loss = partial(moco_loss, negatives=self.queue.rows, temperature=temperature)
        pairs = zip(projected, keys[::-1], strict=True)
        return torch.stack([in_fp32(loss, *pair) for pair in pairs]).mean()

    def local_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy at pairs of nearest locations, averaged over views.

        Images that a strategy appended to those of the step have unknown crops; they are left out.

        Args:
            student: The student's features at all locations, one ``[B, N, D]`` per view.
            teacher: The teacher's features at all locations, one ``[B, N, D]`` per view.
        """
        sides = [math.isqrt(features.shape[1]) for features in student]
        centres = [centres_of(*pair) for pair in zip(self.crops, sides, strict=True)]
        losses = []
        for view, other in ((0, 1), (1, 0)):
            count = max(1, round(self.params.matches * sides[view] ** 2))
            near, partner = nearest(centres[view], centres[other], count)
            known = len(near)
            logits = self.local_head(utils.get_at_index(student[view][:known], near)).flatten(0, 1)
            with torch.no_grad():
                partners = utils.get_at_index(teacher[other][:known], partner)
                teacher_logits = self.teacher_head(partners).flatten(0, 1)
            with torch.autocast(logits.device.type, enabled=False):
                targets = self.targets(teacher_logits, self.temperature)
                temperature = self.params.student_temperature
                losses.append(cross_entropies(targets, logits, temperature).mean())
                self.targets.update_centre(teacher_logits)
        return torch.stack(losses).mean()

    # The stream.

    def before_step(self, info: StepInfo) -> None:
        """Set the teacher's temperature, and store the crops of the views."""
        params = self.params
        self.temperature = warmed_up(
            params.start_temperature, params.teacher_temperature, params.warmup, info.progress
        )
        self.crops = info.crops

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher, and push the keys of the batch onto the queue."""
        momentum = cosine_to_one(self.params.momentum, info.progress)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)
        ema_update(self.teacher_head, self.local_head, momentum)
        assert self.keys is not None
        self.queue.push(self.keys)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)


def focal_l1(predicted: Tensor, target: Tensor, focus: float) -> Tensor:
    """Return |e| (2 σ(α |e|) − 1) for every error e: small errors weigh less (authors' code).

    Args:
        predicted: Any shape.
        target: Same shape.
        focus: α.
    """
    error = (predicted - target).abs()
    return error * (2 * torch.sigmoid(focus * error) - 1)


def focal_frequency(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the focal frequency loss of the batch's mean spectrum (Jiang et al. 2021, Eq. 8).

    The loss is the mean squared distance of Fourier coefficients. The weight of a coefficient is
    log(1 + distance) over the largest such value, without gradient, as in CMID's code.

    Args:
        predicted: ``[B, C, H, W]`` float32.
        target: ``[B, C, H, W]`` float32.
    """
    spectra = [torch.fft.fft2(images, norm="ortho").mean(dim=0) for images in (predicted, target)]
    difference = torch.view_as_real(spectra[0] - spectra[1])
    squared = difference.square().sum(dim=-1)
    with torch.no_grad():
        weight = torch.log1p(squared.sqrt())
        weight = weight / weight.max().clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * squared).mean()


def centres_of(crops: Crops, side: int) -> Tensor:
    """Return the centres of a view's locations in the coordinates of its tile.

    Args:
        crops: Crops of one view of n images.
        side: Number of locations along a side of the view.

    Returns:
        Row and column in pixels, locations row by row, ``[n, side², 2]`` float32.
    """
    share = (torch.arange(side, device=crops.top.device) + 0.5) / side
    across = torch.where(crops.flip[:, None], 1 - share, share)
    rows = crops.top[:, None] + crops.height[:, None] * share
    columns = crops.left[:, None] + crops.width[:, None] * across
    grid = rows[:, :, None].expand(-1, -1, side), columns[:, None].expand(-1, side, -1)
    return torch.stack(grid, dim=-1).flatten(1, 2)


def nearest(points: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the closest pairs between two sets of points.

    Every point is paired with its nearest other point; the ``count`` closest pairs are kept.

    Args:
        points: ``[n, N, 2]``.
        others: ``[n, M, 2]``.
        count: Number of pairs to keep, at most N.

    Returns:
        Indices into ``points`` and into ``others``, ``[n, count]`` int64 each.
    """
    # Not by matrix products: they cancel the small differences between near points.
    distances = torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")
    distance, partner = distances.min(dim=2)
    kept = distance.argsort(dim=1, stable=True)[:, :count]
    return kept, partner.gather(1, kept)
