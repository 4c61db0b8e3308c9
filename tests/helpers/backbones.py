"""Small backbones, as protocols set them."""

from typing import Any

RESNET: dict[str, Any] = {"name": "resnet", "variant": "resnet18"}
SWIN: dict[str, Any] = {
    "name": "swin",
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (1, 1),
    "num_heads": (1, 2),
    "window_size": 2,
}
