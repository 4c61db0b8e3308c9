"""SSL4EO-L's benchmark: images of Landsat's sensors with masks of NLCD."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.scenes import districts
from rscl_bench.archives.torchgeo.sketches.pictures import BRIGHT, cover_mask, write_mask
from rscl_bench.sensor_table import SENSORS
from rscl_bench.sensors import Band, Sensor

#: Sensor of the archive to the sensor of the table, its bands in the order of the files, and the
#: year of its masks. Landsat 7 has its thermal band twice, in two gains.
_SENSORS = {
    "tm_toa": ("landsat5-tm-8bit", "blue green red nir swir-1 thermal swir-2", 2011),
    "etm_toa": (
        "landsat7-etm-8bit",
        "blue green red nir swir-1 thermal thermal swir-2 pan",
        2019,
    ),
    "etm_sr": ("landsat7-etm-8bit", "blue green red nir swir-1 swir-2", 2019),
    "oli_tirs_toa": (
        "landsat8-oli-8bit",
        "coastal blue green red nir swir-1 swir-2 pan cirrus thermal-1 thermal-2",
        2019,
    ),
    "oli_sr": ("landsat8-oli-8bit", "coastal blue green red nir swir-1 swir-2", 2019),
}
_SCENES = ("farmland", "forest", "river", "residential", "chaparral", "industrial", "meadow")
#: Materials to the values of NLCD.
_COVER = {
    "water": 11,
    "grass": 71,
    "pavement": 23,
    "building": 24,
    "building-red": 24,
    "building-white": 24,
    "soil": 31,
    "trees": 42,
    "chaparral": 52,
    "field": 82,
    "sea": 11,
    "sand": 31,
}
_COUNT = 80
_SIDE = 132


def write_landsat(root: Path, rng: np.random.Generator) -> None:
    """Write 80 places of 132 × 132 pixels for each of five sensors, half of the real side."""
    keys = rng.integers(2**63, size=_COUNT)
    for sensor, (like, bands, year) in _SENSORS.items():
        folder = root / f"ssl4eo_l_{sensor}_benchmark"
        family = sensor.partition("_")[0]
        masks = root / f"ssl4eo_l_{family}_nlcd"
        for place, key in enumerate(keys):
            canvas, cover = _land(int(key))
            pixels = canvas.render(_sensor(like, bands.split()), BRIGHT)
            scene = Path(f"{place:07d}", f"{like[:8].upper()}_{year}0615")
            write_tiff(folder / scene / "all_bands.tif", pixels, interleave="pixel")
            path = masks / scene / f"nlcd_{year}.tif"
            if not path.exists():
                write_mask(path, cover)


def _land(key: int) -> tuple[Canvas, NDArray[np.uint8]]:
    """Return the canvas of the place of a key, which all sensors see, and its mask."""
    canvas = Canvas(_SIDE, _SIDE, np.random.Generator(np.random.Philox(key=key)))
    districts(canvas, _SCENES, _SIDE // 4, 0.4)
    return canvas, cover_mask(canvas, _COVER, other=21)


def _sensor(like: str, names: list[str]) -> Sensor:
    """Return a sensor with the named bands; a repeated one has a number."""
    table = {band.name: band for band in SENSORS[like].bands}
    bands: list[Band] = []
    for name in names:
        again = sum(band.name.startswith(name) for band in bands)
        band = table[name]
        bands.append(band if not again else Band(f"{name}-{again + 1}", band.wavelength_nm))
    return Sensor("landsat", tuple(bands), "8-bit digital number", "uint8", 255.0, 30)
