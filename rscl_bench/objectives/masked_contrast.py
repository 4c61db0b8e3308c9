"""Masked contrast: reconstructs masked crops and contrasts what is visible of two of them.

The composition is this project's own. Its nearest relative is CAN (Mishra et al. 2022, "A simple,
efficient and scalable contrastive masked autoencoder for learning visual representations").
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from lightly.loss import NTXentLoss, VICRegLoss
from pydantic import Field, model_validator
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import ema_update, teacher_copy
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import ObjectiveOutput, StepInfo, TeacherParams
from rscl_bench.objectives.embedding import Temperature, distil_by_contrast, in_fp32, mlp
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.view import Share, View


class ContrastParams(MAEParams):
    """Crops, masking, decoder and comparison.

    Attributes:
        view: How a crop is made. Crops are not recoloured by default.
        same_crop: Whether both masks hide parts of one crop, or each part of a crop of its own.
        comparison: How projections are compared: ``ntxent`` is SimCLR's loss, ``vicreg`` is
            VICReg's with its weights 25, 25 and 1.
        weight: Weight β of the comparison; the reconstruction has weight 1.
        temperature: τ of ``ntxent``.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
    """

    view: View = View(min_scale=0.2)
    same_crop: bool = False
    comparison: Literal["ntxent", "vicreg"] = "ntxent"
    weight: Annotated[float, Field(gt=0)] = 0.1
    temperature: Temperature = 0.2
    hidden_dim: Positive = 512
    output_dim: Several = 128

    @model_validator(mode="after")
    def _views_are_of_full_size(self) -> Self:
        if self.view.size != 1:
            raise ValueError(f"view.size is {self.view.size}; a decoder needs crops of full size")
        return self


class MaskedContrastParams(ContrastParams):
    """Parameters of `MaskedContrast`.

    Attributes:
        decoded: Whether the decoder reconstructs the first masked crop, or both.
    """

    decoded: Literal["first", "both"] = "first"


class MomentumMaskedContrastParams(TeacherParams, ContrastParams):
    """Parameters of `MomentumMaskedContrast`.

    Attributes:
        momentum: Momentum of the teacher, the same at every step.
        teacher_visible: Share of patches that the teacher sees.
    """

    momentum: Fraction = 0.99
    teacher_visible: Share = 0.5


class Contrast(MAE):
    """A masked autoencoder with a projector and a comparison of projections."""

    params: ContrastParams
    per_image_loss: ClassVar[bool] = False
    negatives = True
    least_batch = 2

    def __init__(self, params: ContrastParams, encoder: Encoder):
        """Build decoder and projector for an encoder.

        Args:
            params: Crops, masking, decoder and comparison.
            encoder: A ViT.

        Raises:
            SpecError: As in `MAE`.
        """
        super().__init__(params, encoder)
        self.views = (params.view,) * (1 if params.same_crop else 2)
        by_cosine = params.comparison == "ntxent"
        # No term of VICReg depends on the bias of the output layer.
        widths = encoder.feature_dim, params.hidden_dim, params.output_dim
        self.projector = mlp(*widths, last_bias=by_cosine)
        self.projected_dim = params.output_dim
        self.comparison: nn.Module = NTXentLoss(params.temperature) if by_cosine else VICRegLoss()

    @abstractmethod
    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return reconstruction plus weighted comparison; see `Objective.forward`."""

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)


class MaskedContrast(Contrast):
    """Adds to the masked autoencoder a contrast between two masked crops of an image.

    The encoder sees the visible patches of two crops, each with a mask of its own. The loss is
    L_MAE + β · L_contrast(g(h_1), g(h_2)). h is the mean visible patch token, and g is the
    projector. Both crops pass encoder and projector as one batch.
    """

    Params = MaskedContrastParams
    params: MaskedContrastParams

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return reconstruction plus weighted comparison; see `Objective.forward`.

        With ``same_crop``, the output has the first mask's tokens and projections alone.
        """
        images = torch.cat([views[0], views[-1]])
        keep, hidden = self.draw(images, generator)
        encoded = self.vit(images, keep)
        projected = self.projector(self.vit.pool(encoded)).chunk(2)
        decoded = slice(len(images) // (2 if self.params.decoded == "first" else 1))
        loss = self.reconstruction(
            encoded[decoded], keep[decoded], hidden[decoded], images[decoded]
        ) + self.params.weight * in_fp32(self.comparison, *projected)
        shown = len(views)
        return ObjectiveOutput(loss, encoded.chunk(2)[:shown], projected[:shown])


class MomentumMaskedContrast(Contrast):
    """Contrasts a masked crop with a momentum teacher's view of another crop.

    The encoder sees and reconstructs the first crop alone. The teacher, a moving average of encoder
    and projector, sees some patches of the second crop, without gradient. The loss is
    L_MAE + β · L_contrast(g(h_1), ḡ(h̄_2)).
    """

    Params = MomentumMaskedContrastParams
    params: MomentumMaskedContrastParams
    momentum = True

    def __init__(self, params: MomentumMaskedContrastParams, encoder: Encoder):
        """Set up the student as in `Contrast`, and copy it as the teacher."""
        super().__init__(params, encoder)
        self.teacher = teacher_copy(self.vit)
        self.teacher_projector = teacher_copy(self.projector)
        self.teacher_views = len(self.views) - 1
        self.seen = max(1, int(self.vit.num_patches * params.teacher_visible))

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return reconstruction plus weighted comparison; see `Objective.forward`."""
        images = views[0]
        keep, hidden = self.draw(images, generator)
        encoded = self.vit(images, keep)
        projected = self.projector(self.vit.pool(encoded))
        target = self.target(views[-1], generator)
        loss = self.reconstruction(encoded, keep, hidden, images)
        loss = loss + self.params.weight * in_fp32(self.comparison, projected, target)
        return ObjectiveOutput(loss, (encoded,), (projected,))

    @torch.no_grad()
    def target(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the teacher's projections ``[B, P]`` of random patches of ``[B, C, H, W]``."""
        shape = len(images), self.vit.num_patches
        noise = torch.rand(shape, generator=generator, device=images.device)
        order = noise.argsort(dim=1, stable=True) + 1
        keep = torch.cat([torch.zeros_like(order[:, :1]), order[:, : self.seen]], dim=1)
        assert isinstance(self.teacher, ViT)  # the student's copy
        projected: Tensor = self.teacher_projector(self.teacher.pool(self.teacher(images, keep)))
        return projected

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher."""
        ema_update(self.teacher, self.encoder, self.params.momentum)
        ema_update(self.teacher_projector, self.projector, self.params.momentum)
