"""Tests that records edited by hand are refused, since their image scores disagree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call
from helpers.records import images_of, save, write_run

from rscl_bench.results.continual import continual_of
from rscl_bench.results.image_scores import image_scores_path
from rscl_bench.results.schema import ProbeRecord, ProbeScore, TaskRecord
from rscl_bench.results.validation import Verdict, verdicts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path, "better", 3.0, seeds=1)
    (record,) = tmp_path.glob("*.json")
    return record


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def refusal(path: Path) -> str:
    (verdict,) = verdicts([path]).values()
    assert verdict.state == "refused"
    return verdict.reason


def test_unchanged_record_is_valid(path: Path) -> None:
    assert verdicts([path]) == {path: Verdict("valid")}
    result = call("leaderboard", "validate", path.parent)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{path}: valid",
        "1 records: 1 valid, 0 not recomputable, 0 refused",
    ]
    assert result.stderr == ""


@pytest.mark.parametrize("kind", ["micro", "macro"])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_changed_score_is_refused_with_the_name_of_the_field(
    path: Path, row: int, kind: str
) -> None:
    """The continual metrics are changed too, so that the record agrees with itself."""

    def change(raw: dict[str, Any]) -> None:
        raw["scores"][row]["outer"]["test"][kind] += 0.001

    edit(path, change)
    derived = continual_metrics(path)
    edit(path, lambda raw: raw.update(continual=derived))
    assert f"'scores.{row}.outer.test.{kind}' of {path} does not follow" in refusal(path)


def continual_metrics(path: Path) -> dict[str, Any]:
    """Return the continual metrics computed from a record's scores."""
    raw = json.loads(path.read_text())
    return continual_of(
        [TaskRecord.model_validate(task) for task in raw["tasks"]],
        [ProbeRecord.model_validate(probe) for probe in raw["probes"]],
        [{n: ProbeScore.model_validate(s) for n, s in row.items()} for row in raw["scores"]],
    ).model_dump()


def test_changed_score_of_pixel_statistics_is_refused_with_the_name_of_the_field(
    path: Path,
) -> None:
    edit(path, lambda raw: raw["pixel_statistics"]["outer"]["test"].update(micro=0.123))
    assert "'pixel_statistics.outer.test.micro'" in refusal(path)


def test_removed_field_is_refused_with_its_name(path: Path) -> None:
    edit(path, lambda raw: raw.pop("parameters"))
    assert "parameters" in refusal(path)


def test_record_without_image_scores_is_not_checkable(path: Path) -> None:
    wanted = image_scores_path(path)
    wanted.unlink()
    reason = f"there are no image scores in {wanted} and none in better-0.ranks.safetensors.xz"
    assert verdicts([path]) == {path: Verdict("not recomputable", reason)}
    result = call("leaderboard", "validate", path)
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        f"{path}: not recomputable: {reason}",
        "1 records: 0 valid, 1 not recomputable, 0 refused",
    ]


def test_image_scores_of_another_run_are_refused(path: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", "other", 1.0, seeds=1)
    (other,) = (tmp_path / "other").glob("*.safetensors")
    image_scores_path(path).write_bytes(other.read_bytes())
    assert "does not belong to" in refusal(path)


def test_command_prints_a_verdict_for_every_record(path: Path) -> None:
    save(path.parent, "second", 1.0, seeds=1)
    edit(path, lambda raw: raw.pop("scores"))
    result = call("leaderboard", "validate", path.parent)
    assert result.exit_code == 1
    (refused,) = result.stderr.splitlines()
    assert refused.startswith(f"refused: {path}: field 'scores'")
    assert result.stdout.splitlines() == [
        f"{path.with_name('second-0.json')}: valid",
        "2 records: 1 valid, 0 not recomputable, 1 refused",
    ]


def test_component_that_is_not_registered_is_named_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    marker, code = tmp_path / "was-run", tmp_path / "strange.py"
    code.write_text(f"open({str(marker)!r}, 'w')\nclass Strange: pass\n")
    path = tmp_path / "run.json"
    parameters = {
        "objective": {"name": "strange.py:Strange"},
        "strategies": [{"name": "unheard-of"}],
    }
    write_run(path, images_of(1.0, 0), parameters=parameters)
    (verdict,) = verdicts([path]).values()
    assert verdict.state == "valid"
    assert [note.split(" is not registered here")[0] for note in verdict.notes] == [
        "objectives 'strange.py:Strange'",
        "strategies 'unheard-of'",
    ]
    result = call("leaderboard", "validate", path)
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 2
    assert not marker.exists()
