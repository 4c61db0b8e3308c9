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
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import ObjectiveOutput, StepInfo, TileSampler
from rscl_bench.objectives.embedding import Temperature, in_fp32
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.objectives.momentum import teacher_copy
from rscl_bench.randomness import seeded
from rscl_bench.spec import Positive
from rscl_bench.views.view import Share

#: As MAE's blocks have it.
LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


class TECParams(MAEParams):
    """MAE's for the first task; targets, adapters and decoders of later ones (Gao et al., code).

    Both decoders are as wide, and have as many heads, as the first task's.

    Attributes:
        start: Where the encoder of a later task starts: from new random weights, as the paper's,
            or where the last task left it.
        target_blocks: Last blocks of the base model whose mean is the target of features.
        relations: Share of patches whose rows of the base model's attention are targets, besides
            that of the class token: those it attends to most. The authors' is 15 of 196.
        attention_temperature: τ of the base model's attention; the authors' for MAE.
        attention_weight: Weight of the loss of attention.
        target_depth: Blocks that both decoders share.
    """

    start: Literal["random", "continue"] = "random"
    target_blocks: Positive = 2
    relations: Share = 15 / 196
    attention_temperature: Temperature = 1.8
    attention_weight: Annotated[float, Field(ge=0)] = 1.0
    target_depth: Positive = 2


class TEC(MAE):
    """From the second task on, predicts features and attention of the last task's encoder.

    That encoder, the base model, sees images whole; a new one sees a part of them, and two decoders
    predict the base model's features at hidden patches and some rows of its last attention. The
    first task has no base model, and is a masked autoencoder.

    The class token of later tasks is what the input adapter makes of a vector of its own; it is
    written into the encoder after every update, so that the encoder needs no adapter.
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
            SpecError: As `MAE`; or if more blocks are targets than there are.
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
        self.seed: Tensor
        self.register_buffer("seed", torch.randint(2**62, ()))  # of where later tasks start

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss of one view per image; see `Objective.forward`."""
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
        loss = (predicted.float() - target).square().mean()
        attended = self.conditional.attention_logits(decoded[1], rows)
        relation = in_fp32(self.relation_loss, attended, logits)
        return ObjectiveOutput(loss + self.params.attention_weight * relation, (encoded,))

    @torch.no_grad()
    def targets_of(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the base model makes of whole images.

        Returns:
            Features of all patches ``[B, N, D]`` float32, normalised over the patches of an image;
            logits of its last attention, of some tokens' queries and all patches' keys
            ``[B, heads, 1 + k, N]``; which tokens these are ``[B, 1 + k]``, the class token (0)
            first.
        """
        _, states = self.base.forward_blocks(images)
        last = torch.stack(states[-self.params.target_blocks :])
        features = last[:, :, 1:].float().mean(dim=0)
        variance = features.var(dim=1, keepdim=True)
        features = (features - features.mean(dim=1, keepdim=True)) / (variance + 1e-6).sqrt()
        block = self.base.blocks[-1]
        own = block.attn
        queries, keys, _ = by_heads(own.qkv(block.norm1(states[-2])), 3, own.num_heads)
        first = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
        seen = rows_of(queries, keys, first).mean(dim=1)[:, 0]
        count = max(1, round(self.params.relations * seen.shape[1]))
        rows = torch.cat([first, 1 + seen.topk(count).indices], dim=1)
        return features, own.scale * rows_of(queries, keys, rows), rows

    def relation_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of rows of attention, averaged over rows, heads and images.

        Args:
            predicted: Logits ``[B, heads, 1 + k, N]``.
            target: Those of the base model.
        """
        wanted = F.softmax(target / self.params.attention_temperature, dim=-1)
        return -(wanted * F.log_softmax(predicted, dim=-1)).sum(dim=-1).mean()

    # The stream.

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Keep the encoder as the base model, start a new one, and choose what is trained."""
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
        """Give encoder, adapters and decoders new random weights, a function of the task."""
        vit = self.vit
        with seeded(int(self.seed), "start", task):
            encoder = ViT(vit.params, vit.image_size, vit.channels)
            conditional = Conditional(self.params, vit)
        self.encoder.load_state_dict(encoder.state_dict())
        self.conditional.load_state_dict(conditional.state_dict())

    def after_update(self, info: StepInfo) -> None:
        """Write the new class token."""
        if self.later:
            self.write_class_token()

    @torch.no_grad()
    def write_class_token(self) -> None:
        """Set the encoder's class token to what the input adapter makes."""
        self.vit.cls_token.copy_(self.conditional.class_token())


class Conditional(nn.Module):
    """Adapters and decoders that align a new encoder with the targets of a base model.

    Gao et al. (2022), "conditional adapter": one before the encoder, one over all its blocks. Two
    decoders, one for each target, share their blocks.
    """

    def __init__(self, params: TECParams, vit: ViT):
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
        """Return what the encoder gets for a class token, ``[1, 1, D]``."""
        token: Tensor = self.input(self.token)
        return token

    def forward(self, states: Sequence[Tensor], keep: Tensor, positions: Tensor) -> list[Tensor]:
        """Decode what an encoder made of some tokens.

        Args:
            states: Tokens after every block, each ``[B, K, D]``.
            keep: Which tokens these are, ``[B, K]``, the class token (0) first.
            positions: Of all tokens, ``[1, 1 + N, d]``.

        Returns:
            All tokens for the features, and for the attention, each ``[B, 1 + N, d]``.
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
        """Return the predicted logits of rows ``[B, 1 + k]``: ``[B, heads, 1 + k, N]`` float32."""
        queries, keys = by_heads(self.relations(decoded), 2, self.heads)
        return self.scale * rows_of(queries, keys, rows)


def by_heads(projected: Tensor, parts: int, heads: int) -> Sequence[Tensor]:
    """Split ``[B, T, parts * D]`` into parts of ``[B, heads, T, D / heads]``."""
    split = projected.reshape(*projected.shape[:2], parts, heads, -1)
    return split.permute(2, 0, 3, 1, 4).unbind(0)


def rows_of(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Return products of some tokens' queries with the keys of all patches, in float32.

    Args:
        queries: ``[B, heads, 1 + N, d]``.
        keys: The same, the class token's first.
        rows: Whose queries, ``[B, R]``.

    Returns:
        ``[B, heads, R, N]``.
    """
    index = rows[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3])
    with torch.autocast(queries.device.type, enabled=False):
        return queries.gather(2, index).float() @ keys[:, :, 1:].transpose(2, 3).float()
