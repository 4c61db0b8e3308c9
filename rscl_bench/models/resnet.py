"""Residual networks, from timm."""

from typing import Literal

import timm
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.spec import Spec


class ResNetParams(Spec):
    """Which network (He et al. 2016, "Deep Residual Learning for Image Recognition", Table 1)."""

    variant: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"


class ResNet(Encoder):
    """ResNet without its classifier; features are those of the last stage.

    It cannot leave parts of an image out, nor has it a class token. A cell is what one place after
    the stem stands for.
    """

    Params = ResNetParams

    def __init__(self, params: ResNetParams, image_size: int, channels: int):
        """Build the encoder.

        Args:
            params: Which network.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If the image is no whole number of cells.
        """
        super().__init__()
        self.network = timm.create_model(
            params.variant,
            pretrained=False,
            in_chans=channels,
            num_classes=0,
            global_pool="",
            zero_init_last=False,  # as torchvision, and as the codes of MoCo and SimCLR
        )
        self.feature_dim: int = self.network.num_features
        self.multiple = self.cell = 4
        self.place = 32
        self.channels = channels
        self.token_dim: int = self.network.conv1.out_channels
        if image_size % self.multiple:
            raise SpecError(f"image_size {image_size} is not a multiple of {self.multiple}.")

    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]`` to maps ``[B, D, H / 32, W / 32]``, rounded up."""
        encoded: Tensor = self.network(images)
        return encoded

    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images, a token added to what the stem makes of hidden cells."""
        net = self.network
        stem = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        stem = stem + hidden[:, None] * token[:, None, None]
        encoded: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(stem))))
        return encoded

    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return the mean over places, ``[B, D]``.

        Raises:
            SpecError: If a class token is asked for.
        """
        self.check_pool(how)
        return encoded.mean(dim=(2, 3))

    def grid(self, encoded: Tensor) -> Tensor:
        """Return the maps as they are."""
        return encoded

    def timm_model(self) -> nn.Module:
        """Return timm's model."""
        model: nn.Module = self.network
        return model
