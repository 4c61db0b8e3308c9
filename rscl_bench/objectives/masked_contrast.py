"""Masked contrast: reconstructs masked crops and contrasts what is visible of two of them.

The composition is this project's own. Its nearest relative is CAN (Mishra et al. 2022, "A simple,
efficient and scalable contrastive masked autoencoder for learning visual representations").
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from lightly.loss import NTXentLoss, VICRegLoss
from pydantic import Field, model_validator
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.objectives.embedding import Temperature, distil_by_contrast, in_fp32, mlp
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View


class MaskedContrastParams(MAEParams):
    """Crops, masking, decoder and comparison.

    Attributes:
        view: How a crop is made. Crops are not recoloured by default.
        same_crop: Whether both masks hide parts of one crop, or each part of a crop of its own.
        decoded: Whether the decoder reconstructs the first masked crop, or both.
        comparison: How projections are compared: ``ntxent`` is SimCLR's loss, ``vicreg`` is
            VICReg's with its weights 25, 25 and 1.
        weight: Weight β of the comparison; the reconstruction has weight 1.
        temperature: τ of ``ntxent``.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
    """

    view: View = View(min_scale=0.2)
    same_crop: bool = False
    decoded: Literal["first", "both"] = "first"
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


class MaskedContrast(MAE):
    """Adds to the masked autoencoder a contrast between two masked crops of an image.

    The encoder sees the visible patches of two crops, each with a mask of its own. The loss is
    L_MAE + β · L_contrast(g(h_1), g(h_2)). h is the mean visible patch token, and g is the
    projector. Both crops pass encoder and projector as one batch.
    """

    Params = MaskedContrastParams
    params: MaskedContrastParams
    per_image_loss: ClassVar[bool] = False
    negatives = True
    least_batch = 2

    def __init__(self, params: MaskedContrastParams, encoder: Encoder):
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

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)
