"""MaskFeat (Wei et al. 2022, "Masked Feature Prediction for Self-Supervised Visual ...")."""

import torch
import torch.nn.functional as F
from lightly.models import utils
from torch import Tensor

from rscl_bench.models.band_heads import difference, mean_over_present, own_bands
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.masking import BlockMasked, BlockMaskingParams, Ratio, require_maskable
from rscl_bench.spec import Positive, Several
from rscl_bench.views.masks import nearest_divisor
from rscl_bench.views.view import View


class MaskFeatParams(BlockMaskingParams):
    """View, masking and target (Wei et al. 2022, Sections 3 and 5; masking of their code).

    Attributes:
        view: How the view of an image is made.
        hog_cell: Side in pixels of a histogram cell, rounded to the nearest divisor of the
            encoder's ``feature_stride``.
        hog_bins: Number of orientations of a histogram, over half a turn.
    """

    view: View = View(min_scale=0.5)
    mask_ratio: Ratio = 0.4
    min_block: Positive = 15
    hog_cell: Positive = 8
    hog_bins: Several = 9


class MaskFeat(BlockMasked):
    """Predicts histograms of oriented gradients at hidden locations, with one linear layer."""

    Params = MaskFeatParams

    def __init__(self, params: MaskFeatParams, encoder: Encoder):
        encoder = require_maskable(encoder, "maskfeat")
        cell = nearest_divisor(encoder.feature_stride, params.hog_cell)
        outputs = params.hog_bins * (encoder.feature_stride // cell) ** 2
        super().__init__(params, encoder, params.view, outputs, by_band=True)
        self.hog_cell, self.hog_bins = cell, params.hog_bins

    def targets(self, images: Tensor, locations: Tensor) -> Tensor:
        """Return the histograms at some locations, ``[B, M, C * bins * cells]``.

        Where images differ in bands, C are the bands of the batch, NaN where an image lacks them.
        """
        shown = own_bands(self.encoder, images)
        histograms = hog(shown, self.hog_cell, self.hog_bins)
        if self.encoder.bands is not None:
            present = ~shown[:, :, None, :1, :1].isnan()
            histograms = histograms.where(present, torch.nan).transpose(1, 2)  # as `predict_bands`
        histograms = histograms.flatten(1, 2)
        patches = utils.patchify(histograms, self.encoder.feature_stride // self.hog_cell)
        targets: Tensor = utils.get_at_index(patches, locations)
        return targets

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error, averaged over values, locations and images."""
        if self.encoder.bands is None:
            return F.mse_loss(predicted, targets)
        return mean_over_present(difference(predicted, targets).square(), targets)


def hog(images: Tensor, cell: int, bins: int) -> Tensor:
    """Return the histograms of oriented gradients (HOG) of each band.

    The histograms follow the code of Wei et al. (2022), after Dalal & Triggs (2005), "Histograms of
    Oriented Gradients for Human Detection". Gradients are Sobel gradients with reflected edges.
    Each pixel votes for the bin of its orientation, with the gradient's magnitude as its weight.
    The histogram of a cell has length 1, or 0 if the cell is flat.

    Args:
        images: ``[B, C, H, W]`` float32.
        cell: Side of a cell in pixels.
        bins: Number of orientations over half a turn.

    Returns:
        ``[B, C, bins, H / cell, W / cell]``.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    # Take differences last, so that they are exactly 0 in flat areas and at reflected edges.
    # Otherwise rounding errors would choose an orientation there.
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = rows[..., :-2] - rows[..., 2:]
    down = columns[:, :, :-2] - columns[:, :, 2:]
    magnitude = torch.hypot(across, down)
    orientation = (torch.atan2(across, down) / torch.pi * bins).floor().remainder(bins)
    votes = [
        F.avg_pool2d(magnitude.where(orientation == index, 0.0), cell, divisor_override=1)
        for index in range(bins)
    ]
    return F.normalize(torch.stack(votes, dim=2), dim=2)
