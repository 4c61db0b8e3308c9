"""Tests records of one archive that was decoded to different pixels."""

from pathlib import Path
from typing import Any

import pytest
from helpers.records import record_of

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import make_board
from rscl_bench.leaderboards.collect import distinct_records
from rscl_bench.leaderboards.keys import LoadedRecord, group_key
from rscl_bench.leaderboards.markdown import leaderboard_markdown

OLD = {"rasterio": "1.4.4", "GDAL": "3.10.3", "Pillow": "12.0.0"}
NEW = {**OLD, "rasterio": "1.5.2", "GDAL": "3.12.2"}


def loaded(number: int, versions: dict[str, str], test_digest: str, **changes: Any) -> LoadedRecord:
    """Return a record of format 3, with digests of pixels beside its identity."""
    record = record_of(method=f"m{number}", provenance={"versions": versions}, **changes)
    pixels = {**record.identity.data, "probes.outer.test": test_digest}
    changed = record.model_copy(update={"format": 3, "pixel_digests": pixels})
    return LoadedRecord(Path(f"{number}.json"), changed)


def test_other_decoders_of_equal_files_are_accepted_and_stated() -> None:
    records = [
        loaded(0, OLD, "old-pixels", pixels=0.10, random=0.20),
        loaded(1, OLD, "old-pixels", pixels=0.10, random=0.2004),
        loaded(2, NEW, "new-pixels", pixels=0.13, random=0.25),
    ]
    board = make_board(group_key(records[0].record), distinct_records(records), {})
    text = leaderboard_markdown(board)
    assert (
        "- Pixels: equal files, decoded in 2 ways: rasterio 1.4.4, GDAL 3.10.3, Pillow 12.0.0; "
        "rasterio 1.5.2, GDAL 3.12.2, Pillow 12.0.0. The scores of pixel statistics differ by up "
        "to 3.00 points between them, those of the untrained encoders of one seed by up to 5.00 "
        "points\n"
    ) in text
    assert board.means.loc[("pixel-statistics", ""), "T1.outer.micro.mean"] == pytest.approx(0.11)
    same = make_board(group_key(records[0].record), distinct_records(records[:2]), {})
    assert "Pixels:" not in leaderboard_markdown(same)


def test_other_pixels_under_equal_decoders_are_refused_with_the_key() -> None:
    records = [loaded(0, OLD, "old-pixels"), loaded(1, OLD, "other-pixels")]
    with pytest.raises(ArtefactError, match=r"'pixel_digests\.probes\.outer\.test'") as caught:
        distinct_records(records)
    assert "0.json and 1.json" in str(caught.value)
    assert "rasterio 1.4.4, GDAL 3.10.3, Pillow 12.0.0" in str(caught.value)
    with pytest.raises(ArtefactError, match=r"decoders \(not recorded\) are equal"):
        distinct_records([loaded(0, {}, "old-pixels"), loaded(1, {}, "other-pixels")])


def test_references_of_equal_pixels_must_agree() -> None:
    records = [
        loaded(0, OLD, "old-pixels", random=0.20),
        loaded(1, NEW, "new-pixels", random=0.30),
        loaded(2, OLD, "old-pixels", random=0.25),
    ]
    with pytest.raises(ArtefactError, match=r"0\.json and 2\.json must agree in the field 'sco"):
        make_board(group_key(records[0].record), distinct_records(records), {})


def test_other_files_are_refused_in_both_formats() -> None:
    """Format 2 has digests of pixels, so its message names the decoders as a cause."""
    new = [loaded(0, OLD, "pixels"), loaded(1, OLD, "pixels", digests={"tasks.sea": "other-files"})]
    with pytest.raises(ArtefactError, match=r"identity\.data\.tasks\.sea.*files of the archives"):
        distinct_records(new)
    old = [
        LoadedRecord(item.path, item.record.model_copy(update={"format": 2, "pixel_digests": {}}))
        for item in new
    ]
    with pytest.raises(ArtefactError, match=r"identity\.data\.tasks\.sea.*rasterio, GDAL or Pil"):
        distinct_records(old)


def test_untrained_encoders_of_two_machines_may_differ() -> None:
    records = [
        LoadedRecord(Path("0.json"), record_of(method="one", random=0.20)),
        LoadedRecord(Path("1.json"), record_of(method="two", random=0.23, device="GPU")),
    ]
    board = make_board(group_key(records[0].record), distinct_records(records), {})
    text = leaderboard_markdown(board)
    assert "the untrained encoders of one seed differ by up to 3.00 points" in text
    assert board.means.loc[("random-encoder", "fp32"), "T1.outer.micro.mean"] == pytest.approx(
        0.215
    )
