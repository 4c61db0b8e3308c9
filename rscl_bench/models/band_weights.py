"""Weights for each band: kernels of a first convolution, and rows of a head that predicts pixels.

There are two ways to make them. ``union`` learns the weights of every band name. ``spectral`` makes
the weights of a band from its wavelength and width by a network that all bands share.

The weights of a band depend neither on which other bands there are nor on their order. A stream
that is extended by new bands therefore keeps the weights of its old ones.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.randomness import torch_generator
from rscl_bench.sensors import Band

#: Shortest and longest period, in nanometres, of the codes of a wavelength and of a width. Bands of
#: two sensors at about one wavelength have nearly equal codes.
_WAVELENGTHS = (150.0, 30_000.0)
_WIDTHS = (1000.0, 30_000.0)
_PERIODS = 16
_CODE = 4 * _PERIODS  # sine and cosine of wavelength and width
_HIDDEN = 128
_BASIS = 32


_GROWING = ContextVar("growing", default=False)


@contextmanager
def growing() -> Iterator[None]:
    """Let states that are loaded within the block lack weights of bands that are new.

    These weights keep their initial values: a stream that goes on from a state with an archive of
    new bands begins with the weights that it would have had from the start.
    """
    token = _GROWING.set(True)
    try:
        yield
    finally:
        _GROWING.reset(token)


class BandWeights(nn.Module, ABC):
    """Weights of one shape for each band of an encoder.

    Attributes:
        bands: The bands of the encoder's channels.
        by_band: The parameters that belong to one band, or to the bands of one polarisation.
    """

    by_band: nn.ParameterDict

    def __init__(self, bands: EncoderBands, shape: Sequence[int], deviation: float, seed: int):
        """Draw the parameters that belong to one band; subclasses draw the others.

        Args:
            bands: The bands.
            shape: Shape of the weights of one band.
            deviation: Standard deviation of the initial weights.
            seed: Seed of the initial weights, together with what the weights are of.
        """
        super().__init__()
        self.bands, self.shape = bands, tuple(shape)
        self.deviation, self.seed = deviation, seed
        self.by_band = nn.ParameterDict()
        for band in bands.bands:
            name = self.parameter_of(band)
            if name is not None and name not in self.by_band:
                self.by_band[name] = nn.Parameter(self.initial(name))
        self.register_load_state_dict_pre_hook(_fill_new_bands)  # type: ignore[no-untyped-call]

    @abstractmethod
    def forward(self, channels: Sequence[int]) -> Tensor:
        """Return the weights of the bands of some channels, ``[n, *shape]`` float32."""

    @abstractmethod
    def parameter_of(self, band: Band) -> str | None:
        """Return the name in ``by_band`` of a band's own parameter; None if it has none."""

    @abstractmethod
    def initial(self, name: str) -> Tensor:
        """Return the initial values of a parameter in ``by_band``."""

    def drawn(self, what: str, shape: Sequence[int]) -> Tensor:
        """Return normal draws from a generator keyed by the weights' seed and ``what``."""
        return torch.randn(tuple(shape), generator=torch_generator("cpu", self.seed, what))


class NamedWeights(BandWeights):
    """Learnt weights for every name of a band, drawn from a generator keyed by the name.

    A step in which no image has a band leaves the weights of the band without gradient, so that the
    optimiser neither moves nor decays them.
    """

    def parameter_of(self, band: Band) -> str:
        """Return the name of a band as the name of a parameter, which may have no dot."""
        return f"band_{band.name.replace('%', '%25').replace('.', '%2E')}"

    def initial(self, name: str) -> Tensor:
        """Return the initial weights of a band, ``shape``."""
        return self.drawn(name, self.shape) * self.deviation

    def forward(self, channels: Sequence[int]) -> Tensor:
        """Return the weights of the bands of some channels, ``[n, *shape]``."""
        names = [self.parameter_of(self.bands.bands[channel]) for channel in channels]
        return torch.stack([self.by_band[name] for name in names])


class SpectralWeights(BandWeights):
    """Weights made from wavelength and width by a network that all bands share.

    After Xiong et al. (2024), "Neural Plasticity-Inspired Multimodal Foundation Model for Earth
    Observation" (DOFA, arXiv:2403.15356), "wavelength-conditioned dynamic patch embedding": a code
    of sines and cosines of the wavelength goes through a small network, whose output is the kernel.
    Here:

    - The code has the width of the band beside its wavelength. An unknown width counts as 0.
    - The network is a perceptron of each band alone. DOFA's transformer mixes the bands of an
      image; the kernel of a band would then depend on the other bands.
    - Its output mixes 32 shared weights, so that the network stays small for large patches.
    - A SAR band has no wavelength in the code but a learnt vector for its polarisation. A thermal
      band has a learnt vector in addition to its wavelength. These vectors are drawn from
      generators keyed by the polarisation or by "thermal".
    """

    codes: Tensor

    def __init__(self, bands: EncoderBands, shape: Sequence[int], deviation: float, seed: int):
        """Draw the shared network; arguments as in `BandWeights`."""
        super().__init__(bands, shape, deviation, seed)
        self.register_buffer("codes", torch.stack([code(b) for b in bands.bands]), persistent=False)
        self.mix = nn.Sequential(
            nn.Linear(_CODE, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _BASIS), nn.LayerNorm(_BASIS)
        )
        self.basis = nn.Parameter(self.drawn("basis", (_BASIS, *shape)) * deviation)

    def parameter_of(self, band: Band) -> str | None:
        """Return the name of the learnt vector of a SAR or thermal band."""
        if band.kind == "sar":
            return f"sar_{band.polarisation or 'unknown'}"
        return "thermal" if band.kind == "thermal" else None

    def initial(self, name: str) -> Tensor:
        """Return an initial vector, as large as a code of sines and cosines."""
        return self.drawn(name, (_CODE,)) * math.sqrt(0.5)

    def forward(self, channels: Sequence[int]) -> Tensor:
        """Return the weights of the bands of some channels, ``[n, *shape]``."""
        rows = []
        for channel in channels:
            name = self.parameter_of(self.bands.bands[channel])
            row = self.codes[channel]
            rows.append(row if name is None else row + self.by_band[name])
        with torch.autocast(self.basis.device.type, enabled=False):  # few products; sines need fp32
            shares = self.mix(torch.stack(rows)) / math.sqrt(_BASIS)  # of length 1 at the start
            weights: Tensor = torch.tensordot(shares, self.basis, dims=1)
        return weights


@torch.no_grad()
def reset_bands(module: nn.Module) -> None:
    """Give the parameters within a module that belong to some bands alone their initial values."""
    for part in module.modules():
        if isinstance(part, BandWeights):
            for name, value in part.by_band.items():
                value.copy_(part.initial(name))


def band_parameters(module: nn.Module) -> set[str]:
    """Return the names of the parameters within a module that belong to some bands alone."""
    return {
        f"{prefix}.by_band.{name}"
        for prefix, part in module.named_modules()
        if isinstance(part, BandWeights)
        for name in part.by_band
    }


def _fill_new_bands(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any, **__: Any
) -> None:
    if _GROWING.get():
        assert isinstance(module, BandWeights)
        for name, value in module.by_band.items():
            state_dict.setdefault(f"{prefix}by_band.{name}", value.detach())


def band_weights(bands: EncoderBands, shape: Sequence[int], deviation: float) -> BandWeights:
    """Return new weights for each band; torch's global generator decides the initial values.

    The number of draws from the global generator does not depend on the bands.

    Args:
        bands: The bands, and how their weights are made.
        shape: Shape of the weights of one band.
        deviation: Standard deviation of the initial weights.
    """
    seed = int(torch.randint(2**62, ()))
    made = {"union": NamedWeights, "spectral": SpectralWeights}[bands.mode]
    weights: BandWeights = made(bands, shape, deviation, seed)
    return weights


def code(band: Band) -> Tensor:
    """Return sines and cosines of a band's wavelength and width, ``[64]`` float32; 0 for SAR."""
    if band.kind == "sar":
        return torch.zeros(_CODE)
    width = band.width_nm or 0.0
    return torch.cat([_waves(band.wavelength_nm, _WAVELENGTHS), _waves(width, _WIDTHS)])


def _waves(nanometres: float, periods: tuple[float, float]) -> Tensor:
    shortest, longest = periods
    steps = torch.arange(_PERIODS, dtype=torch.float64) / (_PERIODS - 1)
    angles = 2 * math.pi * nanometres / (shortest * (longest / shortest) ** steps)
    return torch.cat([angles.sin(), angles.cos()]).float()
