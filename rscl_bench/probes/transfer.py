"""Probes that train on labelled images: what is tuned is in a copy of the encoder, or beside it."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import TrainingError
from rscl_bench.models.encoder import Encoder, evaluating
from rscl_bench.models.optimiser import learning_rate, weight_decay_groups
from rscl_bench.probes.base import BaseProbe, Labels, Scores
from rscl_bench.probes.images import EvalContext, Images, whole_batches
from rscl_bench.randomness import seeded, torch_generator
from rscl_bench.spec import Positive, Spec
from rscl_bench.tiles.loader import TileLoader
from rscl_bench.views.view import View, make_view

_SEED = 0  # the same for every method and seed of a run, which have no part in a probe


class TransferParams(Spec):
    """How a probe is trained.

    Optimiser and schedule are those with which He et al. (2022), Table 9, tune a whole encoder; the
    rate suits archives of some thousand images.

    Attributes:
        epochs: Passes over the training tiles.
        batch_size: Images of a step; all where there are fewer.
        learning_rate: Peak rate of AdamW, absolute.
        warmup_epochs: Epochs of linear warm-up, counted per step.
        weight_decay: Of parameters of two and more dimensions.
    """

    epochs: Positive = 50
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_epochs: Annotated[float, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.05


class TransferProbe(BaseProbe):
    """Trains a classifier on labelled images, through what `adapt` makes of a copy of the encoder.

    The classifier is a LayerNorm and one linear layer on pooled features, its loss binary
    cross-entropy averaged over labels. Training images are cropped and flipped as the protocol
    crops them, scored ones are whole. The encoder itself stays as it is, to the bit. Subclasses set
    `Params` and write `adapt`; `score` is sealed.
    """

    Params: ClassVar[type[TransferParams]] = TransferParams
    params: TransferParams

    @abstractmethod
    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return a model from images ``[B, C, H, W]`` to features ``[B, D]``.

        Its parameters that require gradients are trained. Torch's global random stream is seeded.

        Args:
            encoder: A copy, to keep or to change.

        Raises:
            SpecError: If this kind of encoder cannot be adapted so.
        """

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return AdamW's groups of what is trained; ``lr_scale`` is a group's part of the rate."""
        return weight_decay_groups([model], self.params.weight_decay)

    @final
    def score(
        self,
        encoder: Encoder,
        train: Images,
        train_labels: Labels,
        asked: Mapping[str, Images],
        setting: EvalContext,
    ) -> dict[str, Scores]:
        """Train once, and return one score per image and label; higher means more likely present.

        Args:
            encoder: The encoder; it stays as it is.
            train: Training tiles, N of them.
            train_labels: ``[N, L]`` uint8, 0 or 1.
            asked: Tiles to score, by role.
            setting: How images reach the encoder.

        Returns:
            ``[M, L]`` float64 log-odds by role. Equal inputs give equal scores.

        Raises:
            SpecError: If this kind of encoder cannot be adapted so.
            TrainingError: If a loss or score is not finite.
        """
        with seeded(_SEED, "probe"):
            model = self.adapt(deepcopy(encoder)).to(setting.device)
            linear = nn.Linear(encoder.feature_dim, train_labels.shape[1])
            nn.init.trunc_normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
            head = nn.Sequential(nn.LayerNorm(encoder.feature_dim), linear).to(setting.device)
        with torch.enable_grad():
            self._train(model, head, train, train_labels, setting)
        classifier = nn.Sequential(model, head)
        return {role: _scores(classifier, images, setting) for role, images in asked.items()}

    def _train(
        self, model: nn.Module, head: nn.Module, train: Images, labels: Labels, setting: EvalContext
    ) -> None:
        params = self.params
        groups = [*self.groups(model), *weight_decay_groups([head], params.weight_decay)]
        optimiser = torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.999))
        targets = torch.zeros(len(train.store), labels.shape[1], device=setting.device)
        targets[torch.from_numpy(train.indices)] = torch.from_numpy(labels).to(targets)
        batch = min(params.batch_size, len(train.indices))
        tiles = [(0, torch.from_numpy(train.indices))]
        loader = TileLoader([train.store], tiles, batch, _SEED, 0)
        steps, warmup = params.epochs * len(loader), round(params.warmup_epochs * len(loader))
        model.train()
        for step, (indices, images) in enumerate(_batches(loader, params.epochs, setting)):
            rate = learning_rate(step, steps, warmup, params.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            with setting.autocast():
                logits = head(model(images))
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets[indices])
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss of probe '{type(self).__name__}' is {loss.item()} at step {step}; "
                    "lower its learning_rate, or see whether the encoder has diverged."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def _batches(
    loader: TileLoader, epochs: int, setting: EvalContext
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices ``[B]`` and augmented images ``[B, C, H, W]`` of every step."""
    size, device, archive = setting.image_size, setting.device, setting.archive
    for epoch in range(epochs):
        for step, ((_, indices, raw),) in enumerate(loader):
            generator = torch_generator(device, _SEED, "probe views", epoch, step)
            tiles, views = raw.to(device), setting.views
            images, _ = make_view(tiles, View(), size, views, archive, generator, generator)
            yield indices, images


def _scores(classifier: nn.Module, images: Images, setting: EvalContext) -> Scores:
    parts = []
    with evaluating(classifier), torch.inference_mode(), setting.autocast():
        for batch in whole_batches(images, setting):
            parts.append(classifier(batch).float().cpu().numpy())
    scores: Scores = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(scores).all():
        raise TrainingError(
            "A trained probe gives scores that are not finite; lower its learning_rate, or see "
            "whether the encoder has diverged."
        )
    return scores
