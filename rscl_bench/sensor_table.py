"""A table of sensors, so that a scenario names the sensor of an archive that has no reader here.

Wavelengths and widths are the nominal ones that the operators publish:

- Sentinel-2: ESA, Sentinel-2 User Handbook, spectral bands of the MSI.
- Sentinel-1: ESA, Sentinel-1 User Handbook, C-band radar at 5.405 GHz.
- Landsat: USGS, "What are the band designations for the Landsat satellites?"; the middle and the
  width of each range.
- WorldView-3: DigitalGlobe, WorldView-3 data sheet.
- PlanetScope: Planet, PlanetScope product specification.

The cameras of aerial archives and of NAIP differ from flight to flight, so that their bands have
nominal wavelengths and no width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rscl_bench.errors import SpecError, unknown
from rscl_bench.sensors import (
    GOOGLE_EARTH_RGB,
    HIT_UAV_THERMAL,
    MSTAR_SAR,
    MSTAR_SAR_DB,
    POTSDAM_RGBIR,
    RGB8,
    TREESATAI_AERIAL,
    UAVID_RGB,
    UCMERCED_RGB,
    WORLDVIEW3,
    WORLDVIEW_RGB,
    Band,
    Sensor,
)

_DN8, _DN16 = "8-bit digital number", "16-bit digital number"


def _optical(name: str, centre_nm: float, width_nm: float | None = None) -> Band:
    return Band(name, float(centre_nm), None if width_nm is None else float(width_nm))


def _range(name: str, low_um: float, high_um: float) -> Band:
    """Return a band from the limits that USGS states in micrometres."""
    return _optical(name, round(500 * (low_um + high_um), 1), round(1000 * (high_um - low_um), 1))


def _thermal(name: str, low_um: float, high_um: float) -> Band:
    return replace(_range(name, low_um, high_um), kind="thermal")


def _radar(polarisation: str, frequency_ghz: float) -> Band:
    wavelength_nm = round(299_792_458 / frequency_ghz, 0)
    return Band(polarisation, wavelength_nm, kind="sar")


_S2_BANDS = {
    "B01": _optical("coastal", 443, 20),
    "B02": _optical("blue", 490, 65),
    "B03": _optical("green", 560, 35),
    "B04": _optical("red", 665, 30),
    "B05": _optical("red-edge-1", 705, 15),
    "B06": _optical("red-edge-2", 740, 15),
    "B07": _optical("red-edge-3", 783, 20),
    "B08": _optical("nir", 842, 115),
    "B8A": _optical("nir-narrow", 865, 20),
    "B09": _optical("water-vapour", 945, 20),
    "B10": _optical("cirrus", 1375, 30),
    "B11": _optical("swir-1", 1610, 90),
    "B12": _optical("swir-2", 2190, 180),
}
_TM_BANDS = {
    "B1": _range("blue", 0.45, 0.52),
    "B2": _range("green", 0.52, 0.60),
    "B3": _range("red", 0.63, 0.69),
    "B4": _range("nir", 0.76, 0.90),
    "B5": _range("swir-1", 1.55, 1.75),
    "B6": _thermal("thermal", 10.40, 12.50),
    "B7": _range("swir-2", 2.08, 2.35),
}
_ETM_BANDS = {
    **_TM_BANDS,
    "B4": _range("nir", 0.77, 0.90),
    "B7": _range("swir-2", 2.09, 2.35),
    "B8": _range("pan", 0.52, 0.90),
}
_OLI_BANDS = {
    "B1": _range("coastal", 0.43, 0.45),
    "B2": _range("blue", 0.45, 0.51),
    "B3": _range("green", 0.53, 0.59),
    "B4": _range("red", 0.64, 0.67),
    "B5": _range("nir", 0.85, 0.88),
    "B6": _range("swir-1", 1.57, 1.65),
    "B7": _range("swir-2", 2.11, 2.29),
    "B8": _range("pan", 0.50, 0.68),
    "B9": _range("cirrus", 1.36, 1.38),
    "B10": _thermal("thermal-1", 10.60, 11.19),
    "B11": _thermal("thermal-2", 11.50, 12.51),
}
_DOVE_BANDS = {
    "Blue": _range("blue", 0.455, 0.515),
    "Green": _range("green", 0.500, 0.590),
    "Red": _range("red", 0.590, 0.670),
    "NIR": _range("nir", 0.780, 0.860),
}
_SUPERDOVE_BANDS = {
    "Coastal Blue": _range("coastal", 0.431, 0.452),
    "Blue": _range("blue", 0.465, 0.515),
    "Green I": _range("green-1", 0.513, 0.549),
    "Green": _range("green", 0.547, 0.583),
    "Yellow": _range("yellow", 0.600, 0.620),
    "Red": _range("red", 0.650, 0.680),
    "RedEdge": _range("red-edge", 0.697, 0.713),
    "NIR": _range("nir", 0.845, 0.885),
}
_RED, _GREEN, _BLUE = _optical("red", 665), _optical("green", 560), _optical("blue", 480)
_NIR = _optical("nir", 840)
_CAMERA_BANDS = {"R": _RED, "G": _GREEN, "B": _BLUE, "NIR": _NIR}
_C_BAND, _X_BAND = 5.405, 9.6
_RADAR_BANDS = {name.upper(): _radar(name, _C_BAND) for name in ("vv", "vh", "hh", "hv")}

_L1_SCALE, _L2_SCALE = 10_000.0, 43_636.0
_L2_UNIT = "Collection 2 number (reflectance is 0.0000275 × number - 0.2)"
_DB = "step of 0.01 dB (0 is -50 dB)"


def _sensor(
    name: str, bands: Sequence[Band], unit: str, dtype: str, scale: float, gsd_m: float | None
) -> Sensor:
    return Sensor(name, tuple(bands), unit, dtype, scale, gsd_m)


def _camera(name: str, bands: Sequence[Band], gsd_m: float | None = None) -> Sensor:
    return _sensor(name, bands, _DN8, "uint8", 255.0, gsd_m)


def _without(bands: Mapping[str, Band], *names: str) -> list[Band]:
    return [band for name, band in bands.items() if name not in names]


_L1C, _L2A = list(_S2_BANDS.values()), _without(_S2_BANDS, "B10")
_VV_VH = [_RADAR_BANDS["VV"], _RADAR_BANDS["VH"]]
_TM = _without(_TM_BANDS, "B6")
_ETM = _without(_ETM_BANDS, "B6", "B8")
_OLI = _without(_OLI_BANDS, "B8", "B9", "B10", "B11")

#: Every sensor that a scenario may name: those of the registered datasets, and the common ones.
SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        GOOGLE_EARTH_RGB,
        HIT_UAV_THERMAL,
        MSTAR_SAR,
        MSTAR_SAR_DB,
        POTSDAM_RGBIR,
        RGB8,
        TREESATAI_AERIAL,
        UAVID_RGB,
        UCMERCED_RGB,
        WORLDVIEW3,
        WORLDVIEW_RGB,
        _sensor("sentinel2-l1c", _L1C, "10,000-fold reflectance", "uint16", _L1_SCALE, 10),
        _sensor("sentinel2-l2a", _L2A, "10,000-fold reflectance", "uint16", _L1_SCALE, 10),
        _camera("sentinel2-8bit", _L1C, 10),
        _sensor("sentinel1-db", _VV_VH, _DB, "uint16", 5_000.0, 10),
        _sensor("sentinel1-amplitude", _VV_VH, "amplitude number", "uint16", 1_000.0, 10),
        _sensor("landsat5-tm", _TM, _L2_UNIT, "uint16", _L2_SCALE, 30),
        _sensor("landsat7-etm", _ETM, _L2_UNIT, "uint16", _L2_SCALE, 30),
        _sensor("landsat8-oli", _OLI, _L2_UNIT, "uint16", _L2_SCALE, 30),
        _sensor("landsat9-oli", _OLI, _L2_UNIT, "uint16", _L2_SCALE, 30),
        _camera("landsat5-tm-8bit", list(_TM_BANDS.values()), 30),
        _camera("landsat7-etm-8bit", list(_ETM_BANDS.values()), 30),
        _camera("landsat8-oli-8bit", list(_OLI_BANDS.values()), 30),
        _camera("landsat9-oli-8bit", list(_OLI_BANDS.values()), 30),
        _sensor("landsat8-l1", list(_OLI_BANDS.values()), _DN16, "uint16", 65_535.0, 30),
        _sensor("landsat9-l1", list(_OLI_BANDS.values()), _DN16, "uint16", 65_535.0, 30),
        _camera("naip", (_RED, _GREEN, _BLUE, _NIR), 1),
        _sensor(
            "planetscope-dove",
            list(_DOVE_BANDS.values()),
            "10,000-fold reflectance",
            "uint16",
            _L1_SCALE,
            3,
        ),
        _sensor(
            "planetscope-superdove",
            list(_SUPERDOVE_BANDS.values()),
            "10,000-fold reflectance",
            "uint16",
            _L1_SCALE,
            3,
        ),
        _camera("rgbn8", (_RED, _GREEN, _BLUE, _NIR)),
        _camera("nrg8", (_NIR, _RED, _GREEN)),
        _camera("thermal8", (_thermal("thermal", 8.0, 14.0),)),
        _sensor(
            "thermal16",
            (_thermal("thermal", 8.0, 14.0),),
            "step of 0.01 K (0 is 0 K)",
            "uint16",
            35_000.0,
            None,
        ),
        _camera("sar-amplitude8", (_radar("hh", _X_BAND),)),
        _sensor(
            "sar-amplitude16",
            (_radar("hh", _X_BAND),),
            "amplitude number",
            "uint16",
            65_535.0,
            None,
        ),
    )
}

#: Beginnings of sensor names, and the names that the operator gives the bands of such a sensor.
_OPERATOR_NAMES: tuple[tuple[str, Mapping[str, Band]], ...] = (
    ("sentinel2", _S2_BANDS),
    ("sentinel1", _RADAR_BANDS),
    ("landsat5", _TM_BANDS),
    ("landsat7", _ETM_BANDS),
    ("landsat8", _OLI_BANDS),
    ("landsat9", _OLI_BANDS),
    ("planetscope-dove", _DOVE_BANDS),
    ("planetscope-superdove", _SUPERDOVE_BANDS),
    ("", _CAMERA_BANDS),
)


def sensor_named(name: str) -> Sensor:
    """Return a sensor of the table.

    Raises:
        SpecError: If the table has no such sensor.
    """
    if name not in SENSORS:
        raise unknown("sensor", name, SENSORS)
    return SENSORS[name]


def band_of(sensor: Sensor, name: str) -> Band | None:
    """Return a band of a sensor by its own name, or by the name that its operator gives.

    ``B2`` and ``B02`` are one band, and so are ``SR_B2``, ``S2_B02`` and ``b2``.
    """
    own = {band.name: band for band in sensor.bands}
    if name in own:
        return own[name]
    names = next(n for beginning, n in _OPERATOR_NAMES if sensor.name.startswith(beginning))
    plain = {_plain(operator): band.name for operator, band in names.items()}
    return own.get(plain.get(_plain(name), ""))


def _plain(name: str) -> str:
    """Return an operator's band name without product prefix, leading zeros and capitals."""
    last = name.upper().rpartition("_")[2]
    return last[0] + last[1:].lstrip("0") if last[:1] == "B" and last[1:2].isdigit() else last


def with_bands(sensor: Sensor, names: Sequence[str]) -> Sensor:
    """Return a sensor that has the named bands alone, in the order of the names.

    Args:
        sensor: The sensor.
        names: Names of bands, as `band_of` takes them.

    Raises:
        SpecError: If a band is unknown or named twice.
    """
    bands = [band_of(sensor, name) for name in names]
    for name, band in zip(names, bands, strict=True):
        if band is None:
            raise unknown(f"band of sensor {sensor.name}", name, [b.name for b in sensor.bands])
    if len(set(bands)) < len(bands):
        raise SpecError(f"Bands of {sensor.name} must be named once each; got {list(names)}.")
    return replace(sensor, bands=tuple(band for band in bands if band is not None))
