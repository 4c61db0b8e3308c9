"""What every adapter inherits from `DatasetAdapter`, on adapters of each file format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.archives import SKETCHED
from helpers.images import rewrite
from PIL import ImageFile

from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER, DatasetAdapter, Scene
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.archives.uavid import UAVidAdapter
from rscl_bench.archives.ucmerced import UCMercedAdapter
from rscl_bench.errors import ArchiveError, SpecError

Copy = Callable[[str], Path]

NAMES = SKETCHED
#: A JPEG archive, a PNG archive with masks, and a TIFF archive with labels.
FORMATS = ("aid", "uavid", "ucmerced")


def adapter_type(name: str) -> type[DatasetAdapter]:
    adapter: type[DatasetAdapter] = registry.load("datasets", name)
    return adapter


def opened(root: Path, name: str) -> DatasetAdapter:
    return adapter_type(name)(root, adapter_type(name).splits[0])


@pytest.mark.parametrize("name", [n for n in NAMES if registry.BUILTIN["datasets"][n].has_rgb])
def test_bands_of_colour_are_in_the_order_of_their_wavelengths(name: str) -> None:
    sensor = adapter_type(name).sensor
    assert len(sensor.indices(("red", "green", "blue"))) == 3
    wavelengths = {band.name: band.wavelength_nm for band in sensor.bands}
    assert wavelengths["blue"] < wavelengths["green"] < wavelengths["red"]


@pytest.mark.parametrize(("name", "enough"), [("ucmerced", 17), ("treesatai", 12)])
def test_sketch_labels_have_both_values(sketches: Path, name: str, enough: int) -> None:
    adapter = adapter_type(name)(sketches, "test")
    labels = [adapter.scene(i, with_labels=True).labels for i in range(len(adapter))]
    positives = np.stack([label for label in labels if label is not None]).sum(axis=0)
    assert ((positives > 0) & (positives < len(adapter))).sum() >= enough


@pytest.mark.parametrize("name", ["us3d", "potsdam", "uavid"])
def test_sketch_masks_are_defined_almost_everywhere(sketches: Path, name: str) -> None:
    mask = opened(sketches, name).scene(0, with_labels=True).mask
    assert mask is not None
    assert (mask == 255).mean() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_bands_are_read_in_the_order_of_the_file(sketch_of: Copy, name: str) -> None:
    adapter = opened(sketch_of(name), name)
    bands = len(adapter.sensor.bands)
    pixels = np.zeros((64, 64, bands), adapter.sensor.dtype)
    pixels[:] = 20 * np.arange(1, bands + 1)
    rewrite(adapter.files[0], pixels)
    image = adapter.scene(0).image
    tolerance = 3 if adapter.files[0].suffix in (".jpg", ".jpeg") else 0
    assert np.abs(image.astype(int) - pixels.astype(int)).max() <= tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_wrong_band_count_is_refused_by_name(sketch_of: Copy, name: str) -> None:
    adapter = opened(sketch_of(name), name)
    rewrite(adapter.files[0], np.ones((64, 64, 1), adapter.sensor.dtype))
    with pytest.raises(ArchiveError, match="has 1 bands where") as error:
        adapter.scene(0)
    assert str(adapter.files[0]) in str(error.value)


@pytest.mark.parametrize("name", ["us3d", "ucmerced"])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_wrong_dtype_is_refused_by_name(sketch_of: Copy, name: str, dtype: str) -> None:
    adapter = opened(sketch_of(name), name)
    rewrite(adapter.files[0], np.ones((64, 64, len(adapter.sensor.bands)), dtype))
    with pytest.raises(ArchiveError, match=f"is {dtype} where") as error:
        adapter.scene(0)
    assert str(adapter.files[0]) in str(error.value)


def test_floats_are_refused_with_their_mend(sketch_of: Copy) -> None:
    adapter = opened(sketch_of("ucmerced"), "ucmerced")
    rewrite(adapter.files[0], np.full((64, 64, 3), np.nan, np.float32))
    with pytest.raises(ArchiveError, match="store uint8 numbers, and a declared nodata value"):
        adapter.scene(0)


@pytest.mark.parametrize("name", ["us3d", "potsdam", "uavid"])
def test_mask_of_another_size_is_refused(sketch_of: Copy, name: str) -> None:
    adapter = opened(sketch_of(name), name)
    rewrite(adapter.files[0], np.ones((64, 64, len(adapter.sensor.bands)), adapter.sensor.dtype))
    with pytest.raises(ArchiveError, match="The mask of"):
        adapter.scene(0, with_labels=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(sketch_of: Copy, name: str) -> None:
    root = sketch_of(name)
    adapter = opened(root, name)
    for path in (adapter.files[2], adapter.inputs()[-1]):
        held = path.read_bytes()
        path.unlink()
        with pytest.raises(ArchiveError, match="missing or partial") as error:
            opened(root, name)
        assert str(path) in str(error.value)
        path.write_bytes(held)


def test_unknown_split_and_option_have_a_hint(sketches: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'train'"):
        UCMercedAdapter(sketches, "trian")
    with pytest.raises(SpecError, match="Unknown key in dataset"):
        UCMercedAdapter(sketches, "train", {"clases": 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_without_its_marker_is_not_complete(sketch_of: Copy, name: str) -> None:
    root = sketch_of(name)
    (root / adapter_type(name).folder / SKETCH_MARKER).unlink()
    # Potsdam's sketch has all files of the archive; smaller copies of the others are in use.
    if name in ("potsdam", "aid", "hit-uav", "hurricane-damage", "mstar"):
        assert not adapter_type(name)(root, "train").is_sketch
        return
    with pytest.raises(ArchiveError):
        adapter_type(name)(root, "paper-train" if name == "treesatai" else "train")


def test_a_sketch_never_overwrites_an_archive(tmp_path: Path) -> None:
    precious = tmp_path / UCMercedAdapter.folder / "precious.tif"
    precious.parent.mkdir()
    precious.write_bytes(b"real")
    with pytest.raises(ArchiveError, match="not overwritten"):
        UCMercedAdapter.write_sketch(tmp_path, np.random.default_rng(0))
    assert precious.read_bytes() == b"real"


def test_an_unfinished_sketch_is_refused(sketch_of: Copy) -> None:
    root = sketch_of("ucmerced")
    marker = root / "ucmerced" / SKETCH_MARKER
    marker.unlink()
    marker.write_text("")
    with pytest.raises(ArchiveError, match="not written to its end"):
        UCMercedAdapter(root, "train")


@pytest.mark.parametrize("cls", [RSSCN7Adapter, UAVidAdapter])
def test_sketches_are_deterministic_and_replace_each_other(
    sketches: Path, tmp_path: Path, cls: type[DatasetAdapter]
) -> None:
    cls.write_sketch(tmp_path, np.random.default_rng(1))
    cls.write_sketch(tmp_path, np.random.default_rng(0))
    for path in (sketches / cls.folder).rglob("*"):
        other = tmp_path / cls.folder / path.relative_to(sketches / cls.folder)
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


def test_pillow_is_not_told_to_load_truncated_pictures() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


class _OfManyParts(DatasetAdapter):
    name = "many"
    declared_by_options = True

    @classmethod
    def named(cls, part: str) -> type[DatasetAdapter]:
        return type(f"_{part}", (cls,), {"title": part})

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> type[DatasetAdapter]:
        return type(cls.__name__, (cls,), {"classes": tuple(options["classes"])})

    def _list_files(self) -> list[Path]:
        return []

    def _read(self, index: int, with_labels: bool) -> Scene:
        raise NotImplementedError


def test_a_name_of_two_parts_is_configured_by_its_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = registry.Entry(f"{__name__}:_OfManyParts", "many datasets", has_rgb=False)
    monkeypatch.setitem(registry.BUILTIN["datasets"], "many", entry)
    adapter = adapter_class("many:EuroSAT", {"classes": ["forest"]})
    assert (adapter.title, adapter.classes) == ("EuroSAT", ("forest",))
    assert _OfManyParts.classes == ()


def test_other_names_have_no_second_part() -> None:
    with pytest.raises(SpecError, match="'aid' has no part 'Airport'; write dataset = \"aid\""):
        adapter_class("aid:Airport", {})
    with pytest.raises(SpecError, match="Unknown objective 'mae:x'"):
        registry.load("objectives", "mae:x")
