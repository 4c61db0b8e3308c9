"""MSTAR: lists of chips, the validation sector, crops, and amplitudes in decibels."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rscl_bench import sensors
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.mstar import MSTARAdapter
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.spec import Source
from rscl_bench.tiles.source_files import description


@pytest.fixture
def archive(sketches: Path, tmp_path: Path) -> Path:
    """A copy of the sketch without its marker, so that it counts as a real archive."""
    shutil.copytree(sketches / "mstar", tmp_path / "mstar")
    (tmp_path / "mstar" / SKETCH_MARKER).unlink()
    return tmp_path


def test_validation_is_a_sector_of_the_chips_at_17_degrees(sketches: Path) -> None:
    files = {split: set(MSTARAdapter(sketches, split).files) for split in MSTARAdapter.splits}
    official = files["official-train"]
    assert files["train"] | files["val"] < official
    phases = {
        split: {int(path.stem) % 10_000 % 60 for path in files[split]} for split in ("train", "val")
    }
    assert phases["val"] <= set(range(21, 33))
    assert phases["train"].isdisjoint(range(20, 34))
    assert {path.parts[-3] for path in files["test"]} == {"val"}
    assert {path.parent.name for path in files["val"]} == {str(number) for number in range(10)}


def test_labels_are_the_numbers_of_the_folders(sketches: Path) -> None:
    adapter = MSTARAdapter(sketches, "test")
    labels = adapter.scene(len(adapter) - 1, with_labels=True).labels
    assert labels is not None
    assert labels.tolist() == [0] * 9 + [1]
    assert adapter.classes[9] == "ZSU234"


def test_crop_reads_the_centre(sketches: Path) -> None:
    whole = MSTARAdapter(sketches, "test").scene(5).image
    cropped = MSTARAdapter(sketches, "test", {"crop": 64}).scene(5).image
    assert np.array_equal(cropped, whole[32:96, 32:96])
    for crop in (0, 63, 130):
        with pytest.raises(SpecError, match="crop"):
            MSTARAdapter(sketches, "test", {"crop": crop})


def test_amplitudes_in_decibels(sketches: Path) -> None:
    options = {"amplitude": "db", "crop": 64}
    cls = adapter_class("mstar", options)
    assert cls.sensor == sensors.MSTAR_SAR_DB
    assert adapter_class("mstar", {"amplitude": "linear"}) is adapter_class("mstar", {})
    linear = MSTARAdapter(sketches, "test", {"crop": 64}).scene(3).image
    decibels = cls(sketches, "test", options).scene(3).image
    expected = 255 * (1 + 20 * np.log10(np.maximum(linear, 1) / 255) / (20 * np.log10(255)))
    assert decibels.dtype == np.uint8
    assert np.abs(decibels - expected).max() <= 0.5
    with pytest.raises(SpecError, match="MSTARAdapter reads linear amplitudes"):
        MSTARAdapter(sketches, "test", {"amplitude": "db"})
    with pytest.raises(SpecError, match="amplitude"):
        adapter_class("mstar", {"amplitude": "log"})(sketches, "test", {"amplitude": "log"})


def test_amplitude_and_kind_are_in_the_key_of_tiles_and_older_sensors_keep_theirs(
    sketches: Path,
) -> None:
    def sensor_of(name: str, split: str, options: dict[str, str]) -> dict[str, Any]:
        adapter = adapter_class(name, options)(sketches, split, options)
        source = Source(dataset=name, split=split, tile_size=16, options=options)
        described: dict[str, Any] = description(adapter, source, with_labels=False)["sensor"]
        return described

    linear, decibels = (sensor_of("mstar", "test", {"amplitude": a}) for a in ("linear", "db"))
    assert "amplitude" not in linear
    assert decibels["amplitude"] == "db"
    assert linear["bands"] == ({"name": "hh", "wavelength_nm": 31_200_000.0, "kind": "sar"},)
    aid = sensor_of("aid", "train", {})
    assert aid == {
        "bands": (
            {"name": "red", "wavelength_nm": 665.0},
            {"name": "green", "wavelength_nm": 560.0},
            {"name": "blue", "wavelength_nm": 480.0},
        ),
        "unit": "8-bit digital number",
        "dtype": "uint8",
        "scale": 255.0,
    }


def test_the_lists_say_what_a_copy_holds(archive: Path) -> None:
    path = archive / "mstar" / "train.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    chip = archive / "mstar" / "train" / lines[0].split()[0]
    chip.unlink()
    with pytest.raises(ArchiveError, match=r"train/0/00000\.jpg does not exist"):
        MSTARAdapter(archive, "test")
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    assert len(MSTARAdapter(archive, "official-train")) == 299
    shutil.copy(archive / "mstar" / "train" / lines[1].split()[0], chip.with_name("copy.jpeg"))
    with pytest.raises(ArchiveError, match=r"holds copy\.jpeg, no part of"):
        MSTARAdapter(archive, "train")


@pytest.mark.parametrize("line", ["0/1.jpeg 1", "chips/1.jpeg 0", "0/../1.jpeg 0", "0/1.jpeg"])
def test_a_strange_line_is_refused(archive: Path, line: str) -> None:
    path = archive / "mstar" / "val.txt"
    path.write_text(f"{path.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    with pytest.raises(ArchiveError, match=rf"val\.txt has the line '{line}'"):
        MSTARAdapter(archive, "train")
    path.unlink()
    with pytest.raises(ArchiveError, match=r"val\.txt does not exist"):
        MSTARAdapter(archive, "train")
