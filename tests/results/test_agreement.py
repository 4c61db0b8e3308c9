"""Tests which records contradict each other, and which honest records do not."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT

from rscl_bench.results.agreement import Filed, disagreements, equal_methods
from rscl_bench.results.schema import RunRecord

Raw = dict[str, Any]


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    """Published records of three seeds of two methods."""
    folder = ROOT / "leaderboards" / "records" / "scene4" / "cpu"
    paths = sorted(path for method in ("lump", "er") for path in folder.glob(f"{method}-seed*"))
    return [RunRecord.model_validate_json(path.read_text(), strict=True) for path in paths]


def changed(record: RunRecord, change: Callable[[Raw], None]) -> RunRecord:
    raw = json.loads(record.model_dump_json())
    change(raw)
    raw["id"] = "0" * 16  # any other id; the checks of single records are not made here
    return RunRecord.model_validate_json(json.dumps(raw), strict=True)


def found(*records: RunRecord) -> list[str]:
    filed = [Filed(Path(f"{index}.json"), record) for index, record in enumerate(records)]
    return [disagreement.sentence for disagreement in disagreements(filed)]


def renamed(raw: Raw) -> None:
    method = raw["identity"]["method"]
    method.update(name="cosmae-data-mixup", title="Other title")
    method["strategies"][0]["name"] = "data-mixup"


def reweighted(raw: Raw) -> None:
    raw["identity"]["method"].update(name="heavy")
    raw["identity"]["method"]["strategies"][0]["alpha"] = 0.9


def own_digest(raw: Raw) -> None:
    raw["image_scores_digest"] = "1" * 64


def next_seed(raw: Raw) -> None:
    raw["identity"]["seed"] += 1


def few_images(raw: Raw) -> None:
    raw["probes"][0].update(test_tiles=50)


def collapsed(raw: Raw) -> None:
    raw["scores"][1:] = [raw["scores"][1]] * 4


def other_backbone(raw: Raw) -> None:
    raw["identity"]["protocol"]["backbone"]["name"] = "pretrained.py:Big@0123456789ab"


def other_untrained(raw: Raw) -> None:
    raw["scores"][0]["ucmerced"]["test"]["micro"] -= 0.01


def other_trained(raw: Raw) -> None:
    raw["scores"][2]["ucmerced"]["test"]["micro"] -= 0.01


def all_of(*changes: Callable[[Raw], None]) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        for one in changes:
            one(raw)

    return change


def by_name(records: Sequence[RunRecord]) -> list[tuple[str, RunRecord]]:
    return [(str(record.identity.method["name"]), record) for record in records]


def test_published_records_agree(records: list[RunRecord]) -> None:
    assert found(*records) == []
    assert equal_methods(by_name(records)) == []


def test_copy_of_a_record_agrees(records: list[RunRecord]) -> None:
    assert found(records[0], records[0]) == []


def test_one_method_under_two_names_agrees_and_is_named(records: list[RunRecord]) -> None:
    lumps = [record for record in records if record.identity.method["name"] == "lump"]
    copies = [changed(record, renamed) for record in lumps]
    assert found(*lumps, *copies) == []
    assert equal_methods(by_name([*records, *copies])) == [("cosmae-data-mixup", "lump")]


def test_equal_scores_of_two_methods_are_named_and_no_fault(records: list[RunRecord]) -> None:
    """A penalty with weight 0 trains as no penalty does."""
    lump = next(r for r in records if r.identity.method["name"] == "lump")
    heavy = changed(lump, all_of(reweighted, own_digest))
    assert found(lump, heavy) == []
    assert equal_methods(by_name([lump, heavy])) == [("heavy", "lump")]
    assert equal_methods(by_name([lump, changed(heavy, other_trained)])) == []


def test_one_digest_under_two_methods_is_refused(records: list[RunRecord]) -> None:
    lump = next(r for r in records if r.identity.method["name"] == "lump")
    (sentence,) = found(lump, changed(lump, reweighted))
    assert sentence.startswith("0.json and 1.json are two runs and have one 'image_scores_digest'")
    assert "the field 'identity.method' of one is wrong" in sentence


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (next_seed, "image_scores_digest"),
        (all_of(next_seed, own_digest, other_trained), "'scores.0'"),
        (all_of(next_seed, own_digest, other_untrained), "after all tasks, in the field 'scores'"),
    ],
)
def test_two_seeds_with_equal_scores_are_refused(
    records: list[RunRecord], change: Callable[[Raw], None], field: str
) -> None:
    sentences = found(records[0], changed(records[0], change))
    assert field in sentences[0]


@pytest.mark.parametrize("honest", [few_images, other_backbone])
def test_honest_seeds_with_equal_scores_agree(
    records: list[RunRecord], honest: Callable[[Raw], None]
) -> None:
    """A few images are often ranked alike; another package's backbone may start from weights."""
    first = changed(records[0], honest)
    assert found(first, changed(first, all_of(next_seed, own_digest))) == []


def test_collapsed_encoders_may_have_equal_scores(records: list[RunRecord]) -> None:
    first = changed(records[0], collapsed)
    other = changed(first, all_of(next_seed, own_digest, other_untrained))
    assert found(first, other) == []


def test_digest_of_another_run_is_refused_whatever_the_probe_in_format_3(
    records: list[RunRecord],
) -> None:
    def format_3(raw: Raw) -> None:
        raw.update(format=3, pixel_digests=raw["identity"]["data"])

    small = changed(records[0], few_images)
    assert found(small, changed(small, next_seed)) == []
    small = changed(small, format_3)
    copy = changed(small, next_seed).model_copy(update={"id": "1" * 16})
    (sentence,) = found(small, copy)
    assert "the field 'identity.seed' of one is wrong" in sentence


@pytest.mark.parametrize(
    ("factor", "refused"), [(1.0, False), (1.05, False), (0.95, False), (1.2, True), (0.5, True)]
)
def test_operations_of_one_method_differ_by_random_masks_only(
    records: list[RunRecord], factor: float, refused: bool
) -> None:
    def counted(scale: float) -> Callable[[Raw], None]:
        flops = {"with_gradient": round(scale * 10**9), "without_gradient": 0}
        return lambda raw: raw.update(flops=flops)

    sentences = found(changed(records[0], counted(1.0)), changed(records[1], counted(factor)))
    assert ["flops" in sentence for sentence in sentences] == [True] * refused
