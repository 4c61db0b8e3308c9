"""Which bands of a task or a probe an encoder gets, and in which channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from rscl_bench import registry
from rscl_bench.errors import SpecError, unknown
from rscl_bench.sensors import Band
from rscl_bench.spec import BandMode, Probe, Protocol, Scenario, Source

RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class EncoderBands:
    """The channels of an encoder whose images differ in bands: one channel for each band.

    An image has NaN in the channel of a band that it lacks.

    Attributes:
        mode: How the first convolution makes the kernel of a band.
        bands: The band of every channel: the bands of all tasks, then of all probes, in the order
            of their first appearance. A stream that goes on keeps its channels and appends new
            ones. In ``union`` a name is one channel, whatever its wavelength.
    """

    mode: Literal["spectral", "union"]
    bands: tuple[Band, ...]

    @classmethod
    def of(cls, mode: Literal["spectral", "union"], parts: Iterable[Sequence[Band]]) -> Self:
        """Return the channels for tasks and probes with these bands, in their order."""
        channels: dict[Band | str, Band] = {}
        for part in parts:
            for band in part:
                channels.setdefault(band.name if mode == "union" else band, band)
        return cls(mode, tuple(channels.values()))

    @property
    def order(self) -> tuple[int, ...]:
        """Channels in the order of the bands' names and wavelengths.

        Sums over bands have this order, so that they do not depend on where a band first appeared.
        """

        def key(channel: int) -> tuple[str, float, float, str]:
            band = self.bands[channel]
            return band.name, band.wavelength_nm, band.width_nm or 0.0, band.kind

        return tuple(sorted(range(len(self.bands)), key=key))

    def places(self, bands: Sequence[Band]) -> tuple[int, ...]:
        """Return the channels of bands.

        Raises:
            SpecError: If a band has no channel.
        """
        by_key = {self._key(band): place for place, band in enumerate(self.bands)}
        for band in bands:
            if self._key(band) not in by_key:
                raise unknown("band of this encoder", band.name, [b.name for b in self.bands])
        return tuple(by_key[self._key(band)] for band in bands)

    def _key(self, band: Band) -> Band | str:
        return band.name if self.mode == "union" else band


@dataclass(frozen=True)
class Channels:
    """Where the bands of one task or probe stand in the input of an encoder.

    Attributes:
        places: Channel of every band.
        count: Number of channels. Channels without a band are NaN.
    """

    places: tuple[int, ...]
    count: int


def encoder_bands(scenario: Scenario, protocol: Protocol) -> EncoderBands | None:
    """Return the channels of a run's encoder; None if all images have the same channels.

    Raises:
        SpecError: If a dataset, an option or a band is unknown.
    """
    if protocol.bands not in ("spectral", "union"):
        return None
    parts: list[Source | Probe] = [*scenario.tasks, *scenario.probes]
    return EncoderBands.of(protocol.bands, [sensor_bands(part) for part in parts])


def sensor_bands(part: Source | Probe) -> tuple[Band, ...]:
    """Return the bands of a task or a probe, with wavelengths, in their order.

    Raises:
        SpecError: If the dataset, an option or a band is unknown.
    """
    sensor = registry.load("datasets", part.dataset).configured(part.options).sensor
    return tuple(sensor.bands[index] for index in sensor.indices(part.bands))


def channels_of(part: Source | Probe, bands: EncoderBands | None) -> Channels | None:
    """Return where the bands of a task or a probe stand; None if all images have the same."""
    return None if bands is None else Channels(bands.places(sensor_bands(part)), len(bands.bands))


def three_of(bands: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the three bands that ``grey3`` gives to an encoder, or None if they are not clear.

    These are red, green and blue if all three are there; the one band, three times; or the three
    bands that there are, in their order.

    Args:
        bands: Bands of a task or a probe.
    """
    if set(RGB) <= set(bands):
        return "red", "green", "blue"
    if len(bands) == 1:
        return bands[0], bands[0], bands[0]
    if len(bands) == 3:
        return bands[0], bands[1], bands[2]
    return None


def selected(bands: Sequence[str], mode: BandMode | None) -> tuple[str, ...]:
    """Return the names of the bands that an encoder gets of one task or probe, in their order.

    Args:
        bands: Bands of the task or the probe.
        mode: How bands reach the encoder: the protocol's ``bands``.
    """
    three = three_of(bands) if mode == "grey3" else None
    return tuple(bands) if three is None else three


def check_bands(scenario: Scenario, name: str, protocol: Protocol) -> None:
    """Check that an encoder can take the bands of all tasks and probes under a protocol.

    Args:
        scenario: The scenario, with the bands of every task and probe.
        name: Name of the protocol, for the message.
        protocol: The protocol.

    Raises:
        SpecError: If the encoder cannot.
    """
    bands = scenario.bands()
    if protocol.bands == "grey3":
        for part, names in bands.items():
            if three_of(names) is None:
                raise SpecError(
                    f"Scenario {scenario.name}: protocol {name} gives three bands to the encoder "
                    f"(bands = 'grey3'), but {part} has {len(names)} ({', '.join(names)}) without "
                    "red, green and blue; name one band or three as its 'bands'."
                )
    elif protocol.bands is None and len({len(names) for names in bands.values()}) > 1:
        given = "; ".join(f"{part} {len(n)} ({', '.join(n)})" for part, n in bands.items())
        raise SpecError(
            f"Scenario {scenario.name}: all tasks and probes must give the encoder the same number "
            f"of bands, but here are {given}; set 'bands' of those that differ, or set bands = "
            f"'spectral', 'union' or 'grey3' in protocol {name}."
        )
