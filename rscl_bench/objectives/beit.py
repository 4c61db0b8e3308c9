"""BEiT (Bao et al. 2022, "BEiT: BERT Pre-Training of Image Transformers")."""

import torch
import torch.nn.functional as F
from lightly.models import utils
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import TileSampler
from rscl_bench.objectives.kmeans import spherical_kmeans
from rscl_bench.objectives.masking import BlockMasked, BlockMaskingParams, Ratio, require_maskable
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View

#: Smallest number of patches per visual token that the tokeniser is fitted on.
_PATCHES_PER_CODE = 10
#: Largest length of a centred patch, in standard deviations of its band, that counts as flat: such
#: a length is rounding error.
_FLAT = 1e-3


class BEiTParams(BlockMaskingParams):
    """View, masking and tokeniser (Bao et al. 2022, Section 2; view and masking of their code).

    Attributes:
        view: How the view of an image is made.
        vocabulary: Number of visual tokens. Fewer are in use if the tokeniser sees too few patches.
        tiles: Number of tiles of the first task that the tokeniser is fitted on.
        iterations: Iterations of k-means.
    """

    view: View = View(min_scale=0.08, jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4)
    mask_ratio: Ratio = 75 / 196
    min_block: Positive = 16
    vocabulary: Several = 8192
    tiles: Positive = 512
    iterations: Positive = 10


class PatchTokeniser(nn.Module):
    """Maps a patch to a visual token: the nearest of many directions in the space of patches.

    The direction of a patch is its pixel values, centred over all pixels and bands and scaled to
    length 1. Directions therefore depend neither on brightness nor on contrast. The directions of
    the codebook are the centroids of spherical k-means on one sample of patches; they are then
    frozen.

    Attributes:
        codebook: Directions, ``[vocabulary, p * p * C]``. The directions in use come first.
        used: Number of directions in use; 0 before `fit`.
    """

    codebook: Tensor
    used: Tensor

    def __init__(self, patch_size: int, channels: int, vocabulary: int):
        super().__init__()
        self.patch_size = patch_size
        self.register_buffer("codebook", torch.zeros(vocabulary, patch_size**2 * channels))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))

    def directions(self, images: Tensor) -> Tensor:
        """Return the directions of all patches, ``[B, N, p * p * C]``; 0 for a flat patch."""
        patches = utils.patchify(images, self.patch_size)
        centred = patches - patches.mean(dim=-1, keepdim=True)
        length = centred.norm(dim=-1, keepdim=True)
        return torch.where(length > _FLAT, centred / length, 0.0)

    @torch.no_grad()
    def fit(self, images: Tensor, iterations: int) -> None:
        """Fit the codebook by k-means. Evenly spaced patches are the initial centroids.

        Args:
            images: ``[B, C, H, W]`` float32, in random order.
            iterations: Iterations of k-means.
        """
        patches = self.directions(images).flatten(0, 1)
        patches = patches[patches.any(dim=1)]
        used = min(len(self.codebook), max(1, len(patches) // _PATCHES_PER_CODE))
        initial = patches[:: max(1, len(patches) // used)][:used]
        self.codebook.zero_()
        self.codebook[: len(initial)], _ = spherical_kmeans(patches, initial, iterations)
        self.used.fill_(len(initial))

    def forward(self, images: Tensor, locations: Tensor) -> Tensor:
        """Return the visual tokens of some patches, ``[B, M]`` int64.

        Args:
            images: ``[B, C, H, W]`` float32.
            locations: Indices of patches, counted row by row, ``[B, M]`` int64.
        """
        patches: Tensor = utils.get_at_index(self.directions(images), locations)
        similarity = patches @ self.codebook.T
        token = torch.arange(len(self.codebook), device=images.device)
        return similarity.masked_fill_(token >= self.used, -torch.inf).argmax(dim=-1)


class BEiT(BlockMasked):
    """Predicts the visual tokens at hidden locations (Section 2.3).

    Where images differ in bands, the tokeniser sees the mean over the bands that an image has, so
    that one vocabulary serves all sensors.
    """

    Params = BEiTParams

    def __init__(self, params: BEiTParams, encoder: Encoder):
        encoder = require_maskable(encoder, "beit")
        super().__init__(params, encoder, params.view, params.vocabulary)
        self.params = params
        channels = encoder.channels if encoder.bands is None else 1
        self.tokeniser = PatchTokeniser(encoder.feature_stride, channels, params.vocabulary)

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Fit the tokeniser before the first task."""
        if not self.tokeniser.used:
            (images,) = sample(self.params.tiles)
            self.tokeniser.fit(self.tokenised(images), self.params.iterations)

    def targets(self, images: Tensor, locations: Tensor) -> Tensor:
        """Return the visual tokens at some locations, ``[B, M]`` int64."""
        tokens: Tensor = self.tokeniser(self.tokenised(images), locations)
        return tokens

    def tokenised(self, images: Tensor) -> Tensor:
        """Return images as the tokeniser sees them, ``[B, C, H, W]`` or ``[B, 1, H, W]``."""
        if self.encoder.bands is None:
            return images
        return images.nanmean(dim=1, keepdim=True)

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, averaged over locations and images."""
        return F.cross_entropy(predicted.flatten(0, 1), targets.flatten())
