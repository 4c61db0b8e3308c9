"""The scenes of sketch archives, such as a harbour or a forest, each painted on one canvas.

A scene is a function of a canvas and of ``size``, the scale of its objects: at a size of 1, a
canvas pixel is about half a metre wide.
"""

from collections.abc import Callable, Sequence

from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import ROOFS


def _farmland(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("field", "soil", "field", "grass"), int(canvas.rng.integers(2, 6)))
    if canvas.rng.random() < 0.5:
        canvas.discs("trees", 12, (2 * size, 4 * size), at=canvas.strip("soil", 3 * size))


def _forest(canvas: Canvas, size: float) -> None:
    canvas.fill("grass" if canvas.rng.random() < 0.6 else "soil")
    canvas.discs("trees", _fill_count(canvas, 5 * size), (3 * size, 7 * size))
    if canvas.rng.random() < 0.3:
        canvas.strip("soil", 4 * size, bend=6 * size)


def _meadow(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("grass", "grass", "chaparral"), 4)
    canvas.discs("trees", int(canvas.rng.integers(0, 6)), (2 * size, 4 * size))


def _chaparral(canvas: Canvas, size: float) -> None:
    canvas.fill("chaparral")
    if canvas.rng.random() < 0.3:
        canvas.strip("soil", 3 * size)


def _desert(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("sand", "soil", "sand"), 3)


def _residential(canvas: Canvas, size: float) -> None:
    canvas.fill("grass")
    road = canvas.strip("pavement", 8 * size)
    if canvas.rng.random() < 0.5:
        canvas.strip("pavement", 6 * size)
    canvas.boxes(
        ROOFS[: int(canvas.rng.integers(1, 4))],
        _fill_count(canvas, 14 * size) // 2,
        (9 * size, 16 * size),
        ridge=True,
    )
    canvas.discs("trees", _fill_count(canvas, 16 * size), (2 * size, 5 * size))
    canvas.boxes("car", int(canvas.rng.integers(0, 8)), (2 * size, 3 * size), at=road)


def _industrial(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("pavement", "soil", "pavement"), 3)
    canvas.boxes(
        ("building", "building-white"),
        _fill_count(canvas, 30 * size),
        (20 * size, 36 * size),
        ridge=False,
    )
    canvas.boxes("car", 12, (2 * size, 3 * size))
    if canvas.rng.random() < 0.5:
        canvas.boxes("clutter", 4, (4 * size, 9 * size))


def _parking(canvas: Canvas, size: float) -> None:
    canvas.fill("pavement")
    canvas.grid("car", (int(9 * size), int(4 * size)), (int(5 * size), int(2 * size) + 1))
    if canvas.rng.random() < 0.4:
        canvas.boxes("building-white", 1, (20 * size, 30 * size))


def _road(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("grass", "soil"), 2)
    first = canvas.strip("pavement", 18 * size)
    if canvas.rng.random() < 0.6:
        canvas.strip("bridge", 10 * size)
    canvas.boxes("moving-car", int(canvas.rng.integers(8, 20)), (2 * size, 4 * size), at=first)
    canvas.discs("trees", int(canvas.rng.integers(0, 12)), (2 * size, 4 * size))


def _airport(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("pavement", "grass", "pavement"), 3)
    canvas.strip("pavement", 20 * size)
    canvas.boxes("building-white", 1, (20 * size, 30 * size))
    canvas.crosses("airplane", int(canvas.rng.integers(1, 5)), (22 * size, 34 * size))
    canvas.boxes("car", int(canvas.rng.integers(0, 10)), (2 * size, 3 * size))


def _runway(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("grass", "soil"), 2)
    canvas.strip("pavement", 30 * size)


def _harbor(canvas: Canvas, size: float) -> None:
    canvas.fill("water")
    quay = canvas.strip("dock", 5 * size)
    canvas.boxes("dock", 3, (5 * size, 7 * size), at=quay, aspect=6.0)
    canvas.boxes("ship", int(canvas.rng.integers(6, 16)), (4 * size, 6 * size), aspect=3.0)


def _beach(canvas: Canvas, size: float) -> None:
    canvas.fill("sea")
    canvas.strip("sand", canvas.cover.shape[0] * 0.5, bend=8 * size)
    if canvas.rng.random() < 0.3:
        canvas.discs("trees", 8, (2 * size, 4 * size))


def _river(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("grass", "soil", "chaparral"), 3)
    canvas.discs("trees", _fill_count(canvas, 9 * size), (3 * size, 6 * size))
    canvas.strip("water", 30 * size, bend=12 * size)
    if canvas.rng.random() < 0.5:
        bridge = canvas.strip("bridge", 8 * size)
        canvas.boxes("moving-car", 4, (2 * size, 3 * size), at=bridge)


def _pond(canvas: Canvas, size: float) -> None:
    canvas.fill("grass")
    canvas.discs("water", 2, (18 * size, 30 * size))
    canvas.discs("trees", 14, (2 * size, 5 * size))


def _golf(canvas: Canvas, size: float) -> None:
    canvas.fill("grass")
    canvas.discs("sand", int(canvas.rng.integers(2, 5)), (5 * size, 10 * size))
    canvas.discs("trees", int(canvas.rng.integers(8, 24)), (3 * size, 6 * size))
    if canvas.rng.random() < 0.4:
        canvas.discs("water", 1, (12 * size, 18 * size))


def _baseball(canvas: Canvas, size: float) -> None:
    canvas.fill("grass")
    canvas.discs("soil", 1, (22 * size, 32 * size))
    canvas.discs("grass", 1, (8 * size, 10 * size))
    canvas.boxes("building", int(canvas.rng.integers(0, 3)), (9 * size, 14 * size), ridge=True)
    canvas.discs("trees", int(canvas.rng.integers(0, 10)), (2 * size, 5 * size))


def _tanks(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("soil", "pavement"), 2)
    canvas.discs("tank", int(canvas.rng.integers(3, 8)), (10 * size, 18 * size))
    canvas.boxes("building", int(canvas.rng.integers(0, 3)), (9 * size, 14 * size))


def _courts(canvas: Canvas, size: float) -> None:
    canvas.fill("grass")
    canvas.boxes("court", int(canvas.rng.integers(1, 5)), (16 * size, 20 * size))
    canvas.discs("trees", int(canvas.rng.integers(4, 16)), (2 * size, 5 * size))
    canvas.boxes(ROOFS, int(canvas.rng.integers(0, 3)), (10 * size, 16 * size), ridge=True)
    canvas.boxes("car", int(canvas.rng.integers(0, 6)), (2 * size, 3 * size))


def _mobile_homes(canvas: Canvas, size: float) -> None:
    canvas.patchwork(("pavement", "grass"), 3)
    canvas.grid("mobile-home", (int(16 * size), int(9 * size)), (int(11 * size), int(5 * size)))
    canvas.boxes("car", 8, (2 * size, 3 * size))
    canvas.discs("trees", int(canvas.rng.integers(2, 14)), (2 * size, 4 * size))


def _fill_count(canvas: Canvas, spacing: float) -> int:
    """Return the number of objects that fill the canvas at a spacing, at least 1."""
    return max(int(canvas.cover.size / (spacing * spacing)), 1)


#: Scene by name: a function that paints a whole canvas at a size of objects.
SCENES: dict[str, Callable[[Canvas, float], None]] = {
    "airport": _airport,
    "baseball": _baseball,
    "beach": _beach,
    "chaparral": _chaparral,
    "courts": _courts,
    "desert": _desert,
    "farmland": _farmland,
    "forest": _forest,
    "golf": _golf,
    "harbor": _harbor,
    "industrial": _industrial,
    "meadow": _meadow,
    "mobile-homes": _mobile_homes,
    "parking": _parking,
    "pond": _pond,
    "residential": _residential,
    "river": _river,
    "road": _road,
    "runway": _runway,
    "tanks": _tanks,
}


def districts(canvas: Canvas, scenes: Sequence[str], side: int, size: float) -> None:
    """Paint a large canvas as squares, each of one randomly chosen scene under its own light.

    Args:
        canvas: The canvas.
        scenes: Names in ``SCENES`` to choose from at random.
        side: Side of a square in canvas pixels.
        size: Size of the objects.
    """
    height, width = canvas.cover.shape
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    for number, (top, left) in enumerate(corners):
        square = canvas.window(top, left, side, side)
        square.light[:] = number
        SCENES[scenes[int(canvas.rng.integers(len(scenes)))]](square, size)
