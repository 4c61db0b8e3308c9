"""`check_adapter` catches the faults that it is for, and names them."""

from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from helpers.paths import TOY

from rscl_bench import api, registry
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.sketch import render
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.spec import Source
from rscl_bench.testing import check_adapter
from rscl_bench.tiles.packing import open_or_pack

BROKEN = TOY.parent / "broken_adapters.py"


def broken(name: str) -> Any:
    return registry.load("datasets", f"{BROKEN}:{name}")


def test_a_sound_adapter_passes_by_class_and_by_name(tmp_path: Path) -> None:
    for component in (broken("Sound"), f"{BROKEN}:Sound"):
        folder = tmp_path / type(component).__name__
        folder.mkdir()
        check_adapter(component, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OmitsLabelFile", r"inputs\(\) omits labels.csv"),
        ("OmitsImages", r"inputs\(\) omits train/0.png"),
        ("ImagesAreLabelFiles", r"label_files\(\) has a file that images depend on"),
        ("ForeignLabelFiles", r"label_files\(\) has files that inputs\(\) lacks"),
        ("InventsInputs", "no-such-file does not exist"),
        ("Shuffles", "list the images in another order; sort the files in _list_files"),
        ("ListsTwice", "lists .* twice"),
        ("ReadsNoise", "A second reading gives other scenes"),
        ("WrongSensor", "0.png has 3 bands where Sound has 1"),
        ("LabelsOfThree", r"Labels are \(3,\) for 2 classes"),
        ("LabelsAreCounts", "Labels are not 0 and 1, but up to"),
        ("LabelsAreFloats", "Labels are float32, not uint8"),
        ("LabelsAndMask", "both labels and a mask"),
        ("HidesLabels", "declares classes, but no split has labels"),
        ("ReadsTruncated", "truncated to .* is read without an error"),
        ("RefusesWithoutName", "is refused without its name"),
        ("DownloadsOutside", r"\.\./x\.zip lies outside of the archive's folder"),
        ("UnpacksOutside", "/srv lies outside of the archive's folder"),
        ("HasNoAddress", r"/srv/x\.zip is no address"),
        ("HasOddDigest", "'d41d8cd98f00b204' is no digest; write sha512 or "),
        ("MissingWithoutSource", "folder lacks 'Sound'; raise self.missing"),
    ],
)
def test_a_broken_adapter_is_caught(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_adapter(broken(name), tmp_path)


def real_archive(root: Path) -> Path:
    """Write the archive of `HasNoSketch` as its publisher would."""
    broken("Sound").write_sketch(root, np.random.default_rng(0))
    (root / "sound" / SKETCH_MARKER).unlink()
    return root


def test_an_adapter_without_a_sketch_passes_and_says_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(SkipTest, match="only the missing archive was checked"):
        check_adapter(broken("HasNoSketch"), tmp_path / "one")
    real = real_archive(tmp_path / "real")
    with pytest.raises(SkipTest, match="nor a truncated image"):
        check_adapter(broken("HasNoSketch"), tmp_path / "two", data_root=real)
    with pytest.raises(AssertionError, match=r"0\.png has no label"):
        check_adapter(broken("HasNoLabels"), tmp_path / "three", data_root=real)


def test_an_adapter_without_a_sketch_is_run_on_real_images_alone(tmp_path: Path) -> None:
    name = f"{BROKEN}:HasNoSketch"
    source = Source(dataset=name, split="train", tile_size=16)
    store = open_or_pack(real_archive(tmp_path), source, tmp_path / "cache", with_labels=True)
    assert len(store) == 4
    with pytest.raises(
        SpecError, match="Dataset no-sketch has no sketch: give the folder"
    ) as error:
        render([adapter_class(name, {})], tmp_path / "cache")
    assert "--data-root" in str(error.value)
    assert not list((tmp_path / "cache").glob("sketch-v*/*"))


def test_a_sketch_that_cannot_be_written_names_the_option_that_chose_the_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtefactError, match="choose with --out a folder that is writable"):
        api.render_sketches(TOY, tmp_path / "file")
    with pytest.raises(ArtefactError, match="set RSCL_CACHE to a folder that is writable"):
        render([adapter_class(f"{BROKEN}:Sound", {})], tmp_path / "file")


def test_what_a_class_lacks_is_named() -> None:
    with pytest.raises(SpecError, match="must define _list_files, _read, folder, title, sensor"):
        broken("LacksMethods")


def test_all_failures_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        check_adapter(broken("TwoFaults"), tmp_path)
    for fault in ("labels of split 'train'", "labels of split 'test'", "inputs() of split 'train'"):
        assert fault in str(error.value)
