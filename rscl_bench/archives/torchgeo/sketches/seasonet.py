"""SeasoNet: Sentinel-2 patches of Germany in five seasons, with masks of land cover."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import districts
from rscl_bench.archives.torchgeo.sketches.pictures import cover_mask, write_lines, write_mask
from rscl_bench.sensor_table import SENSORS, with_bands

#: Exposure of each season: snow is bright, winter dark and flat.
_LOOKS = {
    "Spring": Look(0.2, 0.06),
    "Summer": Look(0.22, 0.07),
    "Fall": Look(0.17, 0.05),
    "Winter": Look(0.12, 0.03),
    "Snow": Look(0.55, 0.12),
}
#: Group of bands to the operator's names and the pixels of a side.
_GROUPS = {
    "10m_RGB": ("B04 B03 B02", 120),
    "10m_IR": ("B08", 120),
    "20m": ("B05 B06 B07 B8A B11 B12", 60),
    "60m": ("B01 B09", 20),
}
_SCENES = ("farmland", "forest", "river", "residential", "industrial", "meadow", "pond")
#: Materials to the numbers of the masks, which count the 33 classes from 1.
_COVER = {
    "field": 12,
    "soil": 12,
    "grass": 15,
    "chaparral": 20,
    "trees": 16,
    "water": 30,
    "pavement": 4,
    "building": 2,
    "building-red": 2,
    "building-white": 3,
}
_COUNTS = {"train": 48, "val": 12, "test": 16}
_SIDE = 120


def write_seasonet(root: Path, rng: np.random.Generator) -> None:
    """Write 76 patches of each season, the lists of the splits and the table of all patches."""
    rows: list[str] = []
    lists: dict[str, list[str]] = {split: [] for split in _COUNTS}
    for season, look in _LOOKS.items():
        for split, count in _COUNTS.items():
            for _ in range(count):
                number = len(rows)
                grid = 1 if number % 4 else 2
                name = f"32UNA_{20180400 + number}_{100_000 + number}"
                _write_patch(root / season.lower() / f"grid{grid}" / name, look, rng)
                latitude, longitude = rng.uniform(47, 55), rng.uniform(6, 15)
                path = f"{season.lower()}/grid{grid}/{name}"
                rows.append(
                    f"{number},{season},{grid},{latitude:.6f},{longitude:.6f},S2A,32UNA,{path}"
                )
                lists[split].append(str(number))
    header = "Index,Season,Grid,Latitude,Longitude,Satellite,Tile,Path"
    write_lines(root / "meta.csv", [header, *rows])
    for split, numbers_of in lists.items():
        write_lines(root / "splits" / f"{split}.csv", numbers_of)


def _write_patch(folder: Path, look: Look, rng: np.random.Generator) -> None:
    canvas = Canvas(_SIDE, _SIDE, rng)
    districts(canvas, _SCENES, _SIDE // 4, 0.4)
    sensor = SENSORS["sentinel2-l2a"]
    pixels = canvas.render(sensor, look)
    names = [band.name for band in sensor.bands]
    for group, (operator, side) in _GROUPS.items():
        bands = with_bands(sensor, operator.split()).bands
        chosen = pixels[:: _SIDE // side, :: _SIDE // side, [names.index(b.name) for b in bands]]
        write_tiff(folder / f"{folder.name}_{group}.tif", chosen)
    mask = cover_mask(canvas, _COVER, other=11)
    write_mask(folder / f"{folder.name}_labels.tif", mask)
