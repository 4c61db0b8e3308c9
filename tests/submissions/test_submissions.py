"""Tests that a third party's runs are packed, checked against a table, and added to it."""

import json
import lzma
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call, refused
from helpers.records import images_of, save, write_run

from rscl_bench import api
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.results.image_scores import image_scores_path
from rscl_bench.results.marks import read_mark
from rscl_bench.results.published import published_records
from rscl_bench.results.validation import verdicts
from rscl_bench.submissions.bundle import MANIFEST, opened_bundle

TABLE = "toy-v1-sketch/quick"
ROOT = Path(__file__).parents[2]
ELSEWHERE: dict[str, Any] = {
    "device": "Another CPU",
    "provenance": {"python": "3.13.1", "versions": {"torch": "9.9"}, "processor": "Other"},
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a folder of published records with two rows."""
    for method, quality in (("good", 3.0), ("fair", 1.0)):
        save(tmp_path / "own", method, quality)
    api.publish(tmp_path / "own", tmp_path / "records")
    return tmp_path / "records"


def packed(tmp_path: Path, method: str = "theirs", **changes: Any) -> Path:
    """Return the submission of a row of another machine."""
    save(tmp_path / method, method, changes.pop("quality", 2.0), **{**ELSEWHERE, **changes})
    out = tmp_path / f"{method}.zip"
    api.pack_submission(tmp_path / method, out)
    return out


def refusal(file: Path, records: Path) -> str:
    before = contents(records)
    message = refused("submit", "check", file, "--against", records)
    with pytest.raises(ArtefactError):
        api.add_submission(file, records)
    assert contents(records) == before
    return message


def test_the_whole_way(records: Path, tmp_path: Path) -> None:
    """An outside row joins the table with its marks, and takes no rank from anybody."""
    save(tmp_path / "theirs", "theirs", 2.0, **ELSEWHERE)
    file = tmp_path / "theirs.zip"
    result = call("submit", "pack", tmp_path / "theirs", "--out", file)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith(sha256(file.read_bytes()).hexdigest())
    again = api.pack_submission(tmp_path / "theirs", tmp_path / "again.zip")
    assert again.path.read_bytes() == file.read_bytes()

    before = api.leaderboard(records)[TABLE].set_index("method")
    result = call("submit", "check", file, "--against", records)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.endswith(": recomputed") for line in lines) == 3
    assert f"table {TABLE}:" in lines
    assert [line for line in lines if line.startswith("  + theirs, outer: ")]

    result = call("submit", "add", file, "--into", records, "--by", "a maintainer")
    assert result.exit_code == 0, result.output
    after = api.leaderboard(records)[TABLE].set_index("method")
    assert set(after.index) - set(before.index) == {"theirs"}
    trained = ["good", "fair"]
    means = [column for column in map(str, before.columns) if column.endswith(".mean")]
    assert after.loc[trained, means].equals(before.loc[trained, means])
    assert not after.loc[trained, "outer.rank"].isna().any()
    assert dict(after["mark"])["theirs"] == "recomputed"
    (path, *_) = (p for p in published_records(records).values() if "theirs" in p.name)
    mark = read_mark(path)
    assert mark is not None
    assert mark.by == "a maintainer"
    assert {v.state for v in verdicts(published_records(records).values()).values()} == {"valid"}


def test_row_with_other_seeds_has_no_rank_and_takes_none(records: Path, tmp_path: Path) -> None:
    """It cannot be compared with any row, although its runs say that they began first."""
    early = {**ELSEWHERE["provenance"], "started": "2026-11-21T00:00:00Z"}
    file = packed(tmp_path, first=5, provenance=early, quality=4.0)
    before = dict(api.leaderboard(records)[TABLE].set_index("method")["outer.rank"])
    api.add_submission(file, records)
    after = dict(api.leaderboard(records)[TABLE].set_index("method")["outer.rank"])
    assert str(after.pop("theirs")) == "<NA>"
    for method in ("good", "fair"):
        assert after[method] == before[method]


def test_fewer_seeds_than_stated_are_named(records: Path, tmp_path: Path) -> None:
    checked, _ = api.check_submission(packed(tmp_path, seeds=1), records)
    (note,) = checked.notes
    assert note.startswith("theirs has 1 of the 3 seeds")


def test_first_rows_of_a_table_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    file = packed(tmp_path)
    checked, _ = api.check_submission(file, tmp_path / "records")
    assert [str(table.folder) for table in checked.tables] == [TABLE]
    assert len(api.add_submission(file, tmp_path / "records")) == 3


def test_duplicate_is_refused(records: Path, tmp_path: Path) -> None:
    api.pack_submission(tmp_path / "own", tmp_path / "own.zip")
    assert "is published already in" in refusal(tmp_path / "own.zip", records)


def test_another_result_of_a_published_run_is_refused(records: Path, tmp_path: Path) -> None:
    file = packed(tmp_path, "good", quality=2.5)
    assert "has another result, which is published in" in refusal(file, records)


def test_runs_for_a_row_of_others_are_refused(records: Path, tmp_path: Path) -> None:
    file = packed(tmp_path, "good", first=3)
    assert "adds no run to a row of others" in refusal(file, records)


def test_other_archives_are_refused(records: Path, tmp_path: Path) -> None:
    file = packed(tmp_path, digests={"tasks.land": "another-copy"})
    message = refusal(file, records)
    assert "other archives" in message
    assert "'identity.data.tasks.land' is another-copy" in message


def test_another_scenario_of_the_same_version_is_refused(records: Path, tmp_path: Path) -> None:
    file = packed(tmp_path, scenario_digest="f" * 16)
    assert "'identity.scenario.digest'" in refusal(file, records)


def test_foreign_record_under_another_name_is_refused(records: Path, tmp_path: Path) -> None:
    """The image scores name the run that they are of."""
    record = json.loads((tmp_path / "own" / "good-0.json").read_text())
    record["identity"]["method"]["name"] = "stolen"
    record["id"] = sha256(canonical_json(record["identity"])).hexdigest()[:16]
    (tmp_path / "stolen").mkdir()
    path = tmp_path / "stolen" / "record.json"
    path.write_text(json.dumps(record))
    scores = image_scores_path(tmp_path / "own" / "good-0.json").read_bytes()
    image_scores_path(path).write_bytes(scores)
    message = refused("submit", "pack", path.parent, "--out", tmp_path / "out.zip")
    assert "does not fit" in message or "names the run" in message


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None], fit: bool = True) -> Path:
    """Change the files of a bundle, and the digests in its manifest if wanted."""
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    if fit:
        manifest = json.loads(files[MANIFEST])
        manifest["files"] = {
            name: sha256(text).hexdigest() for name, text in files.items() if name != MANIFEST
        }
        files[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file


def first(files: dict[str, bytes], end: str) -> str:
    return next(name for name in sorted(files) if name.endswith(end))


def flip(files: dict[str, bytes]) -> None:
    name = first(files, "record.safetensors")
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])


def better(files: dict[str, bytes]) -> None:
    name = first(files, "record.json")
    raw = json.loads(files[name])
    raw["pixel_statistics"]["outer"]["test"]["micro"] = 0.99
    files[name] = json.dumps(raw).encode()


def other_recipe(files: dict[str, bytes]) -> None:
    files[first(files, "recipe.toml")] += b"\n[extra]\nvalue = 1\n"


def without(end: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        del files[first(files, end)]

    return change


def extra(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: b"content"})


def bomb(files: dict[str, bytes]) -> None:
    files[first(files, "record.safetensors")] = bytes(2**25)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (flip, "does not belong to"),
        (better, "'pixel_statistics.outer.test.micro'"),
        (other_recipe, "is not the one in the field 'identity.method'"),
        (without("record.safetensors"), "lacks the image scores"),
        (without("recipe.toml"), "lacks the image scores or the recipe"),
        (extra("../../escaped.py"), "'../../escaped.py', which is no file of a submission"),
        (extra("/etc/escaped"), "which is no file of a submission"),
        (extra("runs/0123456789abcdef/../../x"), "which is no file of a submission"),
        (extra("components/0123456789ab/..py"), "which is no file of a submission"),
        (extra("runs/0123456789abcdef/record.mark.json"), "which is no file of a submission"),
        (bomb, "unpacks from"),
    ],
)
def test_tampered_bundle_is_refused(
    change: Callable[[dict[str, bytes]], None], named: str, records: Path, tmp_path: Path
) -> None:
    file = rewritten(packed(tmp_path), change)
    assert named in refusal(file, records)
    assert not (tmp_path.parent / "escaped.py").exists()


def test_rewriting_without_a_change_is_accepted(records: Path, tmp_path: Path) -> None:
    file = rewritten(packed(tmp_path), lambda _: None)
    assert len(api.check_submission(file, records)[0].records) == 3


def test_file_that_is_not_of_the_manifest_is_refused(records: Path, tmp_path: Path) -> None:
    file = rewritten(packed(tmp_path), other_recipe, fit=False)
    assert f"of which {MANIFEST} has the digest" in refusal(file, records)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"text" * 99, lzma.compress(b"x"), b"PK\5\6" + b"\xff" * 16 + b"\0\0"],
)
def test_what_is_no_bundle_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(content)
    with (
        pytest.raises(ArtefactError, match=r"file\.zip"),
        opened_bundle(tmp_path / "file.zip"),
    ):
        pytest.fail("it was opened")


def test_bundle_that_is_cut_is_refused(records: Path, tmp_path: Path) -> None:
    file = packed(tmp_path)
    file.write_bytes(file.read_bytes()[:-40])
    assert "is no bundle of a submission" in refusal(file, records)


def with_code(tmp_path: Path) -> tuple[Path, Path]:
    """Return a run whose objective was given by path, and the file of its code."""
    code = tmp_path / "mine.py"
    code.write_text("raise SystemExit('this code must not run')\n")
    digits = sha256(code.read_bytes()).hexdigest()[:12]
    objective = {"name": f"mine.py:Mine@{digits}", "rate": 1e-05, "empty": None, "sizes": [1, 2]}
    for seed in range(3):
        write_run(
            tmp_path / "theirs" / f"{seed}.json",
            images_of(2.0, seed),
            method="theirs",
            seed=seed,
            parameters={
                "objective": objective,
                "strategies": [{"name": "kept", "note": 'a"b \\ é'}],
            },
            **ELSEWHERE,
        )
    return tmp_path / "theirs", code


def test_code_travels_by_digest_and_is_never_run(records: Path, tmp_path: Path) -> None:
    runs, code = with_code(tmp_path)
    file = tmp_path / "theirs.zip"
    assert "mine.py is not given for" in refused("submit", "pack", runs, "--out", file)
    assert call("submit", "pack", runs, "--out", file, "--code", code).exit_code == 0
    checked, _ = api.check_submission(file, records)
    assert any("objectives 'mine.py:Mine@" in note for note in checked.notes)

    api.add_submission(file, records)
    (recipe, *_) = sorted(records.rglob("theirs-*.recipe.toml"))
    objective = tomllib.loads(recipe.read_text())["objective"]
    assert objective["rate"] == 1e-05
    named = recipe.parent / objective["name"].rpartition(":")[0]
    assert named.read_bytes() == code.read_bytes()


def test_code_that_was_changed_since_the_run_is_refused(records: Path, tmp_path: Path) -> None:
    runs, code = with_code(tmp_path)
    file = tmp_path / "theirs.zip"
    api.pack_submission(runs, file, code=[code])

    def change(files: dict[str, bytes]) -> None:
        files[first(files, "mine.py")] += b"# changed\n"

    assert "lacks the code mine.py" in refusal(rewritten(file, change), records)
    code.write_text("changed = True\n")
    assert "mine.py was changed since" in refused(
        "submit", "pack", runs, "--out", file, "--code", code
    )


def test_run_without_whole_image_scores_is_not_packed(records: Path, tmp_path: Path) -> None:
    message = refused("submit", "pack", records, "--out", tmp_path / "out.zip")
    assert "a submission needs the scores of the images" in message


def other_python() -> str | None:
    """Return an interpreter of another version that has this package's dependencies."""
    named = os.environ.get("RSCL_OTHER_PYTHON")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not named:
        return None
    version = "import sys, torch; print('%d.%d' % sys.version_info[:2])"
    result = subprocess.run([named, "-c", version], capture_output=True, text=True, check=False)
    return named if result.returncode == 0 and result.stdout.strip() != own else None


@pytest.mark.slow
def test_a_bundle_is_checked_by_another_version_of_python(records: Path, tmp_path: Path) -> None:
    python = other_python()
    if python is None:
        pytest.skip("RSCL_OTHER_PYTHON names no interpreter of another version with torch")
    file = packed(tmp_path)
    command = [python, "-m", "rscl_bench", "submit", "check", file, "--against", records]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=env
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == call("submit", "check", file, "--against", records).stdout
