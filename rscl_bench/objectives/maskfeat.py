"""MaskFeat (Wei et al. 2022, "Masked Feature Prediction for Self-Supervised Visual ...")."""

import torch
import torch.nn.functional as F
from lightly.models import utils
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.masking import (
    BlockMasked,
    BlockMaskingParams,
    Ratio,
    nearest_divisor,
    require_maskable,
)
from rscl_bench.spec import Positive
from rscl_bench.views.view import View


class MaskFeatParams(BlockMaskingParams):
    """View, masking and target (Wei et al. 2022, Sections 3 and 5; masking as their code).

    Attributes:
        view: How an image is seen.
        hog_cell: Side in pixels of a cell of the histograms; the nearest that divides a place is
            taken.
        hog_bins: Orientations of a histogram, over half a turn.
    """

    view: View = View(min_scale=0.5)
    mask_ratio: Ratio = 0.4
    min_block: Positive = 15
    hog_cell: Positive = 8
    hog_bins: Positive = 9


class MaskFeat(BlockMasked):
    """Predicts histograms of oriented gradients of hidden places, by one linear layer."""

    Params = MaskFeatParams

    def __init__(self, params: MaskFeatParams, encoder: Encoder):
        encoder = require_maskable(encoder, "maskfeat")
        cell = nearest_divisor(encoder.feature_stride, params.hog_cell)
        outputs = encoder.channels * params.hog_bins * (encoder.feature_stride // cell) ** 2
        super().__init__(params, encoder, params.view, outputs)
        self.cell, self.bins = cell, params.hog_bins

    def targets(self, images: Tensor, places: Tensor) -> Tensor:
        """Return the histograms of a place's cells, ``[B, M, C * bins * cells]``."""
        histograms = hog(images, self.cell, self.bins).flatten(1, 2)
        patches = utils.patchify(histograms, self.encoder.feature_stride // self.cell)
        chosen: Tensor = utils.get_at_index(patches, places)
        return chosen

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(predicted, targets)


def hog(images: Tensor, cell: int, bins: int) -> Tensor:
    """Return histograms of oriented gradients of each band.

    As Wei et al. (2022) compute them, from Dalal & Triggs (2005), "Histograms of Oriented Gradients
    for Human Detection": Sobel gradients, edges reflected; each pixel votes for the one bin of its
    orientation with the gradient's magnitude; a cell's histogram has length 1, or 0 where the cell
    is flat.

    Args:
        images: ``[B, C, H, W]`` float32.
        cell: Side of a cell in pixels.
        bins: Orientations over half a turn.

    Returns:
        ``[B, C, bins, H / cell, W / cell]``.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    # Differences come last: they are exactly 0 where nothing changes, and at reflected edges, where
    # rounding would otherwise choose an orientation.
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = rows[..., :-2] - rows[..., 2:]
    down = columns[:, :, :-2] - columns[:, :, 2:]
    magnitude = torch.hypot(across, down)
    number = (torch.atan2(across, down) / torch.pi * bins).floor().remainder(bins)
    votes = [
        F.avg_pool2d(magnitude.where(number == which, 0.0), cell, divisor_override=1)
        for which in range(bins)
    ]
    return F.normalize(torch.stack(votes, dim=2), dim=2)
