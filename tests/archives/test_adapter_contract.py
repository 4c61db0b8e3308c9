"""`check_adapter` catches the faults that it is for, and names them."""

from pathlib import Path
from typing import Any

import pytest
from helpers.paths import TOY

from rscl_bench import registry
from rscl_bench.testing import check_adapter

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
        ("MissingWithoutSource", "folder lacks 'Sound'; raise self.missing"),
    ],
)
def test_a_broken_adapter_is_caught(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_adapter(broken(name), tmp_path)


def test_all_failures_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        check_adapter(broken("TwoFaults"), tmp_path)
    for fault in ("labels of split 'train'", "labels of split 'test'", "inputs() of split 'train'"):
        assert fault in str(error.value)
