"""Tests that runs are checked, published with packed scores and marked."""

import json
from pathlib import Path

import pytest
from helpers.cli import call
from helpers.records import save

import rscl_bench
from rscl_bench import api
from rscl_bench.errors import ArtefactError
from rscl_bench.results.image_scores import image_scores_path
from rscl_bench.results.marks import mark_path, read_mark, write_mark
from rscl_bench.results.packed_scores import packed_scores_path
from rscl_bench.results.published import published_records
from rscl_bench.results.validation import verdicts

TABLE = Path("toy-v1-sketch/quick")


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for method, quality in (("better", 3.0), ("worse", 1.0)):
        save(tmp_path / "runs", method, quality)
    return tmp_path / "runs"


def test_published_runs_give_the_tables_of_the_runs_to_the_byte(runs: Path, tmp_path: Path) -> None:
    """No stored interval is at hand, so that the intervals come from the packed scores."""
    result = call("leaderboard", "publish", runs, "--into", tmp_path / "records")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 6
    assert all(line.endswith(": recomputed") for line in result.stdout.splitlines())
    assert not list((tmp_path / "records").rglob("*seed?-*[0-9a-f].safetensors"))

    published = sorted(published_records(tmp_path / "records").values())
    assert {verdict.state for verdict in verdicts(published).values()} == {"valid"}
    api.write_leaderboards(tmp_path / "records", tmp_path / "tables")
    for path in published:
        mark_path(path).unlink()  # the runs have none
    api.write_leaderboards(tmp_path / "records", tmp_path / "unmarked")
    api.write_leaderboards(runs, tmp_path / "expected")
    assert contents(tmp_path / "unmarked") == contents(tmp_path / "expected")

    marked = contents(tmp_path / "tables")
    unmarked = contents(tmp_path / "unmarked")
    changed = {name for name in marked if marked[name] != unmarked[name]}
    names = ("index.html", "leaderboard.md", "leaderboard.csv")
    assert changed == {TABLE / name for name in names}


def test_tables_show_the_weakest_mark_of_a_row(runs: Path, tmp_path: Path) -> None:
    api.publish(runs, tmp_path / "records")
    by_method = {
        method: sorted((tmp_path / "records").rglob(f"{method}-seed*[0-9a-f].json"))
        for method in ("better", "worse")
    }
    for path in by_method["better"]:
        write_mark(path, "reproduced", "a reader", "Some other CPU")
    mark_path(by_method["worse"][1]).unlink()
    frame = api.leaderboard(tmp_path / "records")[str(TABLE)].set_index("method")
    assert frame["mark"].to_dict() == {
        "random-encoder": "",
        "pixel-statistics": "",
        "better": "reproduced",
        "worse": "self-run",
    }
    api.write_leaderboards(tmp_path / "records", tmp_path / "tables")
    text = (tmp_path / "tables" / TABLE / "leaderboard.md").read_text()
    assert "- Marks: self-run: nobody but who ran it has checked the row; reproduced: its" in text
    assert "| 1 | better | 3 | reproduced |" in text
    assert "| worse | 3 | self-run |" in text
    assert "| – | random-encoder | 3 | – |" in text


def test_mark_says_who_set_it_and_grows_only_stronger(runs: Path) -> None:
    path = runs / "better-0.json"
    before = path.read_bytes()
    assert read_mark(path) is None
    write_mark(path, "recomputed", "someone")
    mark = read_mark(path)
    assert mark is not None
    assert (mark.mark, mark.by, mark.tool, mark.machine) == (
        "recomputed",
        "someone",
        f"rscl-bench {rscl_bench.__version__}",
        None,
    )
    write_mark(path, "reproduced", "another", "Some CPU")
    write_mark(path, "recomputed", "someone")
    mark = read_mark(path)
    assert mark is not None
    assert (mark.mark, mark.by, mark.machine) == ("reproduced", "another", "Some CPU")
    assert path.read_bytes() == before


def test_mark_of_another_record_is_refused(runs: Path) -> None:
    write_mark(runs / "better-0.json", "recomputed", "someone")
    mark_path(runs / "better-0.json").rename(mark_path(runs / "worse-0.json"))
    message = "is the mark of another record"
    with pytest.raises(ArtefactError, match=message):
        api.write_leaderboards(runs, runs / "tables")
    judged = verdicts([runs / "worse-0.json"])
    assert message in judged[runs / "worse-0.json"].reason


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mark": "self-run"}, "mark"),
        ({"mark": "checked by an expert"}, "mark"),
        ({"by": ""}, "by"),
        ({"by": "two\nlines"}, "by"),
        ({"record": "f" * 63}, "record"),
        ({"grade": 1}, "grade"),
    ],
)
def test_damaged_mark_is_refused_with_the_field(
    change: dict[str, object], named: str, runs: Path
) -> None:
    path = runs / "better-0.json"
    write_mark(path, "recomputed", "someone")
    raw = json.loads(mark_path(path).read_text())
    mark_path(path).write_text(json.dumps(raw | change))
    with pytest.raises(ArtefactError, match=named):
        read_mark(path)


def test_mark_of_a_record_without_image_scores_is_refused(runs: Path) -> None:
    path = runs / "better-0.json"
    write_mark(path, "recomputed", "someone")
    image_scores_path(path).unlink()
    (verdict,) = verdicts([path]).values()
    assert (verdict.state, "does not hold" in verdict.reason) == ("refused", True)


def test_marks_are_no_foreign_files(runs: Path) -> None:
    write_mark(runs / "better-0.json", "recomputed", "someone")
    (runs / "package.json").write_text("{}")
    assert api.foreign_files(runs) == [runs / "package.json"]


def test_a_record_named_like_a_mark_is_not_hidden(runs: Path) -> None:
    (runs / "better-0.json").rename(runs / "hidden.mark.json")
    assert runs / "hidden.mark.json" in api.validate(runs)


def test_nothing_is_published_if_a_run_is_refused(runs: Path, tmp_path: Path) -> None:
    raw = json.loads((runs / "worse-1.json").read_text())
    raw["pixel_statistics"]["outer"]["test"]["micro"] = 0.123
    (runs / "worse-1.json").write_text(json.dumps(raw))
    result = call("leaderboard", "publish", runs, "--into", tmp_path / "records")
    assert result.exit_code == 1
    assert "'pixel_statistics.outer.test.micro'" in result.stderr
    assert not (tmp_path / "records").exists()


def test_run_without_image_scores_is_not_published(runs: Path, tmp_path: Path) -> None:
    image_scores_path(runs / "worse-1.json").unlink()
    with pytest.raises(ArtefactError, match=r"worse-1\.json cannot be recomputed"):
        api.publish(runs, tmp_path / "records")


def test_another_result_of_a_published_run_is_refused(runs: Path, tmp_path: Path) -> None:
    api.publish(runs / "better-0.json", tmp_path / "records")
    before = contents(tmp_path / "records")
    save(tmp_path / "again", "better", 2.0, seeds=1)
    with pytest.raises(ArtefactError, match="holds another result of the run"):
        api.publish(tmp_path / "again", tmp_path / "records")
    assert contents(tmp_path / "records") == before


def test_published_records_get_their_marks_in_place(runs: Path, tmp_path: Path) -> None:
    api.publish(runs, tmp_path / "records")
    before = contents(tmp_path / "records")
    for path in (tmp_path / "records").rglob("*.mark.json"):
        path.unlink()
    api.publish(tmp_path / "records", tmp_path / "records")
    assert contents(tmp_path / "records") == before


def test_published_records_of_this_version_can_all_be_recomputed() -> None:
    """Version 0.2.0 published records without the scores of their images."""
    root = Path(__file__).parents[2] / "leaderboards" / "records"
    paths = sorted(published_records(root).values())
    without = {
        path.parts[len(root.parts)] for path in paths if not packed_scores_path(path).is_file()
    }
    assert without == {"scene4"}
    chosen = next(path for path in paths if "shift4" in path.parts)
    assert [verdict.state for verdict in verdicts([chosen]).values()] == ["valid"]
