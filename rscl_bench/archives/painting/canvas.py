"""The canvas of sketch archives: land cover drawn as shapes with relief, then seen by a sensor.

A canvas holds two maps at half the resolution of the picture: the material and the brightness
level of every pixel. ``render`` and ``classes`` look up the same map of materials, so that picture,
mask and labels agree by construction. Half resolution makes painting four times cheaper and lets
lossless files compress.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.painting.materials import (
    LEVEL_STEP,
    MATERIALS,
    WAVELENGTHS_NM,
    Look,
    Material,
    drawn_colours,
)
from rscl_bench.sensors import Sensor

_LONGEST_VISIBLE_NM = 700.0
#: Distance of two ridges in canvas pixels: three and a half patches of 8 pixels in a view of 64.
_PERIOD = 56
#: Height of a ridge above the mean, in levels.
_RIDGE = 28
#: Standard deviation of the brightness from pixel to pixel, in levels.
_GRAIN = 0.5
#: Largest turn of the ridges of a picture, in radians.
_TURN = 0.15
#: Largest brightness that a light adds to one band, and to all bands together.
_CAST, _EXPOSURE = 0.002, 0.03
#: A flatter picture is not stretched further: noise would become its content.
_LEAST_DEVIATION = 0.01


class Canvas:
    """A map of materials and brightness levels; later shapes cover earlier ones.

    All lengths are in canvas pixels; a canvas pixel is two picture pixels wide.

    Attributes:
        cover: Index into ``materials`` of every canvas pixel, ``[h, w]`` ``uint8``.
        level: Brightness level of every canvas pixel, ``[h, w]`` ``int16``; 0 is the middle level.
        light: Number of the light that falls on every canvas pixel, ``[h, w]`` ``uint8``.
        materials: The materials that can lie on the canvas.
        rng: Source of all randomness.
    """

    def __init__(
        self,
        height: int,
        width: int,
        rng: np.random.Generator,
        materials: Sequence[Material] = MATERIALS,
    ):
        """Make an empty canvas.

        Args:
            height: Height of the picture in picture pixels, even.
            width: Width of the picture in picture pixels, even.
            rng: Source of all randomness.
            materials: The materials that can lie on the canvas.

        Raises:
            ValueError: If a side is odd.
        """
        if height % 2 or width % 2:
            raise ValueError(f"a sketch picture has even sides, not {width}×{height}")
        self.cover: NDArray[np.uint8] = np.zeros((height // 2, width // 2), np.uint8)
        self.level: NDArray[np.int16] = np.zeros((height // 2, width // 2), np.int16)
        self.light: NDArray[np.uint8] = np.zeros((height // 2, width // 2), np.uint8)
        self.materials = tuple(materials)
        self.rng = rng
        self._index = {material.name: i for i, material in enumerate(self.materials)}

    def window(self, top: int, left: int, height: int, width: int) -> "Canvas":
        """Return a view of a rectangle: painting on the view paints on this canvas."""
        view = Canvas(0, 0, self.rng, self.materials)
        view.cover = self.cover[top : top + height, left : left + width]
        view.level = self.level[top : top + height, left : left + width]
        view.light = self.light[top : top + height, left : left + width]
        return view

    def fill(self, material: str) -> None:
        """Cover the whole canvas with one material."""
        self.cover[:] = self._index[material]
        self.level[:] = self.rng.integers(-2, 3)

    def patchwork(self, materials: Sequence[str], count: int) -> None:
        """Divide the canvas into ``count`` Voronoi cells, each of one material."""
        height, width = self.cover.shape
        centres = self.rng.random((count, 2)) * (height, width)
        chosen = [self._index[materials[i % len(materials)]] for i in range(count)]
        shades = self.rng.integers(-2, 3, count)
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
        """Draw a band across the whole canvas: a road or a river.

        Args:
            material: Material of the band.
            thickness: Width of the band.
            bend: Amplitude of the one meander of the band.
            upright: Whether the band runs from top to bottom; drawn at random if None.

        Returns:
            Points on the centre line, ``[n, 2]`` rows and columns.
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
        self.level[inside] = self.rng.integers(-2, 3)
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
            materials: One material, or several to choose from at random.
            count: Number of rectangles.
            size: Smallest and largest length of the short side.
            ridge: Whether the lower half is darker than the upper, as on a pitched roof.
            at: Centres to choose from at random, ``[n, 2]``; any pixel if None.
            aspect: Largest ratio of the sides.
        """
        names = [materials] if isinstance(materials, str) else list(materials)
        for y, x in self._centres(count, at):
            short = self.rng.uniform(*size)
            long = short * self.rng.uniform(1.0, aspect)
            high, wide = (short, long) if self.rng.random() < 0.5 else (long, short)
            top, left = int(y - high / 2), int(x - wide / 2)
            bottom, right = top + max(int(high), 1), left + max(int(wide), 1)
            self._shade(top + 2, bottom + 2, left + 2, right + 2)
            shade = int(self.rng.integers(-2, 3))
            name = names[int(self.rng.integers(len(names)))]
            self._stamp(top, bottom, left, right, name, shade)
            if ridge:
                self._stamp((top + bottom) // 2, bottom, left, right, name, shade - 3)

    def discs(
        self,
        material: str,
        count: int,
        radius: tuple[float, float],
        at: NDArray[np.int64] | None = None,
    ) -> None:
        """Draw discs, brighter towards the upper left: tree crowns, tanks, ponds."""
        height, width = self.cover.shape
        index = self._index[material]
        for y, x in self._centres(count, at):
            inside, slope = _disc(round(2 * float(self.rng.uniform(*radius))))
            half = len(inside) // 2
            top, left = max(half - y, 0), max(half - x, 0)
            of_disc = np.s_[top : height - y + half, left : width - x + half]
            of_canvas = np.s_[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]
            shade = int(self.rng.integers(-2, 3))
            np.copyto(self.cover[of_canvas], np.uint8(index), where=inside[of_disc])
            np.copyto(
                self.level[of_canvas], slope[of_disc] + np.int16(shade), where=inside[of_disc]
            )

    def crosses(self, material: str, count: int, size: tuple[float, float]) -> None:
        """Draw crosses of two bars: airplanes."""
        for y, x in self._centres(count, None):
            half = int(self.rng.uniform(*size) / 2)
            arm = max(half // 4, 1)
            self._stamp(y - half, y + half, x - arm, x + arm, material, 2)
            self._stamp(y - arm, y + arm, x - half, x + half, material, 0)

    def grid(self, material: str, pitch: tuple[int, int], size: tuple[int, int]) -> None:
        """Draw a grid of equal rectangles, a fifth of them absent: parked cars, mobile homes."""
        height, width = self.cover.shape
        for top in range(2, height - size[0], pitch[0]):
            for left in range(2, width - size[1], pitch[1]):
                if self.rng.random() < 0.8:
                    shade = int(self.rng.integers(-2, 3))
                    self._stamp(top, top + size[0], left, left + size[1], material, shade)

    def has(self, materials: Sequence[str], pixels: int = 6) -> bool:
        """Return whether the materials together cover at least ``pixels`` canvas pixels."""
        counts = np.bincount(self.cover.ravel(), minlength=len(self.materials))
        return int(sum(counts[self._index[name]] for name in materials)) >= pixels

    def share(self, material: str) -> float:
        """Return the share of the canvas that a material covers, between 0 and 1."""
        return float((self.cover == self._index[material]).mean())

    def classes(self, table: dict[str, int]) -> NDArray[np.uint8]:
        """Return the picture's mask, ``[H, W]`` ``uint8``.

        Args:
            table: Material name to class index. A material that is absent gets 255.
        """
        values = np.array([table.get(m.name, 255) for m in self.materials], np.uint8)
        return doubled(values[self.cover])

    def render(self, sensor: Sensor, look: Look) -> NDArray[Any]:
        """Return the picture that the sensor sees, ``[H, W, C]`` in the sensor's dtype.

        Colours are drawn for each light of the canvas, and each part under one light is exposed to
        a mean and deviation of its own. Neither colours nor mean and deviation therefore tell what
        the picture shows; relief and shape do.
        """
        lights = int(self.light.max()) + 1
        wavelengths = [band.wavelength_nm for band in sensor.bands]
        colours = drawn_colours(self.materials, lights, self.rng)
        table = np.array([np.interp(wavelengths, WAVELENGTHS_NM, c) for c in colours], np.float32)
        level = np.maximum(1.0 + LEVEL_STEP * (self.level + self._relief(lights)), 0.0)
        shares = table[self.light.astype(np.intp) * len(self.materials) + self.cover]
        shares *= level[:, :, None]
        visible = np.array(wavelengths) <= _LONGEST_VISIBLE_NM
        gain, offset = self._exposure(shares[:, :, visible].mean(axis=2), lights, look)
        cast = self.rng.uniform(-_CAST, _CAST, (lights, len(wavelengths)))
        shares *= gain[self.light][:, :, None]
        shares += (offset[:, None] + cast).astype(np.float32)[self.light]
        numbers: NDArray[Any] = np.rint(np.clip(shares, 0.0, 1.0) * sensor.scale)
        return doubled(numbers.astype(sensor.dtype))

    def _relief(self, lights: int) -> NDArray[np.float32]:
        """Return the brightness of ridges and grain, ``[h, w]`` in levels."""
        height, width = self.cover.shape
        grain = self.rng.standard_normal((height, width), dtype=np.float32)
        turned = self.rng.uniform(-_TURN, _TURN, lights).astype(np.float32)
        phase = self.rng.random(lights, dtype=np.float32)[self.light]
        rise = np.radians([material.rise for material in self.materials], dtype=np.float32)
        angles = (turned[:, None] + rise).ravel()
        place = self.light.astype(np.intp) * len(self.materials) + self.cover
        y = np.arange(height, dtype=np.float32)[:, None] / np.float32(_PERIOD)
        x = np.arange(width, dtype=np.float32)[None, :] / np.float32(_PERIOD)
        slope = y * np.cos(angles)[place] + x * np.sin(angles)[place] + phase
        slope -= np.floor(slope)
        contrast = np.exp(self.rng.uniform(-0.3, 0.3, lights)).astype(np.float32)[self.light]
        relief: NDArray[np.float32] = contrast * (_RIDGE * (2 * slope - 1) + _GRAIN * grain)
        return relief

    def _exposure(
        self, grey: NDArray[np.float32], lights: int, look: Look
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return gain and offset of every light, ``[lights]``, given the brightness ``[h, w]``."""
        parts, grey = self.light.ravel(), grey.ravel()
        size = np.maximum(np.bincount(parts, minlength=lights), 1)
        mean = np.bincount(parts, grey, lights) / size
        variance = np.bincount(parts, np.square(grey - mean[parts]), lights) / size
        wanted = look.contrast * np.exp(self.rng.uniform(-0.25, 0.15, lights))
        gain = wanted / np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2))
        offset = look.middle + self.rng.uniform(-_EXPOSURE, _EXPOSURE, lights) - gain * mean
        return gain.astype(np.float32), offset.astype(np.float32)

    def _centres(self, count: int, at: NDArray[np.int64] | None) -> list[tuple[int, int]]:
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
        self.level[area] -= 3


@cache
def _disc(diameter: int) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Return the pixels of a disc in its square, and the brightness gradient over the square."""
    radius = max(diameter / 2, 0.5)
    reach = np.arange(-int(radius), int(radius) + 1)
    y, x = reach[:, None], reach[None, :]
    return y * y + x * x <= radius * radius, (-2 * (y + x) / radius).astype(np.int16)


def doubled(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return ``[2h, 2w, ...]``: every pixel of ``[h, w, ...]`` becomes a block of four."""
    return pixels.repeat(2, axis=0).repeat(2, axis=1)
