"""Loads the weights of a file into a new encoder, and adapts them to its bands and image size."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models import adapt_input_conv
from torch import Tensor, nn

from rscl_bench.encoder_bands import RGB
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.models.band_weights import BandWeights, band_parameters
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.weights_file import mergings_before_stages, read_weights

#: Parts of a checkpoint that are no part of an encoder: classifiers, and decoders of MAE.
_HEADS = re.compile(r"^(head|heads|head_dist|fc|classifier|pre_logits|mask_token|decoder\w*)(\.|$)")
#: Buffers that follow from the shape of the network.
_DERIVED = re.compile(r"(^|\.)(relative_position_index|attn_mask|num_batches_tracked)$")
_POSITIONS = "pos_embed"
_BIAS_TABLE = "relative_position_bias_table"
_SHOWN = 3


class Adaptation(NamedTuple):
    """How a file of weights was fitted to an encoder.

    Attributes:
        adapted: What was changed, one clause each.
        left_out: Names of the file's tensors that are no part of an encoder, sorted.
    """

    adapted: tuple[str, ...]
    left_out: tuple[str, ...]


def load_initial(encoder: Encoder, path: Path, digest: str) -> Adaptation:
    """Load the weights of a file into an encoder.

    - A name may have a prefix, such as ``backbone.``, that all weights of the encoder share.
    - Classifiers, decoders and other networks beside the encoder are left out.
    - The kernels of the first convolution are adapted to the number C of bands. From three bands to
      another number, timm's rule holds (`timm.models.adapt_input_conv`): the sum over the three for
      one band, else the three repeated in turn and scaled by 3 / C. From another number c of bands,
      every band gets the mean kernel, scaled by c / C. An equal number is taken as it is, in the
      file's order of bands.
    - Where images differ in bands, ``union`` gives red, green and blue the kernels of a file of
      three bands, and every other band the mean kernel, each times the root of the number of the
      file's bands, which `BandConvolution` divides by. ``spectral`` makes kernels from wavelengths,
      so the file's first convolution is left out. From an encoder of the same mode, bands take
      their own kernels, and bands that the file lacks keep their initial ones.
    - Positions of a ViT are resampled to the number of patches (bicubic, antialiased), and the
      tables of relative positions of a Swin transformer to its windows, both by timm.

    Args:
        encoder: A new encoder.
        path: The file.
        digest: SHA-256 that the file must have.

    Returns:
        What was changed and left out.

    Raises:
        ArtefactError: If the file cannot be read, or has changed.
        SpecError: If weights are missing, unexpected, of another shape or not finite. The message
            names the first of each.
    """
    file = read_weights(path)
    if file.digest != digest:
        raise ArtefactError(
            f"The initial weights {path} have changed since the run began (their SHA-256 differs); "
            "restore the file, or start another run."
        )
    model = encoder.timm_model()
    target = model.state_dict()
    named, beside = _of_encoder(_own_names(encoder, file.tensors), target, file.name)
    named = mergings_before_stages(named)
    heads = [name for name in named if name not in target and _HEADS.match(name)]
    kept = {n: v for n, v in named.items() if n not in heads and not _DERIVED.search(n)}
    adapted: list[str] = []
    strange: list[str] = []
    if encoder.bands is not None:
        strange = _fit_band_kernels(encoder, kept, target, adapted)
    for name in sorted(kept.keys() & target.keys()):
        fitted = _fitted(name, kept[name], target[name], model, adapted)
        kept[name] = fitted.to(target[name].dtype)
    _check(kept, target, file.name)
    model.load_state_dict(kept, strict=False)
    return Adaptation(tuple(adapted), tuple(sorted([*heads, *beside, *strange])))


def _fit_band_kernels(
    encoder: Encoder,
    kept: dict[str, Tensor],
    target: Mapping[str, Tensor],
    adapted: list[str],
) -> list[str]:
    """Put kernels for each band in place of a file's first convolution.

    Args:
        encoder: An encoder whose images differ in bands.
        kept: The file's weights; changed in place.
        target: The weights that the encoder needs.
        adapted: Notes on what was changed, to which this function adds.

    Returns:
        Names of the file's weights that were left out: of bands that the encoder lacks.
    """
    assert encoder.bands is not None
    first = f"{encoder.first_convolution}".removeprefix(_prefix(encoder))
    kernels = kept.pop(f"{first}.weight", None)
    strange = [name for name in kept if name not in target and ".by_band." in name]
    for name in strange:
        del kept[name]
    if kernels is None:  # an encoder of the same mode, or no fitting file
        new = band_parameters(encoder.timm_model()) - kept.keys()
        kept |= {name: target[name] for name in new}
        return strange
    if encoder.bands.mode == "spectral":
        adapted.append(f"{first} is left out, since kernels are made from wavelengths")
        kept |= {n: v for n, v in target.items() if n.startswith(f"{first}.kernels.")}
        return [*strange, f"{first}.weight"]
    scaled = kernels.float() * kernels.shape[1] ** 0.5
    named = dict(zip(RGB, scaled.unbind(1), strict=True)) if kernels.shape[1] == 3 else {}
    weights = encoder.timm_model().get_submodule(f"{first}.kernels")
    assert isinstance(weights, BandWeights)
    for band in encoder.bands.bands:
        own = named.get(band.name, scaled.mean(dim=1))
        kept[f"{first}.kernels.by_band.{weights.parameter_of(band)}"] = own
    by_name = ", ".join(b.name for b in encoder.bands.bands if b.name in named) or "none"
    adapted.append(f"kernels of {first} by name for {by_name}; their mean for other bands")
    return strange


def _prefix(encoder: Encoder) -> str:
    """Return what this package's encoder puts before timm's names."""
    model = encoder.timm_model()
    name = next(name for name, module in encoder.named_modules() if module is model)
    return f"{name}." if name else ""


def _own_names(encoder: Encoder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the prefix that this package's encoders put before timm's names."""
    start = _prefix(encoder)
    if start and any(name.startswith(start) for name in tensors):
        return {name.removeprefix(start): value for name, value in tensors.items()}
    return dict(tensors)


def _of_encoder(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], file: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of the encoder without their common prefix, and the names of the others.

    Raises:
        SpecError: If the file holds several encoders.
    """
    counts: dict[str, int] = {}
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in target:
                prefix = "".join(f"{part}." for part in parts[:start])
                counts[prefix] = counts.get(prefix, 0) + 1
    most = max(counts.values(), default=0)
    best = sorted(prefix for prefix, count in counts.items() if count == most)
    if len(best) > 1 and most > 1:
        raise SpecError(
            f"{file} holds {len(best)} encoders, {' and '.join(best[:_SHOWN])}; give a file with "
            "one of them."
        )
    prefix = best[0] if best else ""
    own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    return own, [name for name in tensors if not name.startswith(prefix)]


def _fitted(
    name: str, value: Tensor, target: Tensor, model: nn.Module, adapted: list[str]
) -> Tensor:
    """Return a tensor in the shape of the encoder, where a rule says how; note the change."""
    if value.shape == target.shape:
        return value
    shapes = f"from {_shape(value)} to {_shape(target)}"
    same_width = value.ndim == target.ndim and value.shape[0] == target.shape[0]
    if same_width and value.ndim == 4 and value.shape[2:] == target.shape[2:]:
        adapted.append(f"kernels of {name} adapted to the bands, {shapes}")
        return _for_bands(value, target.shape[1])  # only a first convolution has other bands
    if name == _POSITIONS and same_width and _has_square_grid(value):
        adapted.append(f"positions resampled, {shapes}")
        side = _side(target)
        positions: Tensor = resample_abs_pos_embed(value.float(), [side, side], num_prefix_tokens=1)
        return positions
    if name.endswith(_BIAS_TABLE) and value.ndim == 2 and value.shape[1] == target.shape[1]:
        adapted.append(f"{name} resampled, {shapes}")
        window = model.get_submodule(name.removesuffix(f".{_BIAS_TABLE}")).window_size
        with warnings.catch_warnings():  # of torch, about how timm calls it
            warnings.simplefilter("ignore", UserWarning)
            table: Tensor = resize_rel_pos_bias_table(value.float(), window, target.shape)
        return table
    return value


def _for_bands(kernels: Tensor, bands: int) -> Tensor:
    """Return kernels ``[D, c, h, w]`` for another number of bands, ``[D, bands, h, w]``."""
    count = kernels.shape[1]
    if count == 3:
        fitted: Tensor = adapt_input_conv(bands, kernels.float())
        return fitted
    mean = kernels.float().mean(dim=1, keepdim=True)
    return mean.repeat(1, bands, 1, 1) * (count / bands)


def _side(positions: Tensor) -> int:
    return math.isqrt(positions.shape[1] - 1)


def _has_square_grid(positions: Tensor) -> bool:
    return positions.ndim == 3 and _side(positions) ** 2 + 1 == positions.shape[1]


def _check(found: Mapping[str, Tensor], target: Mapping[str, Tensor], file: str) -> None:
    """Refuse weights that do not fit an encoder.

    Raises:
        SpecError: With the first few missing, unexpected and misshapen tensors.
    """
    needed = {name for name in target if not _DERIVED.search(name)}
    both = sorted(found.keys() & target.keys())
    wrong = [name for name in both if found[name].shape != target[name].shape]
    shapes = [f"{n} is {_shape(found[n])} and not {_shape(target[n])}" for n in wrong]
    problems = [
        _listed("missing", sorted(needed - found.keys())),
        _listed("unexpected", sorted(found.keys() - target.keys())),
        _listed("of another shape", shapes),
    ]
    stated = "; ".join(filter(None, problems))
    if stated:
        raise SpecError(
            f"The weights of {file} do not fit the encoder: {stated}. Set backbone.name and the "
            "sizes of the backbone to those of the file."
        )
    for name in both:
        if found[name].is_floating_point() and not torch.isfinite(found[name]).all():
            raise SpecError(f"{file} has values in {name} that are not finite; give another file.")


def _listed(what: str, names: Iterable[str]) -> str:
    listed = list(names)
    more = ", …" if len(listed) > _SHOWN else ""
    return f"{len(listed)} {what} ({', '.join(listed[:_SHOWN])}{more})" if listed else ""


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
