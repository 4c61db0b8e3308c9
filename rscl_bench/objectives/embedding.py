"""What objectives share that compare embeddings of several views of an image."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.objectives.momentum import ema_update, teacher_copy
from rscl_bench.spec import Spec
from rscl_bench.views.view import View

#: What cosines are divided by.
Temperature = Annotated[float, Field(ge=1e-4)]

#: CaSSLe's for contrastive objectives, whatever theirs (Fini et al. 2022, code).
DISTIL_TEMPERATURE = 0.2

#: SimCLR (Chen et al. 2020, Appendix A), strength 1.
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
#: MoCo v2 (Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning"), code.
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
#: BYOL (Grill et al. 2020, Table 6), without crop and blur; DINO and CMID too.
BYOL_COLOURS = View(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2)
#: BYOL, first and second view; MoCo v3, Barlow Twins and VICReg too.
BYOL_VIEWS = (
    BYOL_COLOURS.model_copy(update={"min_scale": 0.08, "blur": 1.0}),
    BYOL_COLOURS.model_copy(update={"min_scale": 0.08, "blur": 0.1, "solarise": 0.2}),
)


class JointEmbedding(Objective):
    """Encodes every view, pools, projects, and compares the projections.

    Attributes:
        joint_batch: Whether views of one size pass as one batch, and the features of all as one, of
            which batch normalisation takes its statistics; else every view passes alone.
    """

    joint_batch: ClassVar[bool] = False

    def __init__(
        self,
        params: Spec,
        encoder: Encoder,
        views: Sequence[View],
        projector: nn.Module,
        projected_dim: int,
        feature: Pool,
    ):
        super().__init__(params, encoder)
        self.views = tuple(views)
        self.projector, self.projected_dim = projector, projected_dim
        encoder.check_pool(feature)
        self.feature = feature

    @abstractmethod
    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the loss.

        Args:
            projected: One ``[B, P]`` per view, in the precision of the forward pass.
            views: As ``forward`` got them.
        """

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss over all views; see `Objective.forward`."""
        passed = forward_multicrop if self.joint_batch else forward_each
        encoded = passed(self.encoder, views)
        projected = passed(
            self.projector, [self.encoder.pool(one, self.feature) for one in encoded]
        )
        return ObjectiveOutput(self.compare(projected, views), tuple(encoded), tuple(projected))


class TeacherEmbedding(JointEmbedding):
    """Compares with what a momentum copy of encoder and projector makes of the views."""

    def __init__(
        self,
        params: Spec,
        encoder: Encoder,
        views: Sequence[View],
        projector: nn.Module,
        projected_dim: int,
        feature: Pool,
    ):
        super().__init__(params, encoder, views, projector, projected_dim, feature)
        self.teacher = teacher_copy(encoder)
        self.teacher_projector = teacher_copy(projector)

    @torch.no_grad()
    def teacher_projection(self, view: Tensor) -> Tensor:
        """Return the teacher's projections of a view, ``[B, P]``."""
        pooled = self.encoder.pool(self.teacher(view), self.feature)
        projected: Tensor = self.teacher_projector(pooled)
        return projected

    def update_teacher(self, momentum: float) -> None:
        """Let the teacher follow."""
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)


def in_fp32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call a loss on float32 copies, without autocast."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        return function(*(tensor.float() for tensor in tensors))


def over_views(
    function: Callable[[Tensor, Tensor], Tensor], first: Sequence[Tensor], second: Sequence[Tensor]
) -> Tensor:
    """Return a loss of pairs of tensors, averaged over views."""
    return torch.stack([function(*pair) for pair in zip(first, second, strict=True)]).mean()


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of telling each query's own key from all keys, by cosines.

    Args:
        queries: ``[B, P]``.
        keys: ``[B, P]``.
        temperature: τ.
    """
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def distil_by_contrast(predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
    """Return CaSSLe's distillation for contrastive objectives (Fini et al. 2022, code).

    Each prediction is told from those of all images and views by its own past projection, and the
    other way round.

    Args:
        predicted: One ``[B, P]`` per view.
        past: The same.
    """
    new, old = torch.cat(list(predicted)), torch.cat(list(past))
    ways = contrast(new, old, DISTIL_TEMPERATURE), contrast(old, new, DISTIL_TEMPERATURE)
    return torch.stack(ways).mean()


def forward_each(function: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """Call a function for every view alone."""
    return [function(view) for view in views]


def forward_multicrop(
    function: Callable[[Tensor], Tensor], views: Sequence[Tensor]
) -> list[Tensor]:
    """Call a function once for all neighbouring views of one size, as multi-crop training does.

    Args:
        function: From ``[n B, C, H, W]`` to ``[n B, ...]``.
        views: Each ``[B, C, H, W]``; the batch is the same in all.
    """
    results: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape):
        same = list(group)
        results += function(torch.cat(same)).chunk(len(same))
    return results


def mlp(
    *widths: int, norm: bool = True, last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Return linear layers of these widths with batch normalisation and ReLU between them.

    Args:
        *widths: Of input, hidden layers and output.
        norm: Whether there is batch normalisation between layers.
        last_norm: Whether batch normalisation without scale and shift follows the output.
        last_bias: Whether the output has a bias, where no batch normalisation follows it.
    """
    layers: list[nn.Module] = []
    last = len(widths) - 2
    for number, (before, after) in enumerate(pairwise(widths)):
        normed = norm if number < last else last_norm
        # Before batch normalisation a bias does nothing.
        bias = not normed and (number < last or last_bias)
        layers.append(nn.Linear(before, after, bias=bias))
        if normed:
            layers.append(nn.BatchNorm1d(after, affine=number < last))
        if number < last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
