"""The alternative to this package: lightly's modules in a plain loop over image files, in fp32."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
from lightly.transforms import MAETransform
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rscl_bench.objectives.mae import MAEParams
from rscl_bench.spec import RunSpec


class ImageFiles(Dataset[Any]):
    """Image files; an item is opened on access."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], Any]):
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self._paths[index]) as image:
            return self._transform(image.convert("RGB"))


def mae_files(paths: Sequence[Path], size: int, batch: int, workers: int) -> DataLoader[Any]:
    """Return a loader of shuffled batches of MAE's views, made by lightly."""
    files = ImageFiles(paths, MAETransform(input_size=size))
    return DataLoader(
        files, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
    )


class LightlyMAE(nn.Module):
    """A masked autoencoder built from lightly's modules, with the sizes of a run."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        shape = spec.protocol.backbone.parameters
        params = MAEParams(**spec.method.objective.parameters)
        patch, width = shape["patch_size"], params.decoder_dim
        self.mask_ratio, self.patch_size = params.mask_ratio, patch
        vit = VisionTransformer(
            img_size=spec.protocol.image_size,
            num_classes=0,
            global_pool="token",
            **shape,
        )
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)
        self.embed = nn.Linear(shape["embed_dim"], width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            embed_dim=width,
            depth=params.decoder_depth,
            num_heads=params.decoder_heads,
        )
        self.predict = nn.Linear(width, 3 * patch**2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of images ``[B, 3, H, W]``."""
        length = self.encoder.sequence_length
        shape = len(images), length
        keep, hidden = utils.random_token_mask(shape, self.mask_ratio, device=images.device)
        encoded = self.embed(self.encoder.encode(images=images, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, shape)
        decoded = self.decoder.decode(utils.set_at_index(full, keep, encoded.type_as(full)))
        predicted = self.predict(utils.get_at_index(decoded, hidden))
        patches = utils.patchify(images, self.patch_size)
        target = utils.get_at_index(patches, hidden - 1)
        return nn.functional.mse_loss(predicted, target)


class LightlyLoop:
    """Trains `LightlyMAE` step by step, on an endless stream of batches."""

    def __init__(self, spec: RunSpec, batches: Iterator[Tensor], device: torch.device):
        self.model = LightlyMAE(spec).to(device).train()
        rate = spec.protocol.training.learning_rate
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate)
        self.batches, self.device = batches, device

    def __call__(self, steps: int) -> None:
        """Train for a number of steps."""
        for _ in range(steps):
            images = next(self.batches).to(self.device)
            loss = self.model(images)
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()


def endless(loader: DataLoader[Any]) -> Iterator[Tensor]:
    """Yield the first view of every batch, epoch after epoch."""
    while True:
        for views in loader:
            yield views[0]
