"""The painter of sketch archives: land cover drawn as textured shapes, then seen by a sensor.

A canvas holds two maps at half the resolution of the picture: which material lies at a pixel, and
how bright it is there. ``render`` looks both up in a table of the sensor's digital numbers, so that
picture, mask and labels agree by construction. Half resolution, because it makes painting four
times cheaper and lets lossless files compress.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.sensors import Sensor

#: Wavelengths in nanometres at which a material's reflectance is given.
WAVELENGTHS_NM = (450.0, 550.0, 650.0, 850.0)
_LEVELS = 64
_MIDDLE = _LEVELS // 2
_LEVEL_STEP = 0.025


@dataclass(frozen=True)
class Material:
    """What a pixel can be made of.

    Attributes:
        name: Its name.
        reflectance: At the wavelengths of ``WAVELENGTHS_NM``, between 0 and 1.
        grain: Deviation of its brightness from pixel to pixel, in levels of 2.5 %.
        rows: Height of its stripes, in the same levels.
    """

    name: str
    reflectance: tuple[float, float, float, float]
    grain: float
    rows: float = 0.0


MATERIALS = (
    Material("soil", (0.10, 0.16, 0.24, 0.32), 3.0),
    Material("grass", (0.05, 0.12, 0.07, 0.40), 2.5),
    Material("field", (0.06, 0.14, 0.11, 0.38), 2.0, 8.0),
    Material("chaparral", (0.07, 0.11, 0.12, 0.25), 9.0),
    Material("trees", (0.03, 0.07, 0.04, 0.42), 6.0),
    Material("sand", (0.24, 0.32, 0.38, 0.44), 1.5),
    Material("water", (0.08, 0.09, 0.06, 0.02), 1.0),
    Material("sea", (0.11, 0.10, 0.05, 0.02), 2.0, 5.0),
    Material("pavement", (0.14, 0.15, 0.16, 0.18), 1.5),
    Material("building", (0.20, 0.21, 0.22, 0.25), 1.0, 2.0),
    Material("building-red", (0.10, 0.14, 0.28, 0.34), 1.5, 3.0),
    Material("building-white", (0.36, 0.38, 0.39, 0.41), 1.0),
    Material("mobile-home", (0.32, 0.33, 0.32, 0.35), 1.0, 4.0),
    Material("car", (0.34, 0.27, 0.22, 0.22), 5.0),
    Material("moving-car", (0.16, 0.22, 0.36, 0.30), 4.0),
    Material("airplane", (0.38, 0.40, 0.41, 0.42), 1.0),
    Material("ship", (0.34, 0.33, 0.30, 0.28), 3.0),
    Material("tank", (0.39, 0.39, 0.36, 0.36), 1.0),
    Material("court", (0.16, 0.20, 0.12, 0.16), 1.0),
    Material("dock", (0.18, 0.20, 0.22, 0.26), 1.5, 5.0),
    Material("clutter", (0.18, 0.14, 0.20, 0.26), 10.0),
    Material("bridge", (0.22, 0.23, 0.24, 0.26), 1.5),
    Material("human", (0.08, 0.06, 0.30, 0.30), 4.0),
)
ROOFS = ("building", "building-red", "building-white")


@dataclass(frozen=True)
class Look:
    """How an archive's camera and season make all its pictures look.

    Attributes:
        gain: Digital numbers per reflectance, as a share of full scale.
        haze: Brightness that the air adds at 480 nm, as a share of full scale.
    """

    gain: float
    haze: float


class Canvas:
    """A map of materials and brightness levels, painted over from the ground up.

    All lengths are in canvas pixels, of which one is two picture pixels wide.

    Attributes:
        cover: Index into ``materials`` of every canvas pixel, ``[h, w]`` ``uint8``.
        level: Brightness level, ``[h, w]`` ``int16``, 0 in the middle.
        materials: The materials.
        rng: Source of all randomness.
    """

    def __init__(
        self,
        height: int,
        width: int,
        rng: np.random.Generator,
        materials: Sequence[Material] = MATERIALS,
    ):
        """Make an empty canvas for a picture of a height and width in pixels, both even."""
        if height % 2 or width % 2:
            raise ValueError(f"a sketch picture has even sides, not {width}×{height}")
        self.cover: NDArray[np.uint8] = np.zeros((height // 2, width // 2), np.uint8)
        self.level: NDArray[np.int16] = np.zeros((height // 2, width // 2), np.int16)
        self.materials = tuple(materials)
        self.rng = rng
        self._index = {material.name: i for i, material in enumerate(self.materials)}

    def window(self, top: int, left: int, height: int, width: int) -> "Canvas":
        """Return a part of the canvas, in canvas pixels; painting on it paints on this one."""
        part = Canvas(0, 0, self.rng, self.materials)
        part.cover = self.cover[top : top + height, left : left + width]
        part.level = self.level[top : top + height, left : left + width]
        return part

    def fill(self, material: str) -> None:
        """Cover everything with a material."""
        self.cover[:] = self._index[material]
        self.level[:] = self.rng.integers(-4, 5)

    def patchwork(self, materials: Sequence[str], count: int) -> None:
        """Divide the ground into cells around random centres, each of one material."""
        height, width = self.cover.shape
        centres = self.rng.random((count, 2)) * (height, width)
        chosen = [self._index[materials[i % len(materials)]] for i in range(count)]
        shades = self.rng.integers(-6, 7, count)
        y = np.arange(height, dtype=np.float32)[:, None]
        x = np.arange(width, dtype=np.float32)[None, :]
        nearest = np.argmin(
            np.stack([np.square(y - cy) + np.square(x - cx) for cy, cx in centres]), axis=0
        )
        self.cover[:] = np.array(chosen, np.uint8)[nearest]
        self.level[:] = shades.astype(np.int16)[nearest]

    def strip(
        self, material: str, thickness: float, bend: float = 0.0, upright: bool | None = None
    ) -> NDArray[np.int64]:
        """Draw a band across the whole canvas, as a road or a river.

        Args:
            material: What it is made of.
            thickness: Its width.
            bend: Height of its one meander.
            upright: Whether it runs from top to bottom; drawn at random if None.

        Returns:
            Points on its centre line, ``[n, 2]`` rows and columns.
        """
        height, width = self.cover.shape
        if upright is None:
            upright = bool(self.rng.random() < 0.5)
        length, across = (height, width) if upright else (width, height)
        along = np.arange(length)
        start, slope, phase = self.rng.uniform((0.2, -0.25, 0.0), (0.8, 0.25, 6.28))
        wave = bend * np.sin(along / length * 6.28 + phase)
        centre = across * start + slope * (along - length / 2) + wave
        inside = np.abs(np.arange(across)[None, :] - centre[:, None]) < thickness / 2
        inside = inside if upright else inside.T
        self.cover[inside] = self._index[material]
        self.level[inside] = self.rng.integers(-3, 4)
        points = np.stack([along, np.rint(centre).astype(np.int64)], axis=1)
        return points if upright else points[:, ::-1]

    def boxes(
        self,
        materials: str | Sequence[str],
        count: int,
        size: tuple[float, float],
        ridge: bool = False,
        at: NDArray[np.int64] | None = None,
        aspect: float = 2.0,
    ) -> None:
        """Draw upright rectangles: roofs, cars, docks.

        Args:
            materials: One material, or several to draw from.
            count: How many.
            size: Smallest and largest side.
            ridge: Whether one half is darker than the other, as on a pitched roof.
            at: Centres to draw from, ``[n, 2]``; anywhere if None.
            aspect: Largest ratio of the sides.
        """
        names = [materials] if isinstance(materials, str) else list(materials)
        for y, x in self._places(count, at):
            short = self.rng.uniform(*size)
            long = short * self.rng.uniform(1.0, aspect)
            high, wide = (short, long) if self.rng.random() < 0.5 else (long, short)
            top, left = int(y - high / 2), int(x - wide / 2)
            bottom, right = top + max(int(high), 1), left + max(int(wide), 1)
            self._shade(top + 2, bottom + 2, left + 2, right + 2)
            shade = int(self.rng.integers(-6, 7))
            name = names[int(self.rng.integers(len(names)))]
            self._stamp(top, bottom, left, right, name, shade)
            if ridge:
                self._stamp((top + bottom) // 2, bottom, left, right, name, shade - 7)

    def discs(
        self,
        material: str,
        count: int,
        radius: tuple[float, float],
        at: NDArray[np.int64] | None = None,
    ) -> None:
        """Draw discs that are brighter towards the upper left: tree crowns, tanks, ponds."""
        height, width = self.cover.shape
        index = self._index[material]
        for y, x in self._places(count, at):
            inside, slope = _disc(round(2 * float(self.rng.uniform(*radius))))
            half = len(inside) // 2
            top, left = max(half - y, 0), max(half - x, 0)
            part = np.s_[top : height - y + half, left : width - x + half]
            place = np.s_[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]
            shade = int(self.rng.integers(-4, 5))
            np.copyto(self.cover[place], np.uint8(index), where=inside[part])
            np.copyto(self.level[place], slope[part] + np.int16(shade), where=inside[part])

    def crosses(self, material: str, count: int, size: tuple[float, float]) -> None:
        """Draw crosses of two bars: airplanes."""
        for y, x in self._places(count, None):
            half = int(self.rng.uniform(*size) / 2)
            arm = max(half // 4, 1)
            self._stamp(y - half, y + half, x - arm, x + arm, material, 2)
            self._stamp(y - arm, y + arm, x - half, x + half, material, 0)

    def grid(self, material: str, pitch: tuple[int, int], size: tuple[int, int]) -> None:
        """Draw rows of equal rectangles with some left out: parked cars, mobile homes."""
        height, width = self.cover.shape
        for top in range(2, height - size[0], pitch[0]):
            for left in range(2, width - size[1], pitch[1]):
                if self.rng.random() < 0.8:
                    shade = int(self.rng.integers(-8, 9))
                    self._stamp(top, top + size[0], left, left + size[1], material, shade)

    def has(self, materials: Sequence[str], pixels: int = 6) -> bool:
        """Return whether the materials together cover at least a number of canvas pixels."""
        counts = np.bincount(self.cover.ravel(), minlength=len(self.materials))
        return int(sum(counts[self._index[name]] for name in materials)) >= pixels

    def share(self, material: str) -> float:
        """Return the share of the canvas that a material covers."""
        return float((self.cover == self._index[material]).mean())

    def classes(self, table: dict[str, int]) -> NDArray[np.uint8]:
        """Return the picture's mask, ``[H, W]`` ``uint8``.

        Args:
            table: Class index of every material by name; 255 where a name is not in it.
        """
        values = np.array([table.get(m.name, 255) for m in self.materials], np.uint8)
        return doubled(values[self.cover])

    def render(self, sensor: Sensor, look: Look) -> NDArray[Any]:
        """Return the picture as a sensor sees it, ``[H, W, C]`` in the sensor's dtype."""
        grain = np.array([m.grain for m in self.materials], np.float32)[self.cover]
        grain *= self.rng.standard_normal(self.cover.shape, dtype=np.float32)
        level = self.level + grain + self._stripes()
        level = np.clip(np.rint(level) + _MIDDLE, 0, _LEVELS - 1).astype(np.intp)
        return doubled(_numbers(self.materials, sensor, look)[self.cover, level])

    def _stripes(self) -> NDArray[np.float32]:
        rows = np.array([m.rows for m in self.materials], np.float32)
        height, width = self.cover.shape
        angle = self.rng.uniform(0, np.pi)
        period = self.rng.uniform(5, 9)
        y = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle) / period)
        x = np.arange(width, dtype=np.float32)[None, :] * np.float32(np.cos(angle) / period)
        wave = np.abs((y + x) % 1.0 - 0.5) * 4.0 - 1.0
        stripes: NDArray[np.float32] = (rows[self.cover] * wave).astype(np.float32)
        return stripes

    def _places(self, count: int, at: NDArray[np.int64] | None) -> list[tuple[int, int]]:
        if at is None:
            at = (self.rng.random((count, 2)) * self.cover.shape).astype(np.int64)
        else:
            at = at[self.rng.integers(len(at), size=count)]
        return [(int(y), int(x)) for y, x in at]

    def _stamp(
        self, top: int, bottom: int, left: int, right: int, material: str, level: int
    ) -> None:
        area = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        self.cover[area] = self._index[material]
        self.level[area] = level

    def _shade(self, top: int, bottom: int, left: int, right: int) -> None:
        area = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        self.level[area] -= 10


@cache
def _disc(diameter: int) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Return where a disc is within its square, and how bright it is there beyond its shade."""
    radius = max(diameter / 2, 0.5)
    reach = np.arange(-int(radius), int(radius) + 1)
    y, x = reach[:, None], reach[None, :]
    return y * y + x * x <= radius * radius, (-6 * (y + x) / radius).astype(np.int16)


def doubled(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return an image with every pixel four times, ``[2h, 2w, ...]``."""
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def _numbers(materials: Sequence[Material], sensor: Sensor, look: Look) -> NDArray[Any]:
    """Return the digital numbers of every material at every level: ``[materials, levels, C]``."""
    wavelengths = [band.wavelength_nm for band in sensor.bands]
    reflectance = np.array(
        [np.interp(wavelengths, WAVELENGTHS_NM, m.reflectance) for m in materials]
    )
    light = 1.0 + _LEVEL_STEP * (np.arange(_LEVELS) - _MIDDLE)
    air = look.haze * np.square(480.0 / np.array(wavelengths))
    shares = look.gain * reflectance[:, None, :] * light[None, :, None] + air
    numbers: NDArray[Any] = np.rint(np.clip(shares, 0.0, 1.0) * sensor.scale).astype(sensor.dtype)
    return numbers


# What the scenes are. `s` is the size of things: 1 where a canvas pixel is about half a metre.


def _farmland(c: Canvas, s: float) -> None:
    c.patchwork(("field", "soil", "field", "grass"), int(c.rng.integers(2, 6)))
    if c.rng.random() < 0.5:
        c.discs("trees", 12, (2 * s, 4 * s), at=c.strip("soil", 3 * s))


def _forest(c: Canvas, s: float) -> None:
    c.fill("grass" if c.rng.random() < 0.6 else "soil")
    c.discs("trees", _dense(c, 5 * s), (3 * s, 7 * s))
    if c.rng.random() < 0.3:
        c.strip("soil", 4 * s, bend=6 * s)


def _meadow(c: Canvas, s: float) -> None:
    c.patchwork(("grass", "grass", "chaparral"), 4)
    c.discs("trees", int(c.rng.integers(0, 6)), (2 * s, 4 * s))


def _chaparral(c: Canvas, s: float) -> None:
    c.fill("chaparral")
    if c.rng.random() < 0.3:
        c.strip("soil", 3 * s)


def _desert(c: Canvas, s: float) -> None:
    c.patchwork(("sand", "soil", "sand"), 3)


def _residential(c: Canvas, s: float) -> None:
    c.fill("grass")
    road = c.strip("pavement", 8 * s)
    if c.rng.random() < 0.5:
        c.strip("pavement", 6 * s)
    c.boxes(ROOFS[: int(c.rng.integers(1, 4))], _dense(c, 14 * s) // 2, (9 * s, 16 * s), ridge=True)
    c.discs("trees", _dense(c, 16 * s), (2 * s, 5 * s))
    c.boxes("car", int(c.rng.integers(0, 8)), (2 * s, 3 * s), at=road)


def _industrial(c: Canvas, s: float) -> None:
    c.patchwork(("pavement", "soil", "pavement"), 3)
    c.boxes(("building", "building-white"), _dense(c, 30 * s), (20 * s, 36 * s), ridge=False)
    c.boxes("car", 12, (2 * s, 3 * s))
    if c.rng.random() < 0.5:
        c.boxes("clutter", 4, (4 * s, 9 * s))


def _parking(c: Canvas, s: float) -> None:
    c.fill("pavement")
    c.grid("car", (int(9 * s), int(4 * s)), (int(5 * s), int(2 * s) + 1))
    if c.rng.random() < 0.4:
        c.boxes("building-white", 1, (20 * s, 30 * s))


def _road(c: Canvas, s: float) -> None:
    c.patchwork(("grass", "soil"), 2)
    first = c.strip("pavement", 18 * s)
    if c.rng.random() < 0.6:
        c.strip("bridge", 10 * s)
    c.boxes("moving-car", int(c.rng.integers(8, 20)), (2 * s, 4 * s), at=first)
    c.discs("trees", int(c.rng.integers(0, 12)), (2 * s, 4 * s))


def _airport(c: Canvas, s: float) -> None:
    c.patchwork(("pavement", "grass", "pavement"), 3)
    c.strip("pavement", 20 * s)
    c.boxes("building-white", 1, (20 * s, 30 * s))
    c.crosses("airplane", int(c.rng.integers(1, 5)), (22 * s, 34 * s))
    c.boxes("car", int(c.rng.integers(0, 10)), (2 * s, 3 * s))


def _runway(c: Canvas, s: float) -> None:
    c.patchwork(("grass", "soil"), 2)
    c.strip("pavement", 30 * s)


def _harbor(c: Canvas, s: float) -> None:
    c.fill("water")
    quay = c.strip("dock", 5 * s)
    c.boxes("dock", 3, (5 * s, 7 * s), at=quay, aspect=6.0)
    c.boxes("ship", int(c.rng.integers(6, 16)), (4 * s, 6 * s), aspect=3.0)


def _beach(c: Canvas, s: float) -> None:
    c.fill("sea")
    c.strip("sand", c.cover.shape[0] * 0.5, bend=8 * s)
    if c.rng.random() < 0.3:
        c.discs("trees", 8, (2 * s, 4 * s))


def _river(c: Canvas, s: float) -> None:
    c.patchwork(("grass", "soil", "chaparral"), 3)
    c.discs("trees", _dense(c, 9 * s), (3 * s, 6 * s))
    c.strip("water", 30 * s, bend=12 * s)
    if c.rng.random() < 0.5:
        bridge = c.strip("bridge", 8 * s)
        c.boxes("moving-car", 4, (2 * s, 3 * s), at=bridge)


def _pond(c: Canvas, s: float) -> None:
    c.fill("grass")
    c.discs("water", 2, (18 * s, 30 * s))
    c.discs("trees", 14, (2 * s, 5 * s))


def _golf(c: Canvas, s: float) -> None:
    c.fill("grass")
    c.discs("sand", int(c.rng.integers(2, 5)), (5 * s, 10 * s))
    c.discs("trees", int(c.rng.integers(8, 24)), (3 * s, 6 * s))
    if c.rng.random() < 0.4:
        c.discs("water", 1, (12 * s, 18 * s))


def _baseball(c: Canvas, s: float) -> None:
    c.fill("grass")
    c.discs("soil", 1, (22 * s, 32 * s))
    c.discs("grass", 1, (8 * s, 10 * s))
    c.boxes("building", int(c.rng.integers(0, 3)), (9 * s, 14 * s), ridge=True)
    c.discs("trees", int(c.rng.integers(0, 10)), (2 * s, 5 * s))


def _tanks(c: Canvas, s: float) -> None:
    c.patchwork(("soil", "pavement"), 2)
    c.discs("tank", int(c.rng.integers(3, 8)), (10 * s, 18 * s))
    c.boxes("building", int(c.rng.integers(0, 3)), (9 * s, 14 * s))


def _courts(c: Canvas, s: float) -> None:
    c.fill("grass")
    c.boxes("court", int(c.rng.integers(1, 5)), (16 * s, 20 * s))
    c.discs("trees", int(c.rng.integers(4, 16)), (2 * s, 5 * s))
    c.boxes(ROOFS, int(c.rng.integers(0, 3)), (10 * s, 16 * s), ridge=True)
    c.boxes("car", int(c.rng.integers(0, 6)), (2 * s, 3 * s))


def _mobile_homes(c: Canvas, s: float) -> None:
    c.patchwork(("pavement", "grass"), 3)
    c.grid("mobile-home", (int(16 * s), int(9 * s)), (int(11 * s), int(5 * s)))
    c.boxes("car", 8, (2 * s, 3 * s))
    c.discs("trees", int(c.rng.integers(2, 14)), (2 * s, 4 * s))


def _dense(c: Canvas, spacing: float) -> int:
    """Return how many things of a spacing fill the canvas."""
    return max(int(c.cover.size / (spacing * spacing)), 1)


#: Scene by name, each drawn on a whole canvas at a size of things.
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
    """Paint a large canvas as a town: a square of one scene beside a square of another.

    Args:
        canvas: The canvas.
        scenes: Names in ``SCENES`` to draw from.
        side: Side of a square in canvas pixels.
        size: Size of things.
    """
    height, width = canvas.cover.shape
    for top in range(0, height, side):
        for left in range(0, width, side):
            part = canvas.window(top, left, side, side)
            SCENES[scenes[int(canvas.rng.integers(len(scenes)))]](part, size)
