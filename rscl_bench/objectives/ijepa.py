"""I-JEPA (Assran et al. 2023, "Self-Supervised Learning from Images with a ... Architecture")."""

import math
from collections.abc import Sequence
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from lightly.models import utils
from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.attention import attention
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import ema_update, teacher_copy
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo, TeacherParams
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Depth, Fraction, Positive
from rscl_bench.views.masks import rectangles
from rscl_bench.views.view import Share, View

Range = tuple[Share, Share]
Aspects = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

#: Number of positions tried for a context block before it may overlap a target (authors' code).
_ATTEMPTS = 20


class IJEPAParams(TeacherParams):
    """View, blocks, predictor and teacher (Assran et al. 2023, Section 3 and Appendix A).

    Attributes:
        view: How the view of an image is made.
        targets: Number T of target blocks of an image.
        target_scale: Range of a target block's area, as a share of the image.
        target_aspect: Range of a target block's aspect ratio, height over width.
        context_scale: Range of the context block's area, as a share of the image. The context block
            is a square.
        min_context: A context must have more patches than this number. The number is for an image
            of 14 × 14 patches and scales with the image.
        predictor_dim: Width of the predictor.
        predictor_depth: Number of predictor blocks.
        predictor_heads: Number of attention heads of each predictor block.
        momentum: Momentum of the target encoder at the start of a task. It rises linearly to 1.
    """

    view: View = View(min_scale=0.3)
    targets: Positive = 4
    target_scale: Range = (0.15, 0.2)
    target_aspect: Aspects = (0.75, 1.5)
    context_scale: Range = (0.85, 1.0)
    min_context: Positive = 10
    predictor_dim: Positive = 384
    predictor_depth: Depth = 6
    predictor_heads: Positive = 12
    momentum: Fraction = 0.996


class IJEPA(Objective):
    """Predicts a momentum encoder's patch tokens in target blocks from a context block."""

    Params = IJEPAParams
    momentum = True
    per_image_loss = True
    stateless_loss = True
    encoder: ViT

    def __init__(self, params: IJEPAParams, encoder: Encoder):
        """Build predictor and target encoder.

        Args:
            params: View, blocks, predictor and teacher.
            encoder: A ViT.

        Raises:
            SpecError: If the encoder cannot leave patches out, or if a size does not fit.
        """
        super().__init__(params, encoder)
        if not isinstance(encoder, ViT):
            raise SpecError(
                f"Objective 'i-jepa' needs an encoder that can leave patches out, which "
                f"{type(encoder).__name__} cannot; set backbone.name = 'vit'."
            )
        if params.view.size != 1:
            raise SpecError(
                f"view.size {params.view.size} does not fit the predictor's positions, which are "
                "those of a whole image; leave it at 1."
            )
        if params.predictor_dim % 4 or params.predictor_dim % params.predictor_heads:
            raise SpecError(
                f"predictor_dim {params.predictor_dim} must be a multiple of 4 and of "
                f"predictor_heads ({params.predictor_heads})."
            )
        self.params = params
        self.views = (params.view,)
        self.side = math.isqrt(encoder.num_patches)
        self.predictor = IJEPAPredictorTIMM(
            num_patches=encoder.num_patches,
            depth=params.predictor_depth,
            mlp_dim=encoder.feature_dim,
            predictor_embed_dim=params.predictor_dim,
            num_heads=params.predictor_heads,
        )
        _initialise(self.predictor)
        self.teacher = teacher_copy(encoder)

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the smooth L1 loss over all target blocks; see `Objective.forward`."""
        (images,) = views
        context, targets = self.draw(len(images), generator)
        context, targets = context.to(images.device), targets.to(images.device)
        # Patches count from 1 here: token 0 is the class token, which the context keeps.
        keep = torch.cat([torch.zeros_like(context[:, :1]), context + 1], dim=1)
        encoded = self.encoder(images, keep)
        with attention(images.device, context.shape[1] + targets.shape[2]):
            predicted = self.predictor(encoded[:, 1:], [context], list(targets.unbind(dim=1)))
        with torch.no_grad():
            tokens = self.tokens(images)
            expected = torch.cat(
                [utils.get_at_index(tokens, block) for block in targets.unbind(dim=1)]
            )
        loss = F.smooth_l1_loss(predicted.float(), expected)
        return ObjectiveOutput(loss, (encoded,))

    def tokens(self, images: Tensor) -> Tensor:
        """Return the target encoder's normalised patch tokens, ``[B, N, D]`` float32."""
        patches = self.teacher(images)[:, 1:].float()
        return F.layer_norm(patches, patches.shape[-1:])

    def after_update(self, info: StepInfo) -> None:
        """Update the target encoder."""
        start = self.params.momentum
        ema_update(self.teacher, self.encoder, start + (1 - start) * info.progress)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the blocks of each image (Section 3, and the authors' code).

        All images of a batch have blocks of the same size. The targets are removed from the
        context. If too few patches remain at every tried position, the context may keep the last
        target, then the last two targets, and so on. All contexts are then cut, from the bottom, to
        the size of the smallest context of the batch.

        Block sizes decide tensor shapes. The blocks are therefore drawn on the CPU, from a stream
        that depends on the seed of ``generator``, so that no device has to be synchronised.

        Args:
            count: Number B of images.
            generator: Source of randomness.

        Returns:
            Indices of the patches, counted row by row: of the contexts ``[B, K]`` int64, and of the
            targets ``[B, T, M]`` int64.
        """
        params, side = self.params, self.side
        host = torch_generator("cpu", generator.initial_seed(), "i-jepa blocks")
        height, width = self._size(params.target_scale, params.target_aspect, host)
        targets = self._blocks((count, params.targets), height, width, host)
        height, width = self._size(params.context_scale, (1.0, 1.0), host)
        blocks = self._blocks((count, _ATTEMPTS), height, width, host)
        removed = [targets[:, :kept].any(dim=1) for kept in range(params.targets, -1, -1)]
        free = ~torch.stack(removed, dim=1)
        contexts = (blocks[:, None] & free[:, :, None]).flatten(1, 2)
        is_enough = contexts.sum(dim=(2, 3)) > params.min_context * (side / 14) ** 2
        is_enough[:, -1] = True  # the last resort
        first = is_enough.byte().argmax(dim=1)
        context = contexts[torch.arange(count), first]
        return _patches_of(context), _patches_of(targets)

    def _size(self, scale: Range, aspect: Aspects, generator: torch.Generator) -> tuple[int, int]:
        # Area and aspect ratio share one draw, as in the authors' code.
        draw = float(torch.rand((), generator=generator))
        area = int(self.side**2 * (scale[0] + draw * (scale[1] - scale[0])))
        ratio = aspect[0] + draw * (aspect[1] - aspect[0])
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(max(height, 1), self.side), min(max(width, 1), self.side)

    def _blocks(
        self, shape: tuple[int, int], height: int, width: int, generator: torch.Generator
    ) -> Tensor:
        sizes = torch.stack([torch.full(shape, length) for length in (height, width)])
        return rectangles(sizes, torch.rand(2, *shape, generator=generator), self.side)


def _patches_of(masks: Tensor) -> Tensor:
    """Return the indices of the first true patches, row by row, equally many for every mask."""
    flat = masks.flatten(-2)
    count = int(flat.sum(dim=-1).min())
    return flat.byte().argsort(dim=-1, descending=True, stable=True)[..., :count]


def _initialise(predictor: IJEPAPredictorTIMM) -> None:
    """Initialise the weights of a predictor as in the authors' code."""
    nn.init.trunc_normal_(predictor.decoder.mask_token, std=0.02)
    for module in predictor.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(cast("Tensor", module.bias))
    with torch.no_grad():
        for depth, block in enumerate(predictor.decoder.blocks, start=1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight /= math.sqrt(2 * depth)
