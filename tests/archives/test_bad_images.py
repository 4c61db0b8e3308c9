"""Damaged images: an error names the file, or the digest changes; skipped only on request."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.cli import call
from helpers.paths import TOY
from helpers.toy import source

from rscl_bench import registry
from rscl_bench.errors import ArchiveError
from rscl_bench.randomness import numpy_generator
from rscl_bench.results.record import read_record
from rscl_bench.spec import Source
from rscl_bench.tiles.packing import open_or_pack

if TYPE_CHECKING:
    from rscl_bench.results.schema import RunRecord

# Reads a JPEG, a PNG and two TIFF archives as packing does. The script runs in a new process,
# because a decoder that crashes ends its process.
DAMAGE = """
import json, random, sys
from pathlib import Path
import numpy as np
from rscl_bench import registry
from rscl_bench.errors import ArchiveError

root, cases = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(0)
splits = {"aid": "train", "uavid": "train", "ucmerced": "train", "treesatai": "paper-train"}
adapters = [registry.load("datasets", name)(root, split) for name, split in splits.items()]
whole = {}

def damaged(content, kind):
    content, place = bytearray(content), rng.randrange(len(content))
    if kind == "truncated":
        return content[:place]
    if kind == "flipped":
        content[place] ^= 1 << rng.randrange(8)
    if kind == "zeroed":
        length = rng.randrange(1, len(content) - place + 1)
        content[place : place + length] = bytes(length)
    if kind == "wrong header":
        content[:8] = rng.randbytes(8)
    return b"" if kind == "empty" else content

for case in range(cases):
    adapter = adapters[case % len(adapters)]
    kind = ("truncated", "flipped", "zeroed", "wrong header", "empty")[case // 4 % 5]
    index = rng.randrange(len(adapter))
    path = adapter.files[index]
    if path not in whole:
        whole[path] = path.read_bytes(), adapter.scene(index).image
    content, image = whole[path]
    print(json.dumps([case, adapter.name, path.suffix, kind]), flush=True)
    path.write_bytes(damaged(content, kind))
    try:
        same = np.array_equal(adapter.scene(index).image, image)
        result = "same pixels" if same else "other pixels"
    except ArchiveError as error:
        result = "refused" if str(path) in str(error) else f"refused without its name: {error}"
    finally:
        path.write_bytes(content)
    print(json.dumps(result), flush=True)
"""


def outcomes(root: Path, cases: int) -> Counter[tuple[str, str, str]]:
    """Count the results by suffix and kind of damage."""
    for name in ("aid", "uavid", "ucmerced", "treesatai"):
        registry.load("datasets", name).write_sketch(root, numpy_generator(0, name))
    process = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(root), str(cases)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 0, (lines[-1:], process.stderr[-2000:])
    told = list(zip(lines[::2], lines[1::2], strict=True))
    assert [case for (case, *_), _ in told] == list(range(cases))
    return Counter((suffix, kind, result) for (_, _, suffix, kind), result in told)


def check(found: Counter[tuple[str, str, str]], cases: int) -> None:
    assert sum(found.values()) == cases
    assert {suffix for suffix, _, _ in found} == {".jpg", ".png", ".tif"}
    assert {result for _, _, result in found} <= {"refused", "other pixels", "same pixels"}
    for suffix, kind, result in found:
        if kind in ("empty", "wrong header"):
            assert result == "refused", (suffix, kind, result)


def test_damaged_images_are_refused_by_name_or_change_the_pixels(tmp_path: Path) -> None:
    check(outcomes(tmp_path, 80), 80)


@pytest.mark.fault
def test_a_thousand_damaged_images(tmp_path: Path) -> None:
    found = outcomes(tmp_path, 1000)
    print(json.dumps({" ".join(key): count for key, count in sorted(found.items())}, indent=1))
    check(found, 1000)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_pixels_that_changed_without_an_error_change_the_digest(tmp_path: Path) -> None:
    """No decoder detects this damage, but the identity of a run changes."""
    ucmerced = registry.load("datasets", "ucmerced")
    ucmerced.write_sketch(tmp_path, numpy_generator(0, "ucmerced"))
    source = Source(dataset="ucmerced", split="train", tile_size=64, cut="whole")
    before = open_or_pack(tmp_path, source, tmp_path / "cache")
    path = ucmerced(tmp_path, "train").files[3]
    flip(path, path.stat().st_size // 2)  # in the pixels of an uncompressed TIFF
    after = open_or_pack(tmp_path, source, tmp_path / "cache")
    assert len(after) == len(before)
    assert after.digest != before.digest


# Skipping bad images.


@pytest.fixture
def damaged(toy_data: Path, tmp_path: Path) -> Path:
    """Toy archives with one damaged image."""
    import shutil

    root = tmp_path / "data"
    shutil.copytree(toy_data, root)
    adapter = registry.load("datasets", f"{TOY.parent / 'adapters.py'}:Toy")(root, "train")
    adapter.files[2].write_bytes(b"")
    return root


def test_a_bad_image_stops_packing(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read"):
        open_or_pack(damaged, source(), tmp_path / "cache")


def test_a_bad_image_is_left_out_counted_and_listed(
    damaged: Path, toy_data: Path, tmp_path: Path
) -> None:
    whole = open_or_pack(toy_data, source(), tmp_path / "whole", with_labels=True)
    cache = tmp_path / "cache"
    store = open_or_pack(damaged, source(), cache, True, on_bad_tile="skip")
    adapter = registry.load("datasets", source().dataset)(damaged, "train")
    assert store.skipped == (adapter.files[2].relative_to(adapter.root).as_posix(),)
    per_image = len(whole) // len(adapter)
    kept = np.delete(np.arange(len(whole)), slice(2 * per_image, 3 * per_image))
    assert np.array_equal(store.tiles, whole.tiles[kept])
    assert store.shares is not None
    assert whole.shares is not None
    assert np.array_equal(store.shares, whole.shares[kept])
    assert store.digest != whole.digest
    # The tiles without the image are packed, but a run must still ask for them.
    with pytest.raises(ArchiveError, match="toy train were packed without 1 bad images"):
        open_or_pack(damaged, source(), cache, with_labels=True)


def test_no_image_that_can_be_used(damaged: Path, tmp_path: Path) -> None:
    for path in (damaged / "toy" / "train").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ArchiveError, match="None of the 20 images of toy train"):
        open_or_pack(damaged, source(), tmp_path / "cache", on_bad_tile="skip")


def test_skipping_changes_nothing_without_bad_images(toy_data: Path, tmp_path: Path) -> None:
    one = open_or_pack(toy_data, source(), tmp_path / "one")
    other = open_or_pack(toy_data, source(), tmp_path / "other", on_bad_tile="skip")
    assert (one.digest, other.skipped) == (other.digest, ())


def run(damaged: Path, out: Path, *more: str) -> Any:
    given = ("--scenario", TOY, "--method", "finetune", "--data-root", damaged, "--out", out)
    return call("run", *given, "--set", "training.epochs=1", "--device", "cpu", *more)


def test_a_record_says_what_was_left_out(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    result = run(damaged, tmp_path / "runs")
    assert result.exit_code == 1
    assert "cannot be read" in result.output
    result = run(damaged, tmp_path / "runs", "--on-bad-tile", "skip")
    assert result.exit_code == 0, result.output
    assert "note: 1 images of tasks.first cannot be used and were left out: " in result.stdout
    (path,) = (tmp_path / "runs").rglob("record.json")
    record: RunRecord = read_record(path)
    assert {name: len(files) for name, files in record.skipped.items()} == {
        "tasks.first": 1,
        "probes.toy.train": 1,
    }
