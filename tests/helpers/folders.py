"""Small folders of images for tests, and the adapter that reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.files import write_picture, write_tiff
from rscl_bench.archives.lookup import adapter_class

#: Options of a sensor of one thermal band.
THERMAL = {"bands": [{"name": "lwir", "wavelength_nm": 10_000.0}]}


def opened(data: Path, split: str, **options: Any) -> DatasetAdapter:
    """Open a split of the folder ``frames`` below a data root."""
    return opened_with(data, split, options)


def opened_with(data: Path, split: str, options: Mapping[str, Any]) -> DatasetAdapter:
    chosen = {"root": "frames", "sensor": "rgb8", **options}
    return adapter_class("folder", chosen)(data, split, chosen)


def names(adapter: DatasetAdapter) -> list[str]:
    """Return the paths of the images below root."""
    return [adapter.canonical_path(path) for path in adapter.files]


def write(data: Path, *images: str, bands: int = 3, side: int = 16) -> list[Path]:
    """Write images of random pixels below ``frames``, each with pixels of its own."""
    paths = [data / "frames" / image for image in images]
    for path in paths:
        pixels = noise(path.name, (side, side, bands))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            write_tiff(path, pixels)
        elif path.suffix == ".npy":
            np.save(path, pixels)
        else:
            write_picture(path, pixels.squeeze())
    return paths


def write_text(data: Path, name: str, *lines: str) -> Path:
    path = data / "frames" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def noise(name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return pixels that depend on a name."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(1, 255, shape, np.uint8)
