"""What the sketches share: a picture of one scene, and masks of land cover."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import SCENES
from rscl_bench.sensors import Sensor

#: Exposure of pictures of 8 bits.
BRIGHT = Look(middle=0.42, contrast=0.14)
#: Exposure of reflectances: land has a tenth to a third of full brightness.
REFLECTANCE = Look(middle=0.2, contrast=0.06)


def painted(side: int, scene: str, size: float, rng: np.random.Generator) -> Canvas:
    """Return a square canvas with one scene.

    Args:
        side: Side in picture pixels, even.
        scene: Name of the scene.
        size: Size of its objects.
        rng: Source of all randomness.
    """
    canvas = Canvas(side, side, rng)
    SCENES[scene](canvas, size)
    return canvas


def picture(
    side: int,
    scene: tuple[str, float],
    sensor: Sensor,
    rng: np.random.Generator,
    look: Look = BRIGHT,
) -> NDArray[Any]:
    """Return a picture of one scene, ``[side, side, C]``; the scene is a name and a size."""
    return painted(side, *scene, rng).render(sensor, look)


def write_mask(path: Path, mask: NDArray[Any]) -> None:
    """Write a mask ``[H, W]`` as a TIFF of one band."""
    write_tiff(path, mask[:, :, None], compress="deflate")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cover_mask(canvas: Canvas, values: Mapping[str, int], other: int) -> NDArray[np.uint8]:
    """Return a mask ``[H, W]`` with a value for each material of a canvas.

    Args:
        canvas: The canvas.
        values: Material to value; several materials may have one.
        other: Value of every other material.
    """
    table = np.full(256, other, np.uint8)
    table[: len(values)] = list(values.values())
    mask: NDArray[np.uint8] = table[canvas.classes({name: i for i, name in enumerate(values)})]
    return mask
