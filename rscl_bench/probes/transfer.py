"""Probes that train on labelled images: a copy of the encoder, or an adapter of a frozen copy."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from rscl_bench.errors import SpecError, TrainingError
from rscl_bench.models.batch_norm import has_batch_norm
from rscl_bench.models.encoder import Encoder, evaluating
from rscl_bench.models.optimiser import learning_rate, warmup_steps, weight_decay_groups
from rscl_bench.probes.base import BaseProbe, Labels, Scores, check_labels
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset, whole_batches
from rscl_bench.randomness import seeded, torch_generator
from rscl_bench.spec import Positive, Spec, check_warmup
from rscl_bench.tiles.loader import TileLoader
from rscl_bench.views.view import View, make_view

_SEED = 0  # equal for all methods and seeds of a run, so that only encoders differ


class TransferParams(Spec):
    """How a probe is trained.

    Optimiser and schedule are those of He et al. (2022), Table 9, for end-to-end fine-tuning. The
    default rate suits archives of some thousand images.

    Attributes:
        epochs: Passes over the training tiles.
        batch_size: Images of a step; all images if the training split has fewer.
        learning_rate: Peak learning rate of AdamW; not scaled by the batch size.
        warmup_epochs: Epochs of linear warm-up, counted per step; fewer than ``epochs``.
        weight_decay: Weight decay of parameters with two or more dimensions.
    """

    epochs: Positive = 50
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_epochs: Annotated[float, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.05

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TransferParams":
        check_warmup(self.epochs, self.warmup_epochs)
        return self


class TransferProbe(BaseProbe):
    """A probe that trains a classifier on labelled images.

    Subclasses set `Params` and write the hook `adapt`, which makes a model from a copy of the
    encoder. The classifier is a LayerNorm and one linear layer on the features of that model. The
    loss is the binary cross-entropy, averaged over labels. Training images are cropped and flipped
    as the protocol says; scored images are whole tiles.
    """

    Params: ClassVar[type[TransferParams]] = TransferParams
    params: TransferParams

    @abstractmethod
    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return a model from images ``[B, C, H, W]`` to features ``[B, D]``.

        Parameters that require gradients are trained. D is the encoder's `feature_dim`. Torch's
        global random generator is seeded during the call.

        Args:
            encoder: A copy of the encoder; the model may hold or change the copy.

        Raises:
            SpecError: If this kind of encoder cannot be adapted.
        """

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return AdamW's parameter groups of a model that `adapt` returned.

        A group's optional ``lr_scale`` multiplies the learning rate of the group.
        """
        return weight_decay_groups([model], self.params.weight_decay)

    @final
    def evaluate(
        self,
        encoder: FrozenEncoder,
        tiles: Mapping[str, TileSubset],
        train_labels: Labels,
        context: EvalContext,
    ) -> dict[str, Scores]:
        """Train once, and score the tiles of every other role; see `BaseProbe.evaluate`.

        The scores are log-odds.
        """
        check_labels(train_labels, len(tiles["train"].indices))
        with seeded(_SEED, "probe"):
            copied = encoder.copy()
            width = copied.feature_dim
            model = self.adapt(copied).to(context.device)
            linear = nn.Linear(width, train_labels.shape[1])
            nn.init.trunc_normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
            head = nn.Sequential(nn.LayerNorm(width), linear).to(context.device)
        with torch.enable_grad():
            self._train(model, head, tiles["train"], train_labels, context)
        classifier = nn.Sequential(model, head)
        return {
            role: _scores(classifier, subset, context)
            for role, subset in tiles.items()
            if role != "train"
        }

    def _train(
        self,
        model: nn.Module,
        head: nn.Module,
        train: TileSubset,
        labels: Labels,
        context: EvalContext,
    ) -> None:
        params = self.params
        groups = [*self.parameter_groups(model), *weight_decay_groups([head], params.weight_decay)]
        optimiser = torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.999))
        targets = torch.zeros(len(train.store), labels.shape[1], device=context.device)
        targets[torch.from_numpy(train.indices)] = torch.from_numpy(labels).to(targets)
        batch_size = min(params.batch_size, len(train.indices))
        if batch_size < 2 and has_batch_norm(model):
            raise SpecError(
                f"Probe '{type(self).__name__}' trains batch normalisation, so a batch must have "
                f"at least 2 images; raise its batch_size (now {batch_size})."
            )
        task_tiles = [(0, torch.from_numpy(train.indices))]
        loader = TileLoader([train.store], task_tiles, batch_size, _SEED, 0)
        steps = params.epochs * len(loader)
        warmup = warmup_steps(params.warmup_epochs, len(loader), steps)
        model.train()
        for step, (indices, images) in enumerate(_batches(loader, params.epochs, context)):
            rate = learning_rate(step, steps, warmup, params.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            with context.autocast():
                logits = head(model(images))
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets[indices])
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss of probe '{type(self).__name__}' is {loss.item()} at step {step}; "
                    "lower the probe's learning_rate, or check whether the encoder has diverged."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def _batches(
    loader: TileLoader, epochs: int, context: EvalContext
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tile indices ``[B]`` and augmented images ``[B, C, H, W]`` of every step."""
    size, device, scaling = context.image_size, context.device, context.scaling
    for epoch in range(epochs):
        for step, ((_, indices, raw),) in enumerate(loader):
            generator = torch_generator(device, _SEED, "probe views", epoch, step)
            tiles, views = raw.to(device), context.views
            images, _ = make_view(tiles, View(), size, size, views, scaling, generator, generator)
            yield indices, images


def _scores(classifier: nn.Module, tiles: TileSubset, context: EvalContext) -> Scores:
    """Return the log-odds ``[M, L]`` of whole tiles."""
    logits = []
    with evaluating(classifier), torch.inference_mode(), context.autocast():
        for images in whole_batches(tiles, context):
            logits.append(classifier(images).float().cpu().numpy())
    scores: Scores = np.concatenate(logits).astype(np.float64)
    if not np.isfinite(scores).all():
        raise TrainingError(
            "A trained probe gives scores that are not finite; lower the probe's learning_rate, or "
            "check whether the encoder has diverged."
        )
    return scores
