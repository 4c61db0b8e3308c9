"""Encode new images with the encoder of a finished run, or convert the encoder to timm's model."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rscl_bench.encoder_bands import Channels, selected
from rscl_bench.errors import SpecError
from rscl_bench.models.band_convolution import BandConvolution
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import EncoderDescription, read_encoder
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import PixelScaling, band_scaling, whole_view

_BATCH = 128


class PretrainedEncoder(nn.Module):
    """The encoder of a finished run, in evaluation mode, with the description of its input.

    Attributes:
        encoder: The network.
        description: The run of the encoder, and the input of every task.
        bands: Names of the bands of an image of the last task, in their order.
        image_size: Side in pixels of the encoder's input; images are resized to this side.
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
        """Encode whole images as probes do: resize, normalise, encode, and pool.

        Args:
            images: ``[B, C, H, W]``, raw pixels in the declared unit (``description.inputs``),
                with the bands of the task in their order. Pixels of 8 bits are rounded after
                resizing, as in a run.
            task: Task whose bands the images have, and whose mean and deviation per band normalise
                the pixels; None for the last task.
            normalisation: Mean and deviation per band of your own images, in place of a task's.

        Returns:
            ``[B, D]`` float32, on the device of the encoder.

        Raises:
            SpecError: If the images do not fit, or the encoder was not trained on the task.
        """
        bands = self.description.input_of(task).bands
        if images.ndim != 4 or images.shape[1] != len(bands) or 0 in images.shape:
            raise SpecError(
                f"The images are {list(images.shape)}; this encoder takes "
                f"[B, {len(bands)}, H, W] with the bands {', '.join(bands)}."
            )
        scaling = self.pixel_scaling(task, normalisation)
        features = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            # The copy is writable; torch warns of read-only arrays, such as NumPy's memory maps.
            pixels = batch if isinstance(batch, Tensor) else torch.from_numpy(np.array(batch))
            tiles = pixels.to(self.device).permute(0, 2, 3, 1).contiguous()
            view = whole_view(tiles, self.image_size, scaling)
            features.append(self.encoder.probed(self.encoder(view)).float())
        return torch.cat(features)

    def forward(self, views: Tensor) -> Tensor:
        """Return features ``[B, D]`` of normalised images ``[B, C, image_size, image_size]``.

        Where images differ in bands, C are the channels of ``description.channels``, NaN in those
        that an image lacks.
        """
        return self.encoder.probed(self.encoder(views))

    def to_timm(self, task: str | None = None) -> nn.Module:
        """Return a copy of the network as timm's model, in evaluation mode.

        The output of the copy for normalised images ``[B, C, image_size, image_size]`` is the
        feature ``[B, D]``, equal to `forward` to the last bit for ``vit``, ``swin`` and ``resnet``.
        A ViT is a ``timm.models.VisionTransformer``, whose ``global_pool`` is "avg", or "token"
        where the class token is probed.

        Where images differ in bands, the copy takes images of one task: its first convolution is an
        ordinary one, with the kernels of the bands of that task, summed in the order of the task.
        Features are then equal but for the order of this sum.

        Args:
            task: Task whose bands the copy takes; None for the last task.

        Raises:
            SpecError: If the encoder was not trained on the task.
        """
        encoder = deepcopy(self.encoder)
        places = self.description.input_of(task).places
        if places is not None and encoder.first_convolution is not None:
            first = encoder.get_submodule(encoder.first_convolution)
            assert isinstance(first, BandConvolution)
            encoder.set_submodule(encoder.first_convolution, first.of_bands(places))
        return encoder.pooling_timm_model().eval()

    @property
    def device(self) -> torch.device:
        """Device of the encoder."""
        return next(self.encoder.parameters()).device

    def pixel_scaling(
        self, task: str | None = None, normalisation: Normalisation | None = None
    ) -> PixelScaling:
        """Return how pixels reach the encoder, on its device; arguments as in `features`.

        Raises:
            SpecError: If the encoder was not trained on the task.
        """
        described = self.description.input_of(task)
        if normalisation is None:
            normalisation = Normalisation(torch.tensor(described.mean), torch.tensor(described.std))
        bands, mode = described.bands, self.description.band_mode
        channels = None
        if described.places is not None:
            channels = Channels(described.places, self.encoder.channels)
        scaling = band_scaling(
            normalisation, described.scale, bands, selected(bands, mode), channels
        )
        return scaling.to(self.device)


def load_pretrained(path: Path, backbone: str | None = None) -> PretrainedEncoder:
    """Load an encoder from the file that a run wrote.

    Args:
        path: The file.
        backbone: As in `rscl_bench.models.encoder_file.read_encoder`.

    Raises:
        ArtefactError: If the file is missing, damaged, or not an encoder of this package.
        SpecError: If the backbone is not installed, or its code is not the code of the run.
    """
    return PretrainedEncoder(*read_encoder(path, backbone))
