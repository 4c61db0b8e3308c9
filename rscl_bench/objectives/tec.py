"""TEC (Gao et al. 2022, "Towards Sustainable Self-supervised Learning")."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from lightly.models import utils
from lightly.models.modules.masked_vision_transformer_timm import init_weights
from pydantic import Field
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.adapters import EncoderAdapter
from rscl_bench.models.attention import attention
from rscl_bench.models.band_weights import reset_bands
from rscl_bench.models.build import with_bands
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import teacher_copy
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import ObjectiveOutput, StepInfo, TileSampler
from rscl_bench.objectives.embedding import Temperature, in_fp32
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.randomness import seeded
from rscl_bench.spec import Depth, Positive
from rscl_bench.views.view import Share

#: LayerNorm of MAE's blocks.
LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


class TECParams(MAEParams):
    """MAE's parameters for the first task, and targets and decoders of later tasks (authors' code).

    The two decoders of later tasks have the width and the number of heads of MAE's decoder.

    Attributes:
        start: Initial encoder of a later task: new random weights, as in the paper ("random"), or
            the weights at the end of the last task ("continue").
        target_blocks: Number of last blocks of the base model whose mean output is the feature
            target.
        relations: Share of patches whose rows of the base model's attention are targets, in
            addition to the row of the class token. These are the patches that the class token
            attends to most. The authors take 15 of 196.
        attention_temperature: Temperature τ of the base model's attention; the authors' value for
            MAE.
        attention_weight: Weight of the attention loss.
        target_depth: Number of blocks that both decoders share.
    """

    start: Literal["random", "continue"] = "random"
    target_blocks: Positive = 2
    relations: Share = 15 / 196
    attention_temperature: Temperature = 1.8
    attention_weight: Annotated[float, Field(ge=0)] = 1.0
    target_depth: Depth = 2


class TEC(MAE):
    """From the second task on, predicts features and attention of the last task's encoder.

    The last task's encoder is the base model; it sees whole images. A new encoder sees the visible
    patches. Two decoders predict the base model's features at hidden patches and some rows of the
    attention in its last block. The first task has no base model: it trains a masked autoencoder.

    In later tasks, the class token is the input adapter's output for a learnt vector. After every
    update the class token is written into the encoder, so that the encoder works without adapter.
    """

    Params = TECParams
    params: TECParams
    same_parameters = False

    def __init__(self, params: TECParams, encoder: Encoder):
        """Build decoders and adapters for an encoder.

        Args:
            params: Masking, targets and decoders.
            encoder: A ViT.

        Raises:
            SpecError: As in `MAE`, or if ``target_blocks`` exceeds the encoder's depth.
        """
        super().__init__(params, encoder)
        depth = self.vit.params.depth
        if params.target_blocks > depth:
            raise SpecError(
                f"target_blocks {params.target_blocks} is more than the encoder's {depth} blocks; "
                "lower objective.target_blocks."
            )
        self.later = False
        self.base = teacher_copy(self.vit)
        self.conditional = Conditional(params, self.vit).requires_grad_(False)
        self.seed: Tensor  # seeds the random starts of later tasks
        self.register_buffer("seed", torch.randint(2**62, ()))

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss for one view per image; see `Objective.forward`."""
        if not self.later:
            return super().forward(views, generator)
        (images,) = views
        keep, hidden = self.draw(images, generator)
        encoded, states = self.vit.forward_blocks(images, keep, self.conditional.class_token())
        features, logits, rows = self.targets_of(images)
        positions = self.decoder.pos_embed
        decoded = self.conditional([*states[1:-1], encoded], keep, positions)
        predicted = self.conditional.features(utils.get_at_index(decoded[0], hidden))
        target = utils.get_at_index(features, hidden - 1)
        feature_loss = (predicted.float() - target).square().mean()
        predicted_logits = self.conditional.attention_logits(decoded[1], rows)
        relation_loss = in_fp32(self.relation_loss, predicted_logits, logits)
        loss = feature_loss + self.params.attention_weight * relation_loss
        return ObjectiveOutput(loss, (encoded,))

    @torch.no_grad()
    def targets_of(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the base model's targets for whole images ``[B, C, H, W]``.

        Returns:
            features: Features of all patches, normalised over the patches of an image,
                ``[B, N, D]`` float32.
            logits: Logits of the last block's attention between the queries of some tokens and the
                keys of all patches, ``[B, heads, 1 + k, N]`` float32.
            rows: Indices of these tokens, the class token (0) first, ``[B, 1 + k]`` int64.
        """
        _, states = self.base.forward_blocks(images)
        last = torch.stack(states[-self.params.target_blocks :])
        features = last[:, :, 1:].float().mean(dim=0)
        variance = features.var(dim=1, keepdim=True)
        features = (features - features.mean(dim=1, keepdim=True)) / (variance + 1e-6).sqrt()
        block = self.base.blocks[-1]
        attn = block.attn
        queries, keys, _ = by_heads(attn.qkv(block.norm1(states[-2])), 3, attn.num_heads)
        class_token = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
        attended = rows_of(queries, keys, class_token).mean(dim=1)[:, 0]
        count = max(1, round(self.params.relations * attended.shape[1]))
        rows = torch.cat([class_token, 1 + attended.topk(count).indices], dim=1)
        return features, attn.scale * rows_of(queries, keys, rows), rows

    def relation_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy between rows of attention, averaged over rows, heads and images.

        Args:
            predicted: Predicted logits, ``[B, heads, 1 + k, N]`` float32.
            target: The base model's logits, ``[B, heads, 1 + k, N]`` float32.
        """
        expected = F.softmax(target / self.params.attention_temperature, dim=-1)
        return -(expected * F.log_softmax(predicted, dim=-1)).sum(dim=-1).mean()

    # The stream.

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Copy the encoder to the base model, start a new encoder, and choose what is trained."""
        self.later = task > 0
        if self.later:
            self.base.load_state_dict(self.encoder.state_dict())
            if self.params.start == "random":
                self.restart(task)
            self.write_class_token()
        for module in (self.embed, self.decoder, self.predict):
            module.requires_grad_(not self.later)
        self.decoder.pos_embed.requires_grad_(False)
        self.conditional.requires_grad_(self.later)
        self.vit.cls_token.requires_grad_(not self.later)

    def restart(self, task: int) -> None:
        """Draw new weights for encoder, adapters and decoders, from a stream keyed by the task.

        Kernels of named bands start as in the first task, so that the kernels of bands that appear
        later do not depend on when they appear.
        """
        vit = self.vit
        with seeded(int(self.seed), "start", task):
            encoder = ViT(vit.params, vit.image_size, 1 if vit.bands else vit.channels)
            if vit.bands is not None:
                with_bands(encoder, vit.bands)
            conditional = Conditional(self.params, vit)
        self.encoder.load_state_dict(encoder.state_dict())
        reset_bands(self.encoder)
        self.conditional.load_state_dict(conditional.state_dict())

    def after_update(self, info: StepInfo) -> None:
        """Write the new class token into the encoder."""
        if self.later:
            self.write_class_token()

    @torch.no_grad()
    def write_class_token(self) -> None:
        """Set the encoder's class token to the input adapter's output."""
        self.vit.cls_token.copy_(self.conditional.class_token())


class Conditional(nn.Module):
    """Adapters and decoders that align a new encoder with the targets of a base model.

    Gao et al. (2022), "conditional adapter": one adapter is before the encoder, and one adapter
    reads all its blocks. There is one decoder for each of the two targets; both share their blocks.
    """

    def __init__(self, params: TECParams, vit: ViT):
        """Build the module for an encoder.

        Args:
            params: Targets and decoders.
            vit: The encoder, for its shape.
        """
        super().__init__()
        width, dim = vit.feature_dim, params.decoder_dim
        self.heads = vit.params.num_heads
        self.scale: float = width**-0.5
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.input = Mlp(width, 4 * width)
        self.encoder = EncoderAdapter(width, vit.params.depth, 4 * dim)
        self.embed = nn.ModuleList(nn.Linear(width, dim) for _ in range(2))
        self.hidden = nn.ParameterList(torch.empty(1, 1, dim) for _ in range(2))
        self.blocks = nn.Sequential(
            *[
                Block(dim, params.decoder_heads, qkv_bias=True, norm_layer=LAYER_NORM)
                for _ in range(params.target_depth)
            ]
        )
        self.norms = nn.ModuleList(LAYER_NORM(dim) for _ in range(2))
        self.features = nn.Linear(dim, width)
        self.relations = nn.Linear(dim, 2 * width)
        self.apply(init_weights)
        for token in (self.token, *self.hidden):
            nn.init.normal_(token, std=0.02)

    def class_token(self) -> Tensor:
        """Return the encoder's class token, ``[1, 1, D]``."""
        token: Tensor = self.input(self.token)
        return token

    def forward(self, states: Sequence[Tensor], keep: Tensor, positions: Tensor) -> list[Tensor]:
        """Decode the encoder's output for the visible tokens.

        Args:
            states: Outputs of all encoder blocks, one ``[B, K, D]`` per block.
            keep: Indices of the visible tokens, the class token (0) first, ``[B, K]`` int64.
            positions: Positions of all tokens, ``[1, 1 + N, d]``.

        Returns:
            All tokens for the feature target and for the attention target, ``[B, 1 + N, d]`` each.
        """
        adapted = self.encoder(states)
        decoded = []
        for embed, hidden, norm in zip(self.embed, self.hidden, self.norms, strict=True):
            tokens = embed(adapted)
            full = hidden.to(tokens.dtype).repeat(len(tokens), positions.shape[1], 1)
            full = utils.set_at_index(full, keep, tokens) + positions
            with attention(tokens.device, positions.shape[1]):
                decoded.append(norm(self.blocks(full)))
        return decoded

    def attention_logits(self, decoded: Tensor, rows: Tensor) -> Tensor:
        """Return predicted logits of some rows of attention.

        Args:
            decoded: All tokens for the attention target, ``[B, 1 + N, d]``.
            rows: Indices of the tokens whose rows are predicted, ``[B, 1 + k]`` int64.

        Returns:
            ``[B, heads, 1 + k, N]`` float32.
        """
        queries, keys = by_heads(self.relations(decoded), 2, self.heads)
        return self.scale * rows_of(queries, keys, rows)


def by_heads(projected: Tensor, parts: int, heads: int) -> Sequence[Tensor]:
    """Split ``[B, T, parts * D]`` into ``parts`` tensors ``[B, heads, T, D / heads]``."""
    split = projected.reshape(*projected.shape[:2], parts, heads, -1)
    return split.permute(2, 0, 3, 1, 4).unbind(0)


def rows_of(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Return the products of some tokens' queries with the keys of all patches, in float32.

    Args:
        queries: Queries of all tokens, the class token first, ``[B, heads, 1 + N, d]``.
        keys: Keys of all tokens, the class token first, ``[B, heads, 1 + N, d]``.
        rows: Indices of the tokens whose queries are used, ``[B, R]`` int64.

    Returns:
        ``[B, heads, R, N]``.
    """
    index = rows[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3])
    with torch.autocast(queries.device.type, enabled=False):
        return queries.gather(2, index).float() @ keys[:, :, 1:].transpose(2, 3).float()
