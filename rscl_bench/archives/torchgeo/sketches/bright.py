"""BRIGHT, as in the Data Fusion Contest of 2025: optical images before, radar images after."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.torchgeo.sketches.disasters import damage, seen, town
from rscl_bench.archives.torchgeo.sketches.pictures import write_lines, write_mask

#: Events of the training set and of the holdout; the contest's test has two others.
EVENTS = (
    "bata-explosion",
    "beirut-explosion",
    "congo-volcano",
    "haiti-earthquake",
    "hawaii-wildfire",
    "la_palma-volcano",
    "libya-flood",
    "morocco-earthquake",
    "turkey-earthquake",
)
_TEST_EVENTS = ("marshall-wildfire", "noto-earthquake")
#: File of a split to the number of pairs of each event.
_LISTS = {"train_setlevel.txt": 6, "holdout_setlevel.txt": 2}
_TEST_LIST, _TEST_COUNT = "val_setlevel.txt", 2


def write_bright(root: Path, rng: np.random.Generator) -> None:
    """Write 8 pairs of 256 × 256 pixels of each event, and four without targets."""
    folder = root / "dfc25_track2_trainval"
    for listing, count in _LISTS.items():
        names = [f"{event}_{number:08d}" for event in EVENTS for number in range(count)]
        if listing != "train_setlevel.txt":
            names = [f"{name[:-8]}{int(name[-8:]) + 100:08d}" for name in names]
        for name in names:
            _write_pair(folder / "train", name, rng, with_target=True)
        write_lines(folder / listing, names)
    names = [f"{event}_{number:08d}" for event in _TEST_EVENTS for number in range(_TEST_COUNT)]
    for name in names:
        _write_pair(folder / "val", name, rng, with_target=False)
    write_lines(folder / _TEST_LIST, names)


def _write_pair(folder: Path, name: str, rng: np.random.Generator, with_target: bool) -> None:
    canvas, standing = town(rng)
    grade = damage(standing, 3, rng)
    write_tiff(folder / "pre-event" / f"{name}_pre_disaster.tif", seen(canvas), interleave="pixel")
    radar = _radar(seen(canvas)[:, :, 1], grade, rng)
    write_tiff(folder / "post-event" / f"{name}_post_disaster.tif", radar[:, :, None])
    if with_target:
        write_mask(folder / "target" / f"{name}_building_damage.tif", grade)


def _radar(
    brightness: NDArray[np.uint8], grade: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return an amplitude ``[H, W]`` with speckle; walls of intact buildings reflect strongly."""
    echo = 0.4 * brightness.astype(float)
    echo *= np.array([1.0, 3.0, 2.0, 1.2])[grade]
    amplitude: NDArray[np.uint8] = np.clip(
        echo * rng.rayleigh(0.8, brightness.shape), 0, 255
    ).astype(np.uint8)
    return amplitude
