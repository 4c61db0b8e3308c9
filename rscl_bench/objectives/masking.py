"""Objectives that predict the parts of an image that a mask token replaces."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.models import utils
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.band_heads import pixel_head, predict_bands
from rscl_bench.models.encoder import Encoder, MaskableEncoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Positive, Spec
from rscl_bench.views.masks import draw_blocks, enlarged, mask_of
from rscl_bench.views.view import View

#: Share of the units of an image that are hidden.
Ratio = Annotated[float, Field(gt=0, lt=1)]


class Masked(Objective):
    """Hides parts of an image behind a mask token and predicts the hidden parts.

    The prediction is made at every location of the encoder's feature map (see `Encoder`). Every
    image of a batch hides the same number of units.
    """

    per_image_loss = True
    stateless_loss = True
    encoder: MaskableEncoder

    def __init__(
        self,
        params: Spec,
        encoder: MaskableEncoder,
        view: View,
        outputs: int,
        by_band: bool = False,
    ):
        """Create the mask token and the prediction head.

        Args:
            params: The objective's parameters.
            encoder: The encoder to train.
            view: How the view of an image is made.
            outputs: Width of the prediction at a location.
            by_band: Whether these are ``outputs`` for each band, or in all.
        """
        super().__init__(params, encoder)
        self.views = (view,)
        self.token = nn.Parameter(torch.zeros(encoder.token_dim))
        width = encoder.feature_dim
        self.predict = (
            pixel_head(encoder, width, outputs, 0.02) if by_band else nn.Linear(width, outputs)
        )
        nn.init.trunc_normal_(self.token, std=0.02)
        if isinstance(self.predict, nn.Linear):
            nn.init.trunc_normal_(self.predict.weight, std=0.02)
            nn.init.zeros_(self.predict.bias)

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Encode images with the mask token in place of hidden units.

        Args:
            images: ``[B, C, H, W]``.
            hidden: The hidden units, ``[B, n, n]`` bool. The units tile the image; each is a whole
                number of mask cells.
        """
        cells = images.shape[-1] // self.encoder.mask_stride
        return self.encoder.forward_masked(images, enlarged(hidden, cells), self.token)


class BlockMaskingParams(Spec):
    """Blockwise masking (Bao et al. 2022, "BEiT", Algorithm 1).

    Attributes:
        mask_ratio: Share of locations that are hidden, rounded to a whole number of locations.
        min_block: Smallest area of a block, in locations of a 14 × 14 map; the area scales with the
            map.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
    """

    mask_ratio: Ratio
    min_block: Positive
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3


class BlockMasked(Masked):
    """Hides blocks of locations and predicts a target at every hidden location."""

    def __init__(
        self,
        params: BlockMaskingParams,
        encoder: MaskableEncoder,
        view: View,
        outputs: int,
        by_band: bool = False,
    ):
        """Set up the objective; see `Masked`."""
        super().__init__(params, encoder, view, outputs, by_band)
        self.masking = params

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss of the predictions at hidden locations; see `Objective.forward`."""
        (images,) = views
        side = images.shape[-1] // self.encoder.feature_stride
        hidden = self.draw(len(images), side, generator)
        encoded = self.encode(images, mask_of(hidden, side))
        features = utils.get_at_index(self.encoder.locations(encoded), hidden)
        predicted = predict_bands(self.predict, features, images)
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                targets = self.targets(images, hidden)
            return ObjectiveOutput(self.compare(predicted.float(), targets), (encoded,))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the hidden locations of ``count`` images, ``[count, M]``; see `draw_blocks`."""
        masking, locations = self.masking, side**2
        hidden = check_mask_count(round(locations * masking.mask_ratio), locations, "locations")
        min_area = masking.min_block * locations / 14**2
        return draw_blocks(count, side, hidden, min_area, masking.min_aspect, generator)

    @abstractmethod
    def targets(self, images: Tensor, locations: Tensor) -> Tensor:
        """Return the targets at some locations.

        Args:
            images: ``[B, C, H, W]`` float32.
            locations: Indices of locations, counted row by row, ``[B, M]`` int64.

        Returns:
            ``[B, M, ...]``. Targets for each band have the bands of the batch, NaN in the bands
            that an image lacks.
        """

    @abstractmethod
    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a mean over images.

        Args:
            predicted: Predictions, ``[B, M, outputs]`` float32.
            targets: The result of `targets`.
        """


def require_maskable(encoder: Encoder, objective: str) -> MaskableEncoder:
    """Return the encoder, and refuse an encoder without mask tokens.

    Args:
        encoder: Any encoder.
        objective: Name of the objective, for the message.

    Raises:
        SpecError: If the encoder cannot hide parts of an image behind a token.
    """
    if not isinstance(encoder, MaskableEncoder):
        raise SpecError(
            f"Objective '{objective}' needs an encoder that can see a token in place of parts of "
            f"an image, which {type(encoder).__name__} cannot; set backbone.name = 'vit' or 'swin'."
        )
    return encoder


def check_mask_count(hidden: int, units: int, name: str) -> int:
    """Return the number of hidden units, and refuse none or all.

    Args:
        hidden: Number of hidden units of an image.
        units: Number of units of an image.
        name: Plural name of the units, for the message.

    Raises:
        SpecError: If no unit or every unit would be hidden.
    """
    if not 0 < hidden < units:
        raise SpecError(
            f"mask_ratio hides {hidden} of {units} {name} of an image; at least one must be hidden "
            "and one visible."
        )
    return hidden
