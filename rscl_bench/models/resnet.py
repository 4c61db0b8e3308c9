"""Residual networks, from timm."""

from typing import Literal

import timm
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Spec


class ResNetParams(Spec):
    """Choice of the network (He et al. 2016, "Deep Residual Learning ...", Table 1).

    Attributes:
        variant: Name of the network in timm.
    """

    variant: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"


class ResNet(Encoder):
    """ResNet without its classifier; features are those of the last stage.

    A ResNet cannot leave parts of an image out and has no class token. A mask cell is the square of
    pixels that one position of the stem's output stands for.
    """

    Params = ResNetParams
    first_convolution = "network.conv1"

    def __init__(self, params: ResNetParams, image_size: int, channels: int):
        """Build the encoder.

        Args:
            params: Choice of the network.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If ``image_size`` is not a multiple of ``mask_stride``.
        """
        super().__init__()
        self.network = timm.create_model(
            params.variant,
            pretrained=False,
            in_chans=channels,
            num_classes=0,
            global_pool="",
            zero_init_last=False,  # like torchvision and the code of MoCo and SimCLR
        )
        self.feature_dim: int = self.network.num_features
        self.multiple = self.mask_stride = 4
        self.feature_stride = 32
        self.channels = channels
        self.token_dim: int = self.network.conv1.out_channels
        if image_size % self.multiple:
            raise SpecError(f"image_size {image_size} is not a multiple of {self.multiple}.")

    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]`` as maps ``[B, D, ⌈H / 32⌉, ⌈W / 32⌉]``."""
        encoded: Tensor = self.network(images)
        return encoded

    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images and add a mask token to the stem's output at hidden mask cells."""
        net = self.network
        stem = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        stem = stem + hidden[:, None] * token[:, None, None]
        encoded: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(stem))))
        return encoded

    def grid(self, encoded: Tensor) -> Tensor:
        """Return the feature map ``[B, D, h, w]``, which is the output of ``forward``."""
        return encoded

    def timm_model(self) -> nn.Module:
        """Return timm's ResNet."""
        model: nn.Module = self.network
        return model

    def pooling_timm_model(self) -> nn.Module:
        """Return timm's ResNet, set so that its output is the probed feature."""
        # timm's "avg" is another kernel than the mean of `pool`, and has other last bits.
        self.network.reset_classifier(0, "fastavg")
        return self.timm_model()
