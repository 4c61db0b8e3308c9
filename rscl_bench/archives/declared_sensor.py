"""The sensor of a dataset as a scenario declares it: by name, or with its bands."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from rscl_bench.errors import SpecError
from rscl_bench.sensor_table import sensor_named
from rscl_bench.sensors import Band, BandKind, Sensor
from rscl_bench.spec import Spec

_Text = Annotated[str, Field(min_length=1, max_length=200)]


class DeclaredBand(Spec):
    """One band of a declared sensor.

    Attributes:
        name: Name, unique in the sensor.
        wavelength_nm: Central wavelength in nanometres; of a radar, that of its carrier.
        width_nm: Bandwidth in nanometres; left out where it is unknown.
        kind: What the band measures: ``"optical"``, ``"thermal"`` or ``"sar"``.
    """

    name: _Text
    wavelength_nm: Annotated[float, Field(gt=0)]
    width_nm: Annotated[float, Field(gt=0)] | None = None
    kind: BandKind = "optical"


class DeclaredSensor(Spec):
    """A sensor without a name, or a named one with other units.

    Attributes:
        like: Name of the sensor whose values hold where the declaration has none.
        bands: The bands, in the order of the images.
        unit: Unit of a pixel value, in the singular; of `uint8`, digital numbers by default.
        dtype: Type of the stored pixels.
        scale: Pixel value of full brightness; of `uint8`, 255 by default.
        gsd_m: Ground sample distance in metres; left out where it varies.
        amplitude: Whether amplitudes are read as stored or in decibels; ``"linear"`` by default.
    """

    like: _Text | None = None
    bands: Annotated[tuple[DeclaredBand, ...], Field(min_length=1)] | None = None
    unit: _Text | None = None
    dtype: Literal["uint8", "uint16"] | None = None
    scale: Annotated[float, Field(gt=0)] | None = None
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    amplitude: Literal["linear", "db"] | None = None

    def sensor(self) -> Sensor:
        """Return the sensor.

        Raises:
            SpecError: If the sensor ``like`` is unknown, or a value is missing.
        """
        own = ("unit", "dtype", "scale", "gsd_m", "amplitude")
        given: dict[str, Any] = {name: getattr(self, name) for name in own}
        given = {name: value for name, value in given.items() if value is not None}
        if self.bands is not None:
            given["bands"] = tuple(Band(**dict(band)) for band in self.bands)
        if self.like is not None:
            return replace(sensor_named(self.like), **given)
        if given.get("dtype", "uint8") == "uint8":
            bytes_ = {"unit": "8-bit digital number", "dtype": "uint8", "scale": 255.0}
            given = {**bytes_, **given}
        missing = [name for name in ("bands", "unit", "scale") if name not in given]
        if missing:
            raise SpecError(
                f"options.sensor lacks {', '.join(missing)}; declare bands, unit, dtype and scale, "
                'or name a sensor in like = "...".'
            )
        return Sensor(**{"name": "declared", "gsd_m": None, **given})


def _tag(value: Any) -> str:
    return "name" if isinstance(value, str) else "table"


#: The name of a sensor, or a table of its values.
SensorChoice = Annotated[
    Annotated[_Text, Tag("name")] | Annotated[DeclaredSensor, Tag("table")], Discriminator(_tag)
]


def chosen_sensor(choice: str | DeclaredSensor) -> Sensor:
    """Return the sensor that a scenario names or declares.

    Raises:
        SpecError: If there is no such sensor, or a value is missing.
    """
    return choice.sensor() if isinstance(choice, DeclaredSensor) else sensor_named(choice)
