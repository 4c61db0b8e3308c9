"""The painter of sketch scenes."""

import numpy as np
import pytest

from rscl_bench import sensors
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import MATERIALS, Look, Material
from rscl_bench.archives.painting.scenes import SCENES, districts

LOOK = Look(middle=0.45, contrast=0.13)


def canvas(seed: int = 0, height: int = 64, width: int = 96) -> Canvas:
    return Canvas(height, width, np.random.default_rng(seed))


@pytest.mark.parametrize("scene", SCENES)
def test_scene_paints_and_is_deterministic(scene: str) -> None:
    pictures = []
    for _ in range(2):
        painted = canvas(3)
        SCENES[scene](painted, 1.0)
        pictures.append(painted.render(sensors.UCMERCED_RGB, LOOK))
    assert pictures[0].shape == (64, 96, 3)
    assert pictures[0].dtype == np.uint8
    assert pictures[0].std() > 1
    assert np.array_equal(pictures[0], pictures[1])


def test_scenes_differ_from_seed_to_seed() -> None:
    first, second = canvas(1), canvas(2)
    for painted in (first, second):
        SCENES["residential"](painted, 1.0)
    assert (first.cover != second.cover).any()


def test_render_follows_the_sensor() -> None:
    painted = canvas()
    painted.fill("trees")
    msi = painted.render(sensors.WORLDVIEW3, LOOK)
    assert msi.dtype == np.uint16
    assert msi.shape == (64, 96, 8)
    means = msi.mean(axis=(0, 1))
    red, nir = sensors.WORLDVIEW3.indices(("red", "nir1"))
    assert means[nir] > 1.2 * means[red], "trees are bright in the infrared"
    aerial = painted.render(sensors.TREESATAI_AERIAL, LOOK).mean(axis=(0, 1))
    assert aerial.argmax() == 0, "infrared comes first in TreeSatAI"


def pictures_of(scene: str, count: int = 40) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pictures = []
    for seed in range(count):
        painted = canvas(seed, 128, 128)
        SCENES[scene](painted, 1.0)
        pictures.append(painted.render(sensors.UCMERCED_RGB, LOOK))
    return np.stack(pictures)


def test_neither_colour_nor_brightness_nor_contrast_tells_a_scene() -> None:
    """Statistics of bands, the lower reference of every run, must not solve the probe."""
    statistics = {
        scene: np.concatenate(
            [f(pictures_of(scene), axis=(1, 2)) for f in (np.mean, np.std)], axis=1
        )
        for scene in ("residential", "farmland", "beach", "harbor", "forest")
    }
    for first in statistics.values():
        for second in statistics.values():
            distance = np.abs(first.mean(axis=0) - second.mean(axis=0))
            spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
            assert (distance < spread).all()


def slope(grey: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return the direction in which most pixels become brighter, in degrees: 0 is down."""
    steps = [np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]]
    if where is not None:  # pixels whose two neighbours are of the same class
        same = (np.diff(where, axis=0)[:, :-1] == 0) & (np.diff(where, axis=1)[:-1] == 0)
        steps = [step[same & (where[:-1, :-1] > 0)] for step in steps]
    down, right = (np.median(step) for step in steps)
    return float(np.degrees(np.arctan2(right, down)) % 360)


def apart(first: float, second: float) -> float:
    """Return the angle between two directions, in degrees."""
    return abs((first - second + 180) % 360 - 180)


def grey_of(painted: Canvas) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the brightness at the canvas's resolution, with little grain left."""
    grey: np.ndarray = painted.render(sensors.WORLDVIEW3, LOOK)[::2, ::2].mean(axis=2)
    return grey


@pytest.mark.parametrize("material", MATERIALS, ids=lambda material: material.name)
def test_the_slope_of_the_ridges_tells_a_material(material: Material) -> None:
    """Under any light, most pixels of a material rise in the material's direction."""
    for seed in range(4):
        painted = canvas(seed, 256, 256)
        painted.fill(material.name)
        assert apart(slope(grey_of(painted)), material.rise) < 15


def test_the_labels_of_a_scene_differ_in_slope() -> None:
    """Classes of UC Merced that cover much of an image are 30 degrees apart."""
    wide = ("soil", "grass", "field", "chaparral", "trees", "sand", "water", "sea", "pavement")
    rises = [material.rise for material in MATERIALS if material.name in (*wide, "building")]
    distances = [apart(a, b) for i, a in enumerate(rises) for b in rises[:i]]
    assert len(rises) == 10
    assert min(distances) == 30


def test_every_light_has_its_own_colours_and_exposure() -> None:
    painted = canvas(height=64, width=128)
    painted.fill("soil")
    painted.light[:, 32:] = 1
    picture = painted.render(sensors.UCMERCED_RGB, LOOK).astype(float)
    left, right = picture[:, :64].mean(axis=(0, 1)), picture[:, 64:].mean(axis=(0, 1))
    assert (np.abs(left - right) > 1).any()


def test_mask_agrees_with_picture() -> None:
    """Each class of the mask has the slope of the class's material."""
    painted = canvas(height=256, width=256)
    painted.fill("water")
    painted.boxes("building-white", 8, (16, 24))
    mask = painted.classes({"water": 4, "building-white": 1})[::2, ::2]
    assert set(np.unique(mask)) == {1, 4}
    picture = grey_of(painted)
    for number, name in ((4, "water"), (1, "building-white")):
        (material,) = (m for m in MATERIALS if m.name == name)
        assert apart(slope(picture, (mask == number).astype(int)), material.rise) < 15


def test_a_material_of_no_class_is_undefined() -> None:
    painted = canvas()
    painted.fill("sea")
    assert (painted.classes({"water": 0}) == 255).all()


def test_presence_and_share() -> None:
    painted = canvas()
    painted.fill("grass")
    assert painted.has(("grass",))
    assert not painted.has(("car", "ship"))
    assert painted.share("grass") == 1.0


def test_discs_are_clipped_at_the_border() -> None:
    painted = canvas(height=32, width=32)
    painted.fill("grass")
    corner = np.array([[0, 0]])
    painted.discs("tank", 1, (5.0, 5.0), at=corner)
    y, x = np.mgrid[:16, :16]
    tank = [m.name for m in MATERIALS].index("tank")
    assert np.array_equal(painted.cover == tank, y * y + x * x <= 25)


def test_districts_cover_every_square() -> None:
    painted = canvas(height=128, width=192)
    painted.cover[:] = 200  # no material has this index
    districts(painted, ("residential", "river"), side=32, size=1.0)
    assert painted.cover.max() < len(MATERIALS)


def test_odd_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="even sides"):
        canvas(height=33)


def test_own_materials() -> None:
    moss = Material("moss", infrared=0.9, rise=75)
    painted = Canvas(128, 128, np.random.default_rng(0), (moss,))
    painted.fill("moss")
    picture = painted.render(sensors.POTSDAM_RGBIR, LOOK)
    assert apart(slope(picture[::2, ::2].mean(axis=2)), 75) < 15
    assert (picture[:, :, 3] > picture[:, :, :3].max(axis=2)).mean() > 0.9
