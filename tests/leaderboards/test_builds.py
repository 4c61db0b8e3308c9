"""Tests that builds of parts of the records keep what earlier builds know."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers.cli import call, refused
from helpers.paths import ROOT
from helpers.records import FOLDER, record_of, save

import rscl_bench as rb
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.results.record import write_record


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")}


def column(out: Path, name: str) -> dict[str, str]:
    with (out / FOLDER / "leaderboard.csv").open(newline="") as file:
        return {row["method"]: row[name] for row in csv.DictReader(file)}


def ranks(out: Path) -> dict[str, str]:
    return column(out, "outer.rank")


def image_low(out: Path) -> dict[str, str]:
    return column(out, "T2.outer.micro.image_low")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of three methods, their tables, and image scores that lie elsewhere."""
    folder = tmp_path_factory.mktemp("whole")
    for method, quality in (("one", 1.0), ("two", 2.0), ("three", 3.0)):
        save(folder / "records", method, quality)
    build_leaderboard(folder / "records", folder / "tables")
    assert ranks(folder / "tables") == {
        "random-encoder": "",
        "pixel-statistics": "",
        "three": "1",
        "two": "2",
        "one": "3",
    }
    (folder / "away").mkdir()
    for path in (folder / "records").glob("*.safetensors"):
        path.rename(folder / "away" / path.name)
    return folder


@pytest.fixture
def published(whole: Path, tmp_path: Path) -> Path:
    """Records without image scores, with their tables beside them."""
    shutil.copytree(whole / "records", tmp_path / "records")
    shutil.copytree(whole / "tables", tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_part_of_the_records_never_replaces_the_whole(published: Path) -> None:
    before = contents(published)
    part = sorted((published / "records").glob("one-*.json"))
    with pytest.raises(ArtefactError, match=r"holds 6 runs that are not among the records") as e:
        build_leaderboard(part, published)
    missing = read_ids(published, ("two", "three"))
    assert str(e.value).split("such as ")[1].split(";")[0] == min(missing)
    assert contents(published) == before


def read_ids(folder: Path, methods: tuple[str, ...], records: str = "records") -> list[str]:
    paths = [path for m in methods for path in (folder / records).glob(f"{m}-*.json")]
    return [json.loads(path.read_text())["id"] for path in paths]


def test_a_table_without_any_interval_is_not_replaced_either(tmp_path: Path) -> None:
    for number, method in enumerate(("one", "two")):
        write_record(record_of(method=method), tmp_path / f"{number}.json")
    build_leaderboard(tmp_path, tmp_path / "out")
    with pytest.raises(ArtefactError, match="holds 1 runs that are not among the records"):
        build_leaderboard(tmp_path / "0.json", tmp_path / "out")


def test_tables_elsewhere_equal_those_beside_the_records(published: Path) -> None:
    build_leaderboard(published / "records", published / "elsewhere")
    tables = contents(published / "elsewhere")
    assert len(tables) == 8
    assert tables == {name: (published / name).read_bytes() for name in tables}
    part = sorted((published / "records").glob("[ot][nw]*.json"))
    build_leaderboard(part, published / "part")
    assert ranks(published / "part")["two"] == "1"
    assert ranks(published / "part")["one"] == "2"
    (frame,) = rb.leaderboard(published / "records").values()
    assert frame.set_index("method")["outer.rank"]["three"] == 1


def test_image_scores_beside_any_copy_of_a_record_are_used(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "records", tmp_path / "a-published")
    shutil.copytree(whole / "records", tmp_path / "runs")
    for path in (whole / "away").iterdir():
        shutil.copy(path, tmp_path / "runs")
    build_leaderboard([tmp_path / "a-published", tmp_path / "runs"], tmp_path / "tables")
    assert contents(tmp_path / "tables") == contents(whole / "tables")


def test_an_added_seed_without_image_scores_loses_no_stored_interval(published: Path) -> None:
    """The row of four seeds has no interval. The intervals of its three seeds stay stored."""
    stored = published / FOLDER / "image-intervals.jsonl"
    before = intervals(stored)
    save(published / "extra", "two", 2.0, seeds=1, first=3, with_images=False)
    build_leaderboard([published / "records", published / "extra"], published)
    assert image_low(published)["two"] == "", "no interval of four seeds is known"
    assert ranks(published)["two"] == "2", "pairs are over the three common seeds"
    assert before <= intervals(stored)
    shutil.rmtree(published / "extra")
    build_leaderboard(published / "records", published / "again")
    assert image_low(published / "again")["two"] != ""


def intervals(path: Path) -> set[tuple[str, ...]]:
    """Return the stored intervals with the ids of their runs in place of positions."""
    head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    ids = [run["id"] for run in head["runs"]]
    return {
        (
            *(str(line[name]) for name in ("probe", "after", "micro", "macro")),
            *(str([ids[position] for position in line[side]]) for side in ("of", "minus")),
        )
        for line in lines
    }


def test_a_newer_version_moves_the_older_table_with_its_intervals(published: Path) -> None:
    """The newest version has the plain folder; the older records keep ranks and intervals."""
    older = intervals(published / FOLDER / "image-intervals.jsonl")
    save(published / "newer", "one", 1.0, code="0.9.0")
    with pytest.raises(ArtefactError, match="holds 9 runs that are not among the records"):
        build_leaderboard(published / "newer", published)
    build_leaderboard([published / "records", published / "newer"], published)
    assert ranks(published) == {"random-encoder": "", "pixel-statistics": "", "one": ""}
    moved = published / f"{FOLDER}-0.1.0"
    assert intervals(moved / "image-intervals.jsonl") == older
    assert b"\nthree,fp32,Some CPU,3,,self-run,1," in (moved / "leaderboard.csv").read_bytes()


def test_only_the_protocols_of_the_given_runs_are_written(published: Path) -> None:
    """A newer version takes the folder, so the table of the older version moves with it."""
    save(published / "newer", "one", 1.0, code="0.9.0", seeds=1)
    save(published / "newer", "other", 1.0, code="0.9.0", seeds=1, protocol_name="long")
    sources = [published / "records", published / "newer"]
    (newest,) = read_ids(published, ("one",), "newer")
    build_leaderboard(sources, published, only={newest})
    tables = {path.parent.name for path in published.glob("*/*/leaderboard.csv")}
    assert tables == {"quick", "quick-0.1.0"}
    assert set(ranks(published)) == {"random-encoder", "pixel-statistics", "one"}


def test_a_run_that_was_run_again_replaces_its_row(published: Path) -> None:
    for path in (published / "records").glob("one-*.json"):
        path.unlink()
    save(published / "records", "one", 4.0)
    build_leaderboard(published / "records", published)
    assert ranks(published)["one"] == "", "its image scores are not those of the stored intervals"
    assert ranks(published)["two"] == "2"


def test_build_writes_beside_the_runs_and_not_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "runs", "one", 1.0, seeds=1)
    shutil.copytree(ROOT / "leaderboards" / "scene4-v2", tmp_path / "leaderboards" / "scene4-v2")
    before = contents(tmp_path / "leaderboards")
    monkeypatch.chdir(tmp_path)
    result = call("leaderboard", "build", "runs")
    assert result.exit_code == 0, result.output
    written = {Path(line).parent for line in result.stdout.splitlines()}
    tables = Path("runs") / "leaderboards"
    assert written == {tables, tables / FOLDER}
    assert contents(tmp_path / "leaderboards") == before
    paths = rb.write_leaderboards(tmp_path / "runs" / "one-0.json")
    assert {path.parent for path in paths} == {tmp_path / tables, tmp_path / tables / FOLDER}


def test_command_line_refuses_to_drop_runs_of_a_table(published: Path) -> None:
    one = published / "records" / "one-0.json"
    sentence = refused("leaderboard", "build", one, "--out", published)
    assert f"The table in {published / FOLDER} holds 8 runs" in sentence
    assert "choose another --out" in sentence
