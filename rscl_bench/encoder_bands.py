"""Which bands of a task or a probe an encoder gets."""

from collections.abc import Sequence

from rscl_bench.errors import SpecError
from rscl_bench.spec import BandMode, Protocol, Scenario

RGB = ("red", "green", "blue")


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


def selected(bands: Sequence[str], protocol: Protocol) -> tuple[str, ...]:
    """Return the names of the bands that an encoder gets of one task or probe, in their order.

    Args:
        bands: Bands of the task or the probe.
        protocol: The protocol, whose ``bands`` says how bands reach the encoder.
    """
    return of_mode(bands, protocol.bands)


def of_mode(bands: Sequence[str], mode: BandMode | None) -> tuple[str, ...]:
    """Return what `selected` returns under a protocol whose ``bands`` are ``mode``."""
    three = three_of(bands) if mode == "grey3" else None
    return tuple(bands) if three is None else three


def channels(scenario: Scenario, protocol: Protocol) -> int:
    """Return the number of channels of an encoder's input."""
    return len(selected(scenario.tasks[0].bands, protocol))


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
            f"'grey3' in protocol {name}."
        )
