"""Tests paired comparisons, ranks and stored intervals with records that have image scores."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.records import FOLDER, images_of, save, write_run
from scipy import stats

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.leaderboards.stored_intervals import read_table
from rscl_bench.results.image_scores import (
    ImageScores,
    image_scores_path,
    probe_scores,
    read_image_scores,
)
from rscl_bench.results.record import read_record, write_record


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ranks(out: Path) -> dict[str, str]:
    rows = table(out / FOLDER / "leaderboard.csv")
    return {row["method"]: row["outer.rank"] for row in rows}


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / FOLDER).iterdir()}


def move_image_scores(folder: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in folder.glob("*.safetensors"):
        path.rename(target / path.name)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records and leaderboard of seven methods.

    Two methods are alike, one is better, one is worse, one differs much between seeds, one has two
    seeds, and one trains jointly.
    """
    folder = tmp_path_factory.mktemp("study")
    records = folder / "records"
    save(records, "better", 3.0)
    save(records, "alike-a", 1.5)
    save(records, "alike-b", 1.51)
    save(records, "worse", 0.8)
    save(records, "unsteady", 2.2, spread=1.5)
    save(records, "two-seeds", 4.5, seeds=2)
    save(records, "joint", 4.0, steps=(8, 0))
    build_leaderboard(records, folder / "out")
    return folder


def test_methods_without_a_separation_share_a_rank(study: Path) -> None:
    by_method = ranks(study / "out")
    assert by_method["better"] == "1"
    assert by_method["alike-a"] == by_method["alike-b"] == "2"
    assert by_method["worse"] == "4"
    assert by_method["unsteady"] == "1", "its seeds differ too much for a separation"
    for name in ("two-seeds", "joint", "random-encoder", "pixel-statistics"):
        assert by_method[name] == "", name
    text = (study / "out" / FOLDER / "leaderboard.md").read_text()
    assert "| 2 | alike-a | 3 |" in text
    assert "| – | two-seeds | 2 |" in text
    assert "fewer have two-seeds (2)" in text
    assert "**Not known**" not in text
    assert "| better | 3 | alike-" in text.split("Which methods are separated")[1]


def test_comparisons_have_a_line_per_pair_and_score(study: Path) -> None:
    lines = table(study / "out" / FOLDER / "comparisons.csv")
    names = ["alike-a", "alike-b", "better", "joint", "unsteady", "worse"]
    pairs = list(combinations(names, 2))
    for score in ("micro", "macro"):
        compared = [(line["method"], line["other"]) for line in lines if line["score"] == score]
        assert compared == pairs
    records = {
        (name, seed): read_record(study / "records" / f"{name}-{seed}.json")
        for name in ("better", "worse")
        for seed in range(3)
    }
    finals = {run: r.scores[-1]["outer"].test.micro or 0.0 for run, r in records.items()}
    (line,) = (
        line
        for line in lines
        if (line["method"], line["other"], line["score"]) == ("better", "worse", "micro")
    )
    differences = [finals["better", seed] - finals["worse", seed] for seed in range(3)]
    middle = float(np.mean(differences))
    half = 4.302653 * float(np.std(differences, ddof=1)) / 3**0.5
    assert line["seeds"] == "3"
    assert float(line["difference"]) == pytest.approx(100 * middle, abs=1e-3)
    assert float(line["seed_low"]) == pytest.approx(100 * (middle - half), abs=1e-3)
    assert float(line["seed_high"]) == pytest.approx(100 * (middle + half), abs=1e-3)
    assert 0 < float(line["image_low"]) < 100 * middle < float(line["image_high"])
    assert 0 < float(line["p"]) < 0.05
    assert line["separated"] == "yes"
    assert (line["other_machine"], line["unknown_machine"]) == ("0", "3")
    for score in ("micro", "macro"):
        family = [line for line in lines if line["score"] == score]
        adjusted = stats.false_discovery_control([float(line["p"]) for line in family])
        for line, p in zip(family, adjusted, strict=True):
            assert float(line["p_bh"]) == pytest.approx(p, rel=2e-3)
            assert float(line["p"]) <= float(line["p_bh"]) <= float(line["p_holm"])
            low, high = float(line["image_low"]), float(line["image_high"])
            side = low > 0 if float(line["difference"]) > 0 else high < 0
            assert line["separated"] == ("yes" if p <= 0.05 and side else "no")
    assert len({line["separated"] for line in lines}) == 2


def test_rows_have_an_interval_over_test_images(study: Path) -> None:
    rows = {row["method"]: row for row in table(study / "out" / FOLDER / "leaderboard.csv")}
    for row in rows.values():
        low, high = (float(row[f"T2.outer.micro.image_{end}"]) for end in ("low", "high"))
        assert low < float(row["T2.outer.micro.mean"]) < high
        assert 0 < float(row["T2.outer.macro.image_low"]) < float(row["T2.outer.macro.image_high"])
    assert rows["worse"]["T2.outer.micro.image_low"] < rows["better"]["T2.outer.micro.image_low"]


def test_stored_intervals_replace_image_scores_with_equal_bytes(
    study: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(study, tmp_path / "clone")
    before = contents(copied / "out")
    move_image_scores(copied / "records", tmp_path / "away")
    build_leaderboard(copied / "records", copied / "out")
    assert contents(copied / "out") == before
    build_leaderboard(copied / "records", tmp_path / "bare")
    assert set(ranks(tmp_path / "bare").values()) == {""}
    assert (
        "**Not known** over test images"
        in (tmp_path / "bare" / FOLDER / "leaderboard.md").read_text()
    )
    lines = table(tmp_path / "bare" / FOLDER / "comparisons.csv")
    assert {(line["image_low"], line["separated"]) for line in lines} == {("", "")}
    assert all(line["seed_low"] for line in lines)
    for path in (tmp_path / "away").iterdir():  # build again with image scores
        path.rename(copied / "records" / path.name)
    build_leaderboard(copied / "records", tmp_path / "bare")
    assert contents(tmp_path / "bare") == before


def test_stored_intervals_of_changed_runs_are_not_used(study: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(study, tmp_path / "clone")
    move_image_scores(copied / "records", tmp_path / "away")
    changed = copied / "records" / "better-1.json"
    raw = json.loads(changed.read_text())
    raw["image_scores_digest"] = "f" * 64
    changed.write_text(json.dumps(raw))
    build_leaderboard(copied / "records", copied / "out")
    rows = {row["method"]: row for row in table(copied / "out" / FOLDER / "leaderboard.csv")}
    assert rows["better"]["T2.outer.micro.image_low"] == ""
    assert rows["worse"]["T2.outer.micro.image_low"] != ""
    by_method = ranks(copied / "out")
    assert by_method["better"] == "", "its pairs cannot be judged"
    assert {by_method[name] for name in ("alike-a", "alike-b", "unsteady")} == {"1"}
    assert by_method["worse"] == "3", "ranks are among the methods that can be judged"
    for line in table(copied / "out" / FOLDER / "comparisons.csv"):
        assert (line["separated"] == "") == ("better" in (line["method"], line["other"]))
    assert (
        "neither beside the records nor were their intervals stored: better\n"
        in (copied / "out" / FOLDER / "leaderboard.md").read_text()
    )


def test_method_with_image_scores_is_added_to_stored_intervals(study: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(study, tmp_path / "clone")
    move_image_scores(copied / "records", tmp_path / "away")
    save(copied / "records", "new", 2.0)
    build_leaderboard(copied / "records", copied / "out")
    lines = table(copied / "out" / FOLDER / "comparisons.csv")
    known = [line for line in lines if line["separated"]]
    assert known == table(study / "out" / FOLDER / "comparisons.csv")
    rows = {row["method"]: row for row in table(copied / "out" / FOLDER / "leaderboard.csv")}
    assert rows["new"]["T2.outer.micro.image_low"] != ""
    assert ranks(copied / "out") == {**ranks(study / "out"), "new": ""}


def test_outside_row_without_image_scores_takes_no_rank(study: Path, tmp_path: Path) -> None:
    """A row of another device joins published records: all other cells of the table stay."""
    copied = shutil.copytree(study, tmp_path / "clone")
    move_image_scores(copied / "records", tmp_path / "away")
    outside = tmp_path / "outside"
    # The name comes first in the order of rows, and the digests of its untrained encoders differ.
    save(outside, "aaa", 5.0, with_images=False, device="Some GPU", device_type="cuda")
    build_leaderboard([copied / "records", outside], copied / "out")
    rows = {row["method"]: row for row in table(copied / "out" / FOLDER / "leaderboard.csv")}
    added = rows.pop("aaa")
    assert (added["outer.rank"], added["T2.outer.micro.image_low"]) == ("", "")
    assert float(added["T2.outer.micro.mean"]) > 0
    before = {row["method"]: row for row in table(study / "out" / FOLDER / "leaderboard.csv")}
    assert rows == before
    lines = table(copied / "out" / FOLDER / "comparisons.csv")
    theirs = [line for line in lines if "aaa" in (line["method"], line["other"])]
    assert [line for line in lines if line not in theirs] == table(
        study / "out" / FOLDER / "comparisons.csv"
    )
    for line in theirs:
        assert line["separated"] == line["p_bh"] == line["image_low"] == ""
        assert (line["other_machine"], line["unknown_machine"]) == ("3", "0")
        assert float(line["p"]) > 0
    text = (copied / "out" / FOLDER / "leaderboard.md").read_text()
    assert "nor were their intervals stored: aaa\n" in text
    assert "- Machines: Some CPU (processor not recorded): 20 runs; Some GPU (" in text


@pytest.mark.parametrize("outside", ["aaa", "zzz"])
def test_outside_row_leaves_all_published_ranks(tmp_path: Path, outside: str) -> None:
    """The published records with one more row of another device without image scores."""
    published = ROOT / "leaderboards"
    extra = tmp_path / "outside"
    for seed in range(3):
        path = next((published / "records" / "scene4" / "cpu").glob(f"finetune-seed{seed}-*.json"))
        record = read_record(path)
        identity = record.identity.model_copy(
            update={"method": {**record.identity.method, "name": outside}}
        )
        provenance = record.provenance.model_copy(update={"device": "Another GPU"})
        changes = {
            "identity": identity,
            "id": identity.run_id(),
            "provenance": provenance,
            "image_scores_digest": f"{seed}" * 64,
        }
        write_record(record.model_copy(update=changes), extra / f"{seed}.json")
    build_leaderboard([published / "records", extra], tmp_path / "out")
    folder = Path("scene4-v2") / "cpu"
    rows = {row["method"]: row for row in table(tmp_path / "out" / folder / "leaderboard.csv")}
    assert rows.pop(outside)["ucmerced.rank"] == ""
    before = {row["method"]: row for row in table(published / folder / "leaderboard.csv")}
    assert rows == before
    assert sum(row["ucmerced.rank"] != "" for row in rows.values()) == 14


def test_stored_intervals_of_other_settings_are_not_used_and_damaged_ones_are_refused(
    study: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(study, tmp_path / "clone")
    move_image_scores(copied / "records", tmp_path / "away")
    stored = copied / "out" / FOLDER / "image-intervals.jsonl"
    text = stored.read_text()
    stored.write_text(text.replace('"resamples": 1000', '"resamples": 999'))
    build_leaderboard(copied / "records", copied / "out")
    assert set(ranks(copied / "out").values()) == {""}
    for damaged in (text[: len(text) // 2], "", "{}\n", text.replace('"of"', '"off"')):
        stored.write_text(damaged)
        with pytest.raises(ArtefactError, match=r"image-intervals\.jsonl is damaged"):
            build_leaderboard(copied / "records", copied / "out")


def test_image_scores_of_another_run_are_refused_with_the_name_of_the_file(
    study: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(study / "records", tmp_path / "records")
    shutil.copy(copied / "worse-0.safetensors", copied / "worse-1.safetensors")
    with pytest.raises(ArtefactError, match=r"worse-1\.safetensors does not belong to .*worse-1\."):
        build_leaderboard(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_methods_with_images_in_another_order_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    images = images_of(1.0, 1)
    order = np.random.default_rng(0).permutation(150)
    shuffled = ImageScores(
        {"outer": {"test": images.labels["outer"]["test"][order]}},
        [{"outer": {"test": row["outer"]["test"][order]}} for row in images.scores],
        {"outer": {"test": images.pixel_statistics["outer"]["test"][order]}},
    )
    assert probe_scores(shuffled.labels, shuffled.scores[0])["outer"].test.micro == pytest.approx(
        probe_scores(images.labels, images.scores[0])["outer"].test.micro
    ), "the scores of the record do not depend on the order of images"
    write_run(tmp_path / "two.json", shuffled, method="two", seed=1)
    with pytest.raises(
        ArtefactError, match=r"one-0\.json and .*two\.json .*labels of probe 'outer"
    ):
        build_leaderboard(tmp_path, tmp_path / "out")


def test_only_common_seeds_are_paired(tmp_path: Path) -> None:
    save(tmp_path, "early", 1.0, seeds=5)
    save(tmp_path, "late", 2.0, seeds=4, first=2)
    save(tmp_path, "later", 2.0, seeds=3, first=4)
    build_leaderboard(tmp_path, tmp_path / "out")
    lines = table(tmp_path / "out" / FOLDER / "comparisons.csv")
    assert [(line["method"], line["other"], line["seeds"]) for line in lines[:1]] == [
        ("early", "late", "3")
    ]
    assert len(lines) == 2, "micro and macro of the one pair with three common seeds"
    by_method = ranks(tmp_path / "out")
    assert (by_method["late"], by_method["early"]) == ("1", "2")
    assert by_method["later"] == "", "it is in two pairs that cannot be compared"


MACHINE = {"processor": "EPYC 9454", "cpu_capability": "AVX512"}


def test_rows_of_two_machines_are_compared_and_marked(tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, provenance=MACHINE)
    save(tmp_path, "two", 2.0, seeds=2, provenance=MACHINE)
    save(tmp_path, "two", 2.0, seeds=1, first=2, provenance={**MACHINE, "processor": "Xeon"})
    save(tmp_path, "three", 3.0, device="Some GPU", provenance=MACHINE)
    save(tmp_path, "four", 4.0, provenance={**MACHINE, "cpu_capability": None})
    build_leaderboard(tmp_path, tmp_path / "out")
    lines = table(tmp_path / "out" / FOLDER / "comparisons.csv")
    counts = {
        (line["method"], line["other"]): (line["other_machine"], line["unknown_machine"])
        for line in lines
    }
    assert counts == {
        ("four", "one"): ("0", "3"),
        ("four", "three"): ("3", "0"),
        ("four", "two"): ("1", "2"),
        ("one", "three"): ("3", "0"),
        ("one", "two"): ("1", "0"),
        ("three", "two"): ("3", "0"),
    }
    by_method = ranks(tmp_path / "out")
    assert [by_method[name] for name in ("four", "three", "two", "one")] == ["1", "2", "3", "4"]
    text = (tmp_path / "out" / FOLDER / "leaderboard.md").read_text()
    assert "| 2 | three | Some GPU | 3 |" in text
    assert "| four | Some CPU | 3 | three†, two†, one |" in text
    assert "- †: 5 pairs compare runs of two machines, at 11 of their seeds in total\n" in text
    assert "- The records of 2 pairs do not tell whether one machine ran both\n" in text
    assert "Some CPU (EPYC 9454, AVX512): 5 runs" in text


def test_rows_of_two_precisions_are_compared_and_marked(tmp_path: Path) -> None:
    for precision, worse in (("fp32", 1.0), ("bf16", 2.0)):
        save(tmp_path / precision, "one", worse, precision=precision)
        save(tmp_path / precision, "two", worse + 2, precision=precision)
    build_leaderboard(tmp_path, tmp_path / "out")
    lines = table(tmp_path / "out" / FOLDER / "comparisons.csv")
    assert sum(line["precision"] != line["other_precision"] for line in lines) == 8
    found = {
        (row["method"], row["precision"]): row["outer.rank"]
        for row in table(tmp_path / "out" / FOLDER / "leaderboard.csv")
    }
    assert found["two", "bf16"] == "1"
    assert found["two", "fp32"] == "2"
    assert found["one", "bf16"] == "3"
    assert found["one", "fp32"] == "4"
    text = (tmp_path / "out" / FOLDER / "leaderboard.md").read_text()
    assert "| two | bf16 | 3 | two fp32‡, one bf16, one fp32‡ |" in text
    assert "- ‡: 4 pairs compare two precisions\n" in text


def test_equal_scores_are_named_by_row(tmp_path: Path) -> None:
    """Two settings of one method are two rows, so that one setting does not hide the other."""
    for file in sorted((ROOT / "leaderboards/records/scene4/cpu").glob("lump-seed*.json")):
        record = read_record(file)
        copy = record.identity.model_copy(update={"precision": "fp32"})
        changes = {
            "identity": copy,
            "id": copy.run_id(),
            "image_scores_digest": sha256(file.read_bytes()).hexdigest(),
        }
        for name, one in (("bf16", record), ("fp32", record.model_copy(update=changes))):
            write_record(one, tmp_path / "records" / f"{name}-{file.name}")
    build_leaderboard(tmp_path / "records", tmp_path / "out")
    (text,) = (path.read_text() for path in (tmp_path / "out").rglob("leaderboard.md"))
    assert "- Equal scores after all tasks, at every common seed: lump bf16 = lump fp32\n" in text


def test_image_scores_take_precedence_over_stored_intervals(study: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(study, tmp_path / "clone")
    stored = copied / "out" / FOLDER / "image-intervals.jsonl"
    head, *lines = stored.read_text().splitlines()
    wrong = [json.dumps({**json.loads(line), "micro": [0.9, 0.91]}) for line in lines]
    stored.write_text("\n".join([head, *wrong]) + "\n")
    build_leaderboard(copied / "records", copied / "out")
    assert contents(copied / "out") == contents(study / "out")


def test_methods_with_equal_results_are_not_separated(tmp_path: Path) -> None:
    for method in ("one", "two"):
        for seed in range(3):
            path = tmp_path / f"{method}-{seed}.json"
            write_run(path, images_of(1.0, seed), method=method, seed=seed)
    build_leaderboard(tmp_path, tmp_path / "out")
    line = table(tmp_path / "out" / FOLDER / "comparisons.csv")[0]
    numbers = ("difference", "seed_low", "seed_high", "image_low", "image_high")
    assert [line[name] for name in numbers] == ["0.0000"] * 5
    assert (line["p"], line["separated"]) == ("", "no")
    assert ranks(tmp_path / "out")["one"] == ranks(tmp_path / "out")["two"] == "1"


def test_image_scores_are_read_bit_for_bit_as_written(tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    path = tmp_path / "one-0.json"
    record = read_record(path)
    images = replace(images_of(1.0, 0), run=record.id)
    read = read_image_scores(path, record)
    assert read is not None
    assert image_scores_path(path).read_bytes() == images.to_bytes() == read.to_bytes()
    for read_row, row in zip(read.scores, images.scores, strict=True):
        np.testing.assert_array_equal(read_row["outer"]["test"], row["outer"]["test"])
    image_scores_path(path).unlink()
    assert read_image_scores(path, record) is None
    image_scores_path(path).mkdir()
    with pytest.raises(ArtefactError, match=r"one-0\.safetensors is no regular file"):
        read_image_scores(path, record)


@pytest.mark.parametrize(
    "edit",
    [
        lambda line: {**line, "micro": [float("nan"), 0.5]},
        lambda line: {**line, "micro": [0.5, 0.4]},
        lambda line: {**line, "micro": ["0.4", "0.5"]},
        lambda line: {**line, "micro": [0.4, 0.5, 0.6]},
        lambda line: {**line, "micro": 0.4},
        lambda line: {**line, "macro": [0.4, 1e308]},
        lambda line: {**line, "probe": ["outer"]},
        lambda line: {**line, "of": [99]},
        lambda line: [line],
    ],
)
def test_damaged_stored_interval_is_refused(
    edit: Callable[[dict[str, Any]], Any], study: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "image-intervals.jsonl"
    lines = (study / "out" / FOLDER / stored.name).read_text().splitlines()
    lines[1] = json.dumps(edit(json.loads(lines[1])))
    stored.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtefactError, match=r"image-intervals\.jsonl is damaged"):
        read_table(stored)


def test_stored_intervals_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    stored = tmp_path / "image-intervals.jsonl"
    assert read_table(stored).intervals == {}
    os.mkfifo(stored)
    with pytest.raises(ArtefactError, match="is no regular file"):
        read_table(stored)
