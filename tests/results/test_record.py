"""Tests that records are written, read and checked."""

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from helpers.records import record_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.run_table import run_table
from rscl_bench.results.record import read_record, write_record
from rscl_bench.results.schema import Provenance, task_key

lines = st.text(max_size=200).filter(str.isprintable)
fractions = st.one_of(st.none(), st.floats(0, 1))


@settings(max_examples=40, deadline=None)
@given(
    finals=st.lists(fractions, min_size=1, max_size=2),
    random=fractions,
    seed=st.integers(0, 2**40),
    overrides=st.dictionaries(
        st.from_regex(r"\A(objective|strategies\.[a-z-]{1,9})\.[a-z_]{1,9}\Z"),
        st.one_of(st.integers(), lines, st.floats(allow_nan=False, allow_infinity=False)),
    ),
)
def test_written_record_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    finals: list[float | None],
    random: float | None,
    seed: int,
    overrides: dict[str, Any],
) -> None:
    record = record_of(finals=tuple(finals), random=random, seed=seed, overrides=overrides)
    path = tmp_path_factory.mktemp("records") / "run.json"
    write_record(record, path)
    assert read_record(path) == record
    before = path.read_bytes()
    write_record(read_record(path), path)
    assert path.read_bytes() == before


def test_undefined_value_is_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_record(record_of(finals=(None,)), path)
    raw = json.loads(path.read_text())
    assert raw["scores"][1]["outer"]["test"] == {"micro": None, "macro": None, "macro_labels": 0}
    assert raw["tasks"][0]["peak_memory_bytes"] is None
    assert raw["continual"]["micro"]["backward_transfer"] is None
    assert raw["continual"]["micro"]["outside"]["outer"]["final"] is None
    assert raw["provenance"]["started"] == "2026-11-22T03:04:05Z"


def test_id_depends_on_the_identity_only() -> None:
    record = record_of()
    assert record_of(device="Other", seconds=99.0, finals=(0.1, 0.2)).id == record.id
    changed: tuple[dict[str, Any], ...] = (
        {"seed": 1},
        {"method": "cosmae"},
        {"parameters": {"strategies": []}},
        {"precision": "bf16"},
        {"edition": "real"},
        {"version": "2"},
        {"scenario_digest": "fedcba9876543210"},
        {"scenario": "rs4"},
        {"protocol": {"image_size": 64}},
        {"overrides": {"image_size": 32}},
        {"digests": {task_key("sea"): "otherdigest"}},
        {"code": "0.2.0"},
    )
    others = [record_of(**change).id for change in changed]
    assert len({record.id, *others}) == len(changed) + 1


def test_one_task_may_have_no_step_but_not_all_tasks(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_record(record_of(steps=(8, 0)), path)
    last = json.loads(path.read_text())["tasks"][1]
    assert (last["steps"], last["train_seconds"]) == (0, 0.0)
    assert last["images_per_second"] is last["final_loss"] is None
    assert read_record(path).tasks[1].steps == 0
    rows = run_table(read_record(path))
    assert (rows[3].train_seconds, rows[3].images_per_second) == (0.0, None)
    with pytest.raises(ArtefactError, match="field 'tasks' has no training step"):
        record_of(steps=(0, 0))


def test_task_may_have_more_steps_than_its_own_tiles_give() -> None:
    assert record_of(steps=(4, 9)).tasks[1].tiles == 10


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record_of().seconds.total = 1.0  # type: ignore[misc]


def put(*path: int | str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(raw: dict[str, Any]) -> None:
        current: Any = raw
        for key in path[:-1]:
            current = current[key]
        current[path[-1]] = value

    return edit


def drop(*path: int | str) -> Callable[[dict[str, Any]], None]:
    def edit(raw: dict[str, Any]) -> None:
        current: Any = raw
        for key in path[:-1]:
            current = current[key]
        del current[path[-1]]

    return edit


TEST = ("scores", 1, "outer", "test")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("format", value=1), "field 'format' is 1 and this version reads 2 and 3"),
        (put("format", value=2), "field 'pixel_digests' has the keys"),
        (drop("pixel_digests"), "field 'pixel_digests' has the keys"),
        (drop("format"), "has no field 'format'"),
        (put("id", value="0" * 16), "field 'id' is 0000000000000000"),
        (put("identity", "seed", value=7), "field 'id' is"),
        (put("identity", "seed", value="7"), "field 'identity.seed'"),
        (put("identity", "method", "name", value="better"), "field 'id' is"),
        (put("identity", "scenario", "version", value="../1"), "'identity.scenario.version'"),
        (put("identity", "protocol", "x", value=float("nan")), "field 'identity' holds a number"),
        (put("identity", "edition", value="fake"), "field 'identity.edition'"),
        (put("identity", "precision", value="auto"), "field 'identity.precision'"),
        (put("note", value="hello"), "field 'note'"),
        (drop("seconds"), "field 'seconds'"),
        (drop("scores", 1, "outer", "val"), "field 'scores.1.outer.val'"),
        (put("tasks", 0, "final_loss", value=float("nan")), "field 'tasks.0.final_loss'"),
        (put("tasks", 0, "final_loss", value=float("inf")), "field 'tasks.0.final_loss'"),
        (put("tasks", 1, "images_per_second", value=5.0), "field 'tasks.1.images_per_second'"),
        (put("tasks", 1, "train_seconds", value=1.0), "field 'tasks.1.images_per_second'"),
        (put("tasks", 1, "waited_seconds", value=1e4), "field 'tasks.1.waited_seconds'"),
        (
            put("tasks", 1, "flop_utilisation", value=0.5),
            "'tasks.1.flop_utilisation' needs the fields 'flops'",
        ),
        (put("tasks", 0, "tiles", value=1000), "field 'tasks.0.steps'"),
        (put("tasks", 0, "steps", value=3), "field 'tasks.0.steps' is 3"),
        (put("tasks", 0, "steps", value=0), "'tasks.0.images_per_second' does not fit 0 steps"),
        (put("tasks", 1, "final_loss", value=None), "'tasks.1.final_loss' does not fit 4 steps"),
        (put("tasks", 1, "train_seconds", value=0.0), "field 'tasks.1.images_per_second'"),
        (put("image_scores_digest", value=None), "field 'image_scores_digest'"),
        (put("image_scores_digest", value="0" * 63), "field 'image_scores_digest'"),
        (put("tasks", 1, "name", value="sea"), "field 'tasks' lists the same name twice"),
        (put("tasks", 1, "name", value="air"), "lacks the digest of 'tasks.air'"),
        (put("probes", 0, "task", value="air"), "field 'probes.0.task' is 'air'"),
        (put(*TEST, "micro", value=1.2), "field 'scores.1.outer.test.micro'"),
        (put(*TEST, "micro", value=-0.1), "field 'scores.1.outer.test.micro'"),
        (put(*TEST, "micro", value="0.4"), "field 'scores.1.outer.test.micro'"),
        (put(*TEST, "micro", value=None), "field 'scores.1.outer.test.micro'"),
        (put(*TEST, "macro_labels", value=5), "field 'scores.1.outer.test.macro_labels'"),
        (
            put(*TEST, "micro", value=0.41),
            "field 'continual.micro.outside.outer.mean_over_tasks'",
        ),
        (
            put("continual", "micro", "forgetting", value=0.0),
            "field 'continual.micro.forgetting'",
        ),
        (put("continual", "macro", "outside", value={}), "field 'continual.macro.outside.outer'"),
        (drop("scores", 2), "field 'scores' has 2 rows, expected 3"),
        (put("scores", 1, value={}), "field 'scores.1' has scores of the probes"),
        (
            lambda raw: raw["pixel_statistics"].update(other=raw["pixel_statistics"]["outer"]),
            "field 'pixel_statistics' has scores of the probes",
        ),
        (put("provenance", "started", value="2026-11-22T03:04:05"), "'provenance.started'"),
        (put("provenance", "started", value="2026-11-22T03:04:05+02:00"), "must be a UTC time"),
    ],
)
def test_edited_record_is_refused_with_the_name_of_the_field(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = tmp_path / "run.json"
    write_record(record_of(), path)
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(ArtefactError, match=message.replace(".", r"\.")) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1'])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"run\.json (is damaged|is no run record)"):
        read_record(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_record(record_of(), path)
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match="is damaged"):
            read_record(path)


def test_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"nothing\.json cannot be read"):
        read_record(tmp_path / "nothing.json")


def test_contradicting_results_are_refused() -> None:
    with pytest.raises(ArtefactError, match="do not make a record"):
        record_of(probes={"outer": "air"})
    with pytest.raises(ValidationError, match="finite"):
        record_of(overrides={"x": {"y": float("nan")}})
    with pytest.raises(ArtefactError, match=r"contradict.*identity\.protocol\.seeds"):
        record_of(protocol={"seeds": "many"})
    with pytest.raises(ValidationError, match="UTC"):
        Provenance(
            **{
                **record_of().provenance.model_dump(),
                "started": datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            }
        )


def test_write_does_not_replace_another_record_without_force(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    write_record(record_of(), path)
    before = path.read_bytes()
    write_record(record_of(), path)  # an equal record
    with pytest.raises(ArtefactError, match="already holds another record"):
        write_record(record_of(seed=1), path)
    assert path.read_bytes() == before
    write_record(record_of(seed=1), path, force=True)
    assert read_record(path).identity.seed == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "run.json"
    write_record(record_of(), path)
    before = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(ArtefactError, match="cannot be written \\(No space left on device\\)"):
            write_record(record_of(seed=1), path, force=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.md"
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append(("fsync", path.exists()))
        real_sync(descriptor)

    def replace(source: Any, target: Any) -> None:
        calls.append(("replace", path.exists()))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(path, "a\nb ±\n")
    assert path.read_bytes() == "a\nb ±\n".encode()
    assert calls == [("fsync", False), ("replace", False), ("fsync", True)]


def test_run_table_has_references_then_tasks() -> None:
    rows = run_table(record_of(probes={"outer": None, "inner": "sea"}))
    assert [row.name for row in rows] == ["random-encoder", "pixel-statistics", "sea", "land"]
    assert [row.scores["inner"].micro for row in rows] == [0.2, 0.1, 0.4, 0.5]
    assert [row.train_seconds for row in rows] == [None, None, 18.0, 18.0]
    assert rows[0].images_per_second is None
    assert rows[3].images_per_second == pytest.approx(16 / 18)
