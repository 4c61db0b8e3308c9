"""Fields of The World: Sentinel-2 at two dates by country, with masks of fields."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.torchgeo.sketches.pictures import REFLECTANCE, write_mask
from rscl_bench.errors import SpecError
from rscl_bench.sensor_table import SENSORS

#: Country to the number of fields in a picture: large where farms are.
_COUNTRIES = {
    "austria": 60,
    "brazil": 8,
    "cambodia": 200,
    "south_africa": 20,
    "vietnam": 240,
}
#: In these countries, labels are of some fields only, and the rest is unlabelled.
_PRESENCE_ONLY = ("brazil",)
_COUNTS = {"train": 32, "val": 8, "test": 12}
_SIDE = 128
_UNLABELLED = 3


def write_fields(root: Path, rng: np.random.Generator) -> None:
    """Write 52 pairs of 128 × 128 pixels for each of five countries, and their tables.

    Raises:
        SpecError: If no package that writes Parquet files is installed.
    """
    for country, fields in _COUNTRIES.items():
        rows: list[tuple[str, str]] = []
        for split, count in _COUNTS.items():
            for number in range(count):
                name = f"g{len(rows):04d}_{number:05d}_1"
                _write_patch(root / country, name, fields, country in _PRESENCE_ONLY, rng)
                rows.append((name, split))
        _write_table(root / country / f"chips_{country}.parquet", rows)


def _write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    import pandas as pd

    try:
        pd.DataFrame(rows, columns=["aoi_id", "split"]).to_parquet(path)
    except ImportError as error:
        raise SpecError(
            "Fields of The World has tables in Parquet, which need the package pyarrow; install it "
            "with pip install pyarrow."
        ) from error


def _write_patch(
    folder: Path, name: str, fields: int, presence_only: bool, rng: np.random.Generator
) -> None:
    canvas = Canvas(_SIDE, _SIDE, rng)
    canvas.patchwork(("field", "soil", "grass", "field", "trees"), fields)
    mask = _fields(canvas)
    if presence_only:
        mask = np.where(mask == 0, _UNLABELLED, mask).astype(np.uint8)
    sensor = SENSORS["sentinel2-l2a-10m"]
    for window in ("window_a", "window_b"):
        pixels = canvas.render(sensor, REFLECTANCE)
        write_tiff(folder / "s2_images" / window / f"{name}.tif", pixels, interleave="pixel")
    labels = folder / "label_masks"
    write_mask(labels / "semantic_3class" / f"{name}.tif", mask)
    write_mask(labels / "semantic_2class" / f"{name}.tif", np.where(mask == 2, 0, mask))
    write_mask(labels / "instance" / f"{name}.tif", (mask == 1).astype(np.uint8))


def _fields(canvas: Canvas) -> NDArray[np.uint8]:
    """Return 1 in fields, 2 where a field ends, and 0 elsewhere, ``[128, 128]``."""
    inside = canvas.classes({"field": 1, "soil": 2}) != 255
    cells = canvas.cover.astype(np.int32) * 100 + canvas.level
    ends = np.zeros(cells.shape, bool)
    ends[1:] |= cells[1:] != cells[:-1]
    ends[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    edge = ends.repeat(2, axis=0).repeat(2, axis=1)
    mask: NDArray[np.uint8] = (inside * np.where(edge, 2, 1)).astype(np.uint8)
    return mask
