"""Towns before and after a disaster, for the sketches of archives of damage."""

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import ROOFS
from rscl_bench.archives.torchgeo.sketches.pictures import BRIGHT, painted
from rscl_bench.sensors import RGB8

_SIDE = 256
_SCENES = (("residential", 1.0), ("industrial", 0.8), ("residential", 0.7))


def town(rng: np.random.Generator) -> tuple[Canvas, NDArray[np.bool_]]:
    """Return a canvas of 256 × 256 pixels, and where its buildings stand, ``[256, 256]``."""
    canvas = painted(_SIDE, *_SCENES[int(rng.integers(len(_SCENES)))], rng)
    standing = canvas.classes(dict.fromkeys(ROOFS, 1)) == 1
    return canvas, standing


def seen(canvas: Canvas) -> NDArray[np.uint8]:
    """Return the picture of a canvas in red, green and blue, ``[256, 256, 3]``."""
    pixels: NDArray[np.uint8] = canvas.render(RGB8, BRIGHT)
    return pixels


def damage(standing: NDArray[np.bool_], grades: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the grade of damage of every pixel, ``[256, 256]``: 0 without a building, then 1 up.

    A disaster spares none, some or all quarters of a picture, as floods and fires do.
    """
    grade = np.ones((2, 2), np.uint8)
    hit = rng.random((2, 2)) < 0.6
    grade[hit] = rng.integers(1, grades + 1, int(hit.sum()))
    quarters: NDArray[np.uint8] = grade.repeat(_SIDE // 2, axis=0).repeat(_SIDE // 2, axis=1)
    return np.where(standing, quarters, 0).astype(np.uint8)


def debris(
    pixels: NDArray[np.uint8], grade: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a picture in which damaged buildings are rubble, the rougher the higher the grade."""
    rough = rng.normal(0, 30, pixels.shape) * np.maximum(grade.astype(float) - 1, 0)[:, :, None]
    rubble: NDArray[np.uint8] = np.clip(pixels + rough, 0, 255).astype(np.uint8)
    return rubble
