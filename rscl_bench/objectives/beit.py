"""BEiT (Bao et al. 2022, "BEiT: BERT Pre-Training of Image Transformers")."""

import torch
import torch.nn.functional as F
from lightly.models import utils
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import TileSampler
from rscl_bench.objectives.kmeans import spherical_kmeans
from rscl_bench.objectives.masking import BlockMasked, BlockMaskingParams, Ratio, require_maskable
from rscl_bench.spec import Positive
from rscl_bench.views.view import View

#: Patches per visual token that the tokeniser must have seen at the least.
_PATCHES_PER_CODE = 10
#: Length of a centred patch, in deviations of its band, up to which it is rounding of a flat one.
_FLAT = 1e-3


class BEiTParams(BlockMaskingParams):
    """View, masking and tokeniser (Bao et al. 2022, Section 2; view and masking as their code).

    Attributes:
        view: How an image is seen.
        vocabulary: Visual tokens; fewer are used where the tokeniser sees too few patches.
        tiles: Tiles of the first task that the tokeniser is fitted on.
        iterations: Of k-means.
    """

    view: View = View(min_scale=0.08, jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4)
    mask_ratio: Ratio = 75 / 196
    min_block: Positive = 16
    vocabulary: Positive = 8192
    tiles: Positive = 512
    iterations: Positive = 10


class PatchTokeniser(nn.Module):
    """Tokens of patches: which of many directions a patch's pixels point to.

    A patch is centred, over all its pixels and bands, and scaled to length 1, so that neither
    brightness nor contrast tell patches apart. Codes are found by spherical k-means on one sample,
    and then frozen.

    Attributes:
        codebook: Directions, ``[vocabulary, p * p * C]``; those in use come first.
        used: How many are in use, 0 before they are fitted.
    """

    codebook: Tensor
    used: Tensor

    def __init__(self, patch_size: int, channels: int, vocabulary: int):
        super().__init__()
        self.patch_size = patch_size
        self.register_buffer("codebook", torch.zeros(vocabulary, patch_size**2 * channels))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))

    def directions(self, images: Tensor) -> Tensor:
        """Return the patches of images as directions, ``[B, N, p * p * C]``; 0 for flat ones."""
        patches = utils.patchify(images, self.patch_size)
        centred = patches - patches.mean(dim=-1, keepdim=True)
        length = centred.norm(dim=-1, keepdim=True)
        return torch.where(length > _FLAT, centred / length, 0.0)

    @torch.no_grad()
    def fit(self, images: Tensor, iterations: int) -> None:
        """Find codes, from patches at even distances on.

        Args:
            images: ``[B, C, H, W]`` float32, in no order.
            iterations: Of k-means.
        """
        patches = self.directions(images).flatten(0, 1)
        patches = patches[patches.any(dim=1)]
        used = min(len(self.codebook), max(1, len(patches) // _PATCHES_PER_CODE))
        start = patches[:: max(1, len(patches) // used)][:used]
        self.codebook.zero_()
        self.codebook[: len(start)], _ = spherical_kmeans(patches, start, iterations)
        self.used.fill_(len(start))

    def forward(self, images: Tensor, places: Tensor) -> Tensor:
        """Return the tokens of some patches, row by row ``[B, M]``: ``[B, M]`` int64."""
        patches: Tensor = utils.get_at_index(self.directions(images), places)
        similarity = patches @ self.codebook.T
        number = torch.arange(len(self.codebook), device=images.device)
        return similarity.masked_fill_(number >= self.used, -torch.inf).argmax(dim=-1)


class BEiT(BlockMasked):
    """Predicts the visual tokens of hidden places (Section 2.3)."""

    Params = BEiTParams

    def __init__(self, params: BEiTParams, encoder: Encoder):
        encoder = require_maskable(encoder, "beit")
        super().__init__(params, encoder, params.view, params.vocabulary)
        self.params = params
        self.tokeniser = PatchTokeniser(encoder.feature_stride, encoder.channels, params.vocabulary)

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Fit the tokeniser, once in a stream."""
        if not self.tokeniser.used:
            (images,) = sample(self.params.tiles)
            self.tokeniser.fit(images, self.params.iterations)

    def targets(self, images: Tensor, places: Tensor) -> Tensor:
        """Return the visual tokens, ``[B, M]`` int64."""
        tokens: Tensor = self.tokeniser(images, places)
        return tokens

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(predicted.flatten(0, 1), targets.flatten())
