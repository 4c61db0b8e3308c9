"""Parts shared by objectives that compare embeddings of several views of an image."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import ema_update, teacher_copy
from rscl_bench.objectives.base import Divisor, Objective, ObjectiveOutput, TeacherParams
from rscl_bench.spec import Pool, Several, Spec
from rscl_bench.views.view import View

#: Divisor τ of cosines.
Temperature = Annotated[float, Field(ge=1e-4), Divisor()]

#: CaSSLe's τ for all contrastive objectives, independent of their own τ (Fini et al. 2022, code).
DISTIL_TEMPERATURE = 0.2

#: View of SimCLR (Chen et al. 2020, Appendix A), strength 1.
SIMCLR_VIEW = View(
    min_scale=0.08,
    jitter=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    grey=0.2,
    blur=0.5,
)
#: View of MoCo v2's code (Chen et al. 2020, "Improved Baselines with Momentum Contrastive ...").
MOCO_V2_VIEW = View(
    min_scale=0.2,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grey=0.2,
    blur=0.5,
)
#: Colour operations of BYOL (Grill et al. 2020, Table 6), also used by DINO and CMID.
BYOL_COLOURS = View(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2)
#: First and second view of BYOL, also used by MoCo v3, Barlow Twins and VICReg.
BYOL_VIEWS = (
    BYOL_COLOURS.model_copy(update={"min_scale": 0.08, "blur": 1.0}),
    BYOL_COLOURS.model_copy(update={"min_scale": 0.08, "blur": 0.1, "solarise": 0.2}),
)


class EmbeddingParams(Spec):
    """Parameters of every joint embedding.

    Attributes:
        output_dim: Width P of the projections.
        feature: Input of the projector: the mean patch token, or the class token.
    """

    output_dim: Several
    feature: Pool = "patches"


class JointEmbedding(Objective):
    """Encodes, pools and projects every view, and compares the projections.

    A subclass implements `compare`, and `Objective.distil` if CaSSLe has a special loss for its
    kind.

    Attributes:
        joint_batch: Whether views of one size pass the encoder as one batch, and all features pass
            the projector as one batch, so that batch normalisation shares its statistics between
            views. Otherwise every view is a batch.
    """

    joint_batch: ClassVar[bool] = False
    whole_views = True

    def __init__(
        self,
        params: EmbeddingParams,
        encoder: Encoder,
        views: Sequence[View],
        projector: nn.Module,
    ):
        """Set up encoder, views and projector.

        Args:
            params: The objective's parameters.
            encoder: The encoder to train.
            views: How each view of an image is made.
            projector: Maps ``[B, encoder.feature_dim]`` to ``[B, params.output_dim]``.

        Raises:
            SpecError: If the encoder cannot pool ``params.feature``.
        """
        super().__init__(params, encoder)
        self.views = tuple(views)
        self.projector, self.projected_dim = projector, params.output_dim
        encoder.check_pool(params.feature)
        self.feature = params.feature

    @abstractmethod
    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            projected: Projections, one ``[B, P]`` per view. Under autocast the projections may be
                bf16: compute the loss with `in_fp32`.
            views: The images that `forward` received, one ``[B, C, H, W]`` per view.
        """

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss over all views; see `Objective.forward`."""
        forward_views = forward_multicrop if self.joint_batch else forward_each
        encoded = forward_views(self.encoder, views)
        pooled = [self.encoder.pool(view, self.feature) for view in encoded]
        projected = forward_views(self.projector, pooled)
        return ObjectiveOutput(self.compare(projected, views), tuple(encoded), tuple(projected))


class TeacherEmbeddingParams(TeacherParams, EmbeddingParams):
    """Parameters of every joint embedding with a momentum teacher."""


class TeacherEmbedding(JointEmbedding):
    """Compares projections with those of a momentum copy of encoder and projector."""

    def __init__(
        self,
        params: TeacherEmbeddingParams,
        encoder: Encoder,
        views: Sequence[View],
        projector: nn.Module,
    ):
        """Set up the student as in `JointEmbedding`, and copy it as the teacher."""
        super().__init__(params, encoder, views, projector)
        self.teacher = teacher_copy(encoder)
        self.teacher_projector = teacher_copy(projector)

    @torch.no_grad()
    def teacher_projection(self, view: Tensor) -> Tensor:
        """Return the teacher's projections ``[B, P]`` of a view ``[B, C, H, W]``."""
        pooled = self.encoder.pool(self.teacher(view), self.feature)
        projected: Tensor = self.teacher_projector(pooled)
        return projected

    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student by one step of the moving average."""
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)


def in_fp32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Evaluate a loss on float32 copies of its inputs, with autocast off.

    Use `in_fp32` for every loss inside ``forward`` and ``compare``, where autocast may be on:
    softmaxes and sums in bf16 are too coarse. ``distil`` does not need `in_fp32`, because its
    inputs are float32 and its caller has turned autocast off.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        return function(*(tensor.float() for tensor in tensors))


def over_views(
    function: Callable[[Tensor, Tensor], Tensor], first: Sequence[Tensor], second: Sequence[Tensor]
) -> Tensor:
    """Return the mean over views of a loss between two tensors of the same view.

    Use `over_views` in ``distil``, whose arguments hold one tensor per view. A loss between two
    *different* views of an image belongs in ``compare``.

    Args:
        function: Loss of two tensors, a scalar.
        first: One tensor per view.
        second: One tensor per view.
    """
    return torch.stack([function(*pair) for pair in zip(first, second, strict=True)]).mean()


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss: the cross-entropy of finding each query's key among all keys.

    Args:
        queries: ``[B, P]``.
        keys: ``[B, P]``; row i is the key of query i.
        temperature: τ.
    """
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def distil_by_contrast(predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
    """Return CaSSLe's distillation loss for contrastive objectives (Fini et al. 2022, code).

    The keys of a prediction are the past projections of all images and views. The loss is the mean
    of the contrast of predictions with past projections, and of the contrast the other way round.

    Args:
        predicted: One ``[B, P]`` per view.
        past: One ``[B, P]`` per view.
    """
    new, old = torch.cat(list(predicted)), torch.cat(list(past))
    directions = contrast(new, old, DISTIL_TEMPERATURE), contrast(old, new, DISTIL_TEMPERATURE)
    return torch.stack(directions).mean()


def forward_each(function: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """Apply a function to every view separately."""
    return [function(view) for view in views]


def forward_multicrop(
    function: Callable[[Tensor], Tensor], views: Sequence[Tensor]
) -> list[Tensor]:
    """Apply a function once to each run of consecutive views of one size, as one batch.

    This is the forward pass of multi-crop training.

    Args:
        function: Maps ``[n B, C, H, W]`` to ``[n B, ...]``.
        views: One ``[B, C, H, W]`` per view, with one B for all views.

    Returns:
        One ``[B, ...]`` per view.
    """
    results: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape):
        batch = list(group)
        results += function(torch.cat(batch)).chunk(len(batch))
    return results


def mlp(
    *widths: int, norm: bool = True, last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Return a perceptron: linear layers with batch normalisation and ReLU between them.

    Args:
        *widths: Widths of input, hidden layers and output.
        norm: Whether batch normalisation follows every hidden layer.
        last_norm: Whether batch normalisation without scale and shift follows the output.
        last_bias: Whether the output layer has a bias. A layer before batch normalisation never has
            one.
    """
    layers: list[nn.Module] = []
    last = len(widths) - 2
    for index, (width_in, width_out) in enumerate(pairwise(widths)):
        normed = norm if index < last else last_norm
        # Batch normalisation cancels a bias before it.
        bias = not normed and (index < last or last_bias)
        layers.append(nn.Linear(width_in, width_out, bias=bias))
        if normed:
            layers.append(nn.BatchNorm1d(width_out, affine=index < last))
        if index < last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
