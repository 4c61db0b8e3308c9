"""Which files of a folder are images, and what is read from them."""

import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import rasterio
from helpers.folders import THERMAL, names, noise, opened, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.folder.walk import images_below
from rscl_bench.errors import ArchiveError, SpecError

TREE = (
    "a.jpg",
    "b.TIFF",
    "deep/er/e.png",
    "deep/er/f.jpeg",
    "one/c.jpg",
    "one/d.png",
    "one/notes.txt",
)


def tree(root: Path) -> Path:
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a.jpg", "b.TIFF", "deep/er/e.png", "deep/er/f.jpeg", "one/c.jpg", "one/d.png"]),
        ("**", ["a.jpg", "b.TIFF", "deep/er/e.png", "deep/er/f.jpeg", "one/c.jpg", "one/d.png"]),
        ("*", ["a.jpg", "b.TIFF"]),
        ("*/*", ["one/c.jpg", "one/d.png"]),
        ("**/*.jpg", ["a.jpg", "deep/er/f.jpeg", "one/c.jpg"]),
        ("*.tif", ["b.TIFF"]),
        ("one/[cx].*", ["one/c.jpg"]),
        ("d*/**/?.png", ["deep/er/e.png"]),
        ("**/er/**/*", ["deep/er/e.png", "deep/er/f.jpeg"]),
        ("one/*.txt", ["one/notes.txt"]),
        ("nothing/*", []),
    ],
)
def test_a_pattern_finds(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    found = images_below(tree(tmp_path), pattern)
    assert list(found) == expected
    assert all(found[name] == tmp_path / name for name in expected)


PARTS = st.sampled_from(["a", "b", "*", "?", "a*", "**", "[ab]"])


@given(st.lists(PARTS, min_size=1, max_size=4).filter(lambda parts: parts[-1] != "**"))
def test_patterns_agree_with_pathlib(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "glob"
    for folder in ("", "a", "b", "a/b", "a/a/b"):
        for name in ("a.png", "b.png", "ab.png"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / name).touch()
    pattern = "/".join(parts) + ".png"
    expected = {path.relative_to(root).as_posix() for path in root.glob(pattern)}
    assert set(images_below(root, pattern)) == expected


def test_hidden_files_and_links_to_outer_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "one/a.png", "one/._b.png", ".cache/c.png")
    (tmp_path / "frames" / "one" / "loop").symlink_to(tmp_path / "frames")
    other = write(tmp_path / "elsewhere", "d.png")[0].parent
    (tmp_path / "frames" / "linked").symlink_to(other)
    assert names(opened(tmp_path, "all")) == ["linked/d.png", "one/a.png"]


def test_names_in_two_forms_of_unicode_are_one(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Köln/ä.png")
    write(tmp_path, decomposed)
    adapter = opened(tmp_path, "all", pattern=unicodedata.normalize("NFC", "Köln/*.png"))
    assert names(adapter) == [unicodedata.normalize("NFC", "Köln/ä.png")]
    assert adapter.files[0] == tmp_path / "frames" / decomposed
    assert adapter.scene(0).image.shape == (16, 16, 3)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.npy"])
@pytest.mark.parametrize("bands", [1, 3])
def test_pixels_are_those_that_other_libraries_read(tmp_path: Path, name: str, bands: int) -> None:
    (path,) = write(tmp_path, name, bands=bands)
    image = opened(tmp_path, "all", sensor=THERMAL if bands == 1 else "rgb8").scene(0).image
    if name == "x.png":
        expected = np.asarray(Image.open(path))
    elif name == "x.tif":
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
            expected = np.moveaxis(file.read(), 0, 2)
    else:
        expected = np.load(path)
    assert np.array_equal(image, expected.reshape(16, 16, bands))
    assert np.array_equal(image, noise(name, (16, 16, bands)))


def test_arrays_of_sixteen_bits_keep_their_values(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 2, dtype=">u2").reshape(4, 5, 2) * 1000
    path = tmp_path / "frames" / "x.npy"
    path.parent.mkdir()
    np.save(path, np.asfortranarray(pixels))
    sensor = {
        "bands": [{"name": name, "wavelength_nm": 800.0} for name in ("p", "q")],
        "unit": "count",
        "dtype": "uint16",
        "scale": 40_000.0,
    }
    image = opened(tmp_path, "all", sensor=sensor).scene(0).image
    assert image.dtype == np.uint16
    assert image.flags.c_contiguous
    assert np.array_equal(image, pixels)


def test_an_image_of_other_bands_or_type_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.npy")
    for index, name in enumerate(("a.png", "b.npy")):
        with pytest.raises(ArchiveError, match=rf"{name} has 3 bands where the sensor of folder"):
            opened(tmp_path, "all", sensor=THERMAL).scene(index)
    np.save(tmp_path / "frames" / "b.npy", np.zeros((4, 4, 3), np.float32))
    with pytest.raises(
        ArchiveError, match=r"b\.npy is float32 where the sensor of .* is uint8; conv"
    ):
        opened(tmp_path, "all").scene(1)


@pytest.mark.parametrize("kept", [0, 5, 40, 100, -60])
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.npy"])
def test_a_damaged_image_is_refused_by_name(tmp_path: Path, name: str, kept: int) -> None:
    (path,) = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArchiveError, match=rf"{name} "):
        opened(tmp_path, "all").scene(0)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "frames" / "x.npy"
    path.parent.mkdir()
    np.save(path, np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(ArchiveError, match=r"x\.npy cannot be read"):
        opened(tmp_path, "all").scene(0)


def test_an_array_larger_than_max_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    write(tmp_path, "x.npy", "y.png")
    for index in (0, 1):
        with pytest.raises(ArchiveError, match=r"has 16×16 pixels, more than the 255"):
            opened(tmp_path, "all", max_pixels=255).scene(index)


def test_missing_pixels_follow_the_option(tmp_path: Path) -> None:
    pixels = noise("x", (16, 16, 3))
    pixels[0, 0] = 0
    write_tiff(tmp_path / "frames" / "x.tif", pixels, nodata=0)
    filled = opened(tmp_path, "all").scene(0)
    assert filled.missing is not None
    assert filled.missing.sum() == 3
    assert np.array_equal(opened(tmp_path, "all", nodata="keep").scene(0).image, pixels)
    with pytest.raises(ArchiveError, match="declares 1 of its 256 pixels as missing"):
        opened(tmp_path, "all", nodata="refuse").scene(0)


def test_a_folder_that_is_missing_or_holds_no_image_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="frames does not exist"):
        opened(tmp_path, "all")
    write(tmp_path, "a.png")
    with pytest.raises(ArchiveError, match=r"no file below .* fits pattern '\*\.jpg'"):
        opened(tmp_path, "all", pattern="*.jpg")
    with pytest.raises(SpecError, match="Unknown split of folder frames 'train'"):
        opened(tmp_path, "train")


def test_the_order_of_images_is_that_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path, "b/a.png", "a/c.png", "a-/b.png", "a.png")
    listed = names(opened(tmp_path, "all"))
    assert listed == sorted(listed)
    assert {PurePosixPath(name).name for name in listed} == {"a.png", "b.png", "c.png"}
