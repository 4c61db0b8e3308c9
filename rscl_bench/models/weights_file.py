"""Reads files of weights, and gives the weights of other libraries the names that timm gives them.

Files are safetensors, or torch files of tensors alone; nothing is unpickled. Known are encoders of
this package, state dicts of timm and of torchvision, and the files of TorchGeo's weights, whose
models are timm's or torchvision's.
"""

import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rscl_bench.errors import ArtefactError, SpecError

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
#: Keys under which training scripts keep the state dict of the model.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")

_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
)
_TORCHVISION_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
_MERGING = re.compile(r"^layers\.(\d+)\.downsample\.")
_SWIN_STAGE = re.compile(r"^features\.(\d+)\.")


class WeightsFile(NamedTuple):
    """A file of weights.

    Attributes:
        name: Name of the file.
        tensors: The tensors, with timm's names where they are known.
        digest: SHA-256 of the file.
    """

    name: str
    tensors: dict[str, Tensor]
    digest: str


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file of weights.

    Raises:
        SpecError: If there is no such file, or its name ends as that of no file of weights.
    """
    if path.suffix not in _SUFFIXES:
        raise SpecError(
            f"{path} is no file of weights by its name; give a file that ends in "
            f"{', '.join(_SUFFIXES)}."
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(
            f"The initial weights {path} cannot be read ({error.strerror or error}); check the "
            "path."
        ) from error


def read_weights(path: Path) -> WeightsFile:
    """Read a file of weights.

    Raises:
        ArtefactError: If the file cannot be read, is damaged, or holds anything but tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"The initial weights {path} cannot be read ({error.strerror or error}); check the "
            "path."
        ) from error
    try:
        if path.suffix == ".safetensors":
            found: Any = load(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path} is damaged or no safetensors file ({error!r:.200}); copy the file again."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtefactError(
            f"{path} is damaged, or holds more than tensors, which are all that is read "
            f"({reason}); save its state dict as safetensors."
        ) from error
    tensors = _unwrapped(found, path)
    return WeightsFile(path.name, as_timm(tensors), hashlib.sha256(content).hexdigest())


def _unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file, which training scripts keep under a key."""
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ArtefactError(f"{path} holds no state dict; save a state dict as safetensors.")
    tensors = {
        str(name): value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.layout == torch.strided
    }
    if not tensors:
        raise ArtefactError(f"{path} holds no tensors; save a state dict as safetensors.")
    return tensors


def as_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under timm's names, if the names are those of torchvision's ViT or Swin.

    torchvision's ResNet has timm's names. Other names stay as they are.
    """
    if "conv_proj.weight" in tensors:
        return {_renamed(name, _TORCHVISION_VIT): value for name, value in tensors.items()}
    if "features.0.0.weight" in tensors:
        return {
            _renamed(
                _SWIN_STAGE.sub(_stage, _renamed(name, _TORCHVISION_SWIN[:2])),
                _TORCHVISION_SWIN[2:],
            ): value
            for name, value in tensors.items()
        }
    return dict(tensors)


def mergings_before_stages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a Swin transformer's tensors with mergings at the start of a stage, as timm has them.

    The files of Swin's authors have them at the end of the stage before. Others stay as they are.
    """
    if "layers.0.downsample.reduction.weight" not in tensors:
        return dict(tensors)

    def later(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    return {_MERGING.sub(later, name): value for name, value in tensors.items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _stage(match: re.Match[str]) -> str:
    """Return timm's name of a stage: torchvision numbers blocks and mergings in one row."""
    number = int(match[1])
    stage = number // 2
    return f"layers.{stage}.blocks." if number % 2 else f"layers.{stage}.downsample."
