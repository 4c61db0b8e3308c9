"""A trained encoder outside of a run: features of new images, and the model for timm."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import EncoderDescription, read_encoder
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import PixelScaling, places_of_rgb, whole_view

_BATCH = 128


class PretrainedEncoder(nn.Module):
    """An encoder that a run left, in evaluation mode, with the description of its input.

    Attributes:
        encoder: The network.
        description: Where the encoder comes from, and the images of every task.
        bands: Bands of the input, in order.
        image_size: Side in pixels to which images are resized.
        feature_dim: Width D of a feature.
    """

    def __init__(self, encoder: Encoder, description: EncoderDescription):
        super().__init__()
        self.encoder, self.description = encoder, description
        self.bands, self.image_size = description.bands, description.image_size
        self.feature_dim = encoder.feature_dim
        self.eval()

    @torch.inference_mode()
    def features(
        self,
        images: Tensor | NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32],
        task: str | None = None,
        normalisation: Normalisation | None = None,
    ) -> Tensor:
        """Encode images as probes do: whole, resized to the input, normalised, mean-pooled.

        Args:
            images: ``[B, C, H, W]``, raw pixels in the declared unit (``description.inputs``),
                with the bands of the encoder in their order. Bytes are rounded after resizing, as
                in a run.
            task: Task whose mean and deviation per band normalise the pixels; None for the last.
            normalisation: Mean and deviation per band of your own images, in place of a task's.

        Returns:
            ``[B, D]`` float32, on the device of the encoder.

        Raises:
            SpecError: If the images do not fit, or the encoder was not trained on the task.
        """
        if images.ndim != 4 or images.shape[1] != len(self.bands) or 0 in images.shape:
            raise SpecError(
                f"The images are {list(images.shape)}; this encoder takes "
                f"[B, {len(self.bands)}, H, W] with the bands {', '.join(self.bands)}."
            )
        scaling = self._scaling(task, normalisation)
        features = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            # A copy, since NumPy's memory maps cannot be written and torch warns of such arrays.
            pixels = batch if isinstance(batch, Tensor) else torch.from_numpy(np.array(batch))
            tiles = pixels.to(self._device).permute(0, 2, 3, 1).contiguous()
            view = whole_view(tiles, self.image_size, scaling)
            features.append(self.encoder.pool(self.encoder(view)).float())
        return torch.cat(features)

    def forward(self, views: Tensor) -> Tensor:
        """Return features ``[B, D]`` of normalised images ``[B, C, image_size, image_size]``."""
        return self.encoder.pool(self.encoder(views))

    def to_timm(self) -> nn.Module:
        """Return a copy of the network as timm's model.

        A ViT is a ``timm.models.VisionTransformer``: the mean of its patch tokens,
        ``forward_features(views)[:, 1:].mean(1)``, is the feature of a normalised image.
        """
        return deepcopy(self.encoder.timm_model())

    @property
    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def _scaling(self, task: str | None, normalisation: Normalisation | None) -> PixelScaling:
        described = self.description.input_of(task)
        if normalisation is None:
            normalisation = Normalisation(torch.tensor(described.mean), torch.tensor(described.std))
        scaling = PixelScaling(normalisation, described.scale, places_of_rgb(self.bands))
        return scaling.to(self._device)


def load_pretrained(path: Path) -> PretrainedEncoder:
    """Load the encoder of a file.

    Raises:
        ArtefactError: If the file is missing, damaged, or no encoder of this package.
        SpecError: If the backbone is not installed.
    """
    return PretrainedEncoder(*read_encoder(path))
