"""Tests which parameters a table states as chosen from a grid."""

from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from helpers.records import FOLDER, record_of

from rscl_bench.declarations import load_scenario
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import make_board
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.leaderboards.keys import LoadedRecord, group_key
from rscl_bench.leaderboards.markdown import leaderboard_markdown
from rscl_bench.leaderboards.tunings import declared_choice, value_of
from rscl_bench.results.record import write_record
from rscl_bench.results.tuning import Tuning, write_tuning


def run_of(seed: int, score: float) -> dict[str, Any]:
    return {"seed": seed, "record": f"{seed:016x}", "scores": ({"outer": score},)}


def tuning(version: str = "1") -> Tuning:
    """A grid of two weights of ``ewc``; 2 is chosen."""
    return Tuning.model_validate(
        {
            "scenario": {"name": "toy", "version": version, "digest": "0123456789abcdef"},
            "edition": "sketch",
            "protocol_name": "quick",
            "protocol": "0" * 16,
            "method": "ewc",
            "overrides": {},
            "grid": {"strategies.ewc.weight": (1, 2)},
            "settings": (
                {
                    "values": {"strategies.ewc.weight": 1},
                    "runs": (run_of(0, 0.3),),
                    "score": 0.3,
                },
                {
                    "values": {"strategies.ewc.weight": 2},
                    "runs": (run_of(0, 0.4),),
                    "score": 0.4,
                },
            ),
            "choice": {"strategies.ewc.weight": 2},
        }
    )


def header_line(folder: Path, start: str) -> str:
    build_leaderboard(folder / "records", folder / "out")
    text = (folder / "out" / FOLDER / "leaderboard.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"- {start}: "))
    return line.removeprefix(f"- {start}: ")


def save_ewc(folder: Path, weight: float, seed: int = 0) -> None:
    strategies = {"strategies": [{"name": "er"}, {"name": "ewc", "weight": weight}]}
    record = record_of(method="ewc", parameters=strategies, seed=seed)
    write_record(record, folder / "records" / f"{weight}.json")


CHOSEN = "Chosen on validation splits"
REST = ". Other values are those of the recipe and of the protocol"


@pytest.mark.parametrize("place", [".", "records", "records/leaderboards"])
def test_a_grid_beside_the_records_is_stated(tmp_path: Path, place: str) -> None:
    save_ewc(tmp_path, 2)
    write_tuning(tuning(), tmp_path / place / "tuning" / tuning().path())
    assert header_line(tmp_path, CHOSEN) == (
        f"ewc: `strategies.ewc.weight` from 1, 2 with seed 0 (also reported){REST}"
    )


def test_another_seed_than_that_of_the_grid(tmp_path: Path) -> None:
    save_ewc(tmp_path, 2, seed=1)
    write_tuning(tuning(), tmp_path / "tuning" / tuning().path())
    assert header_line(tmp_path, CHOSEN).startswith(
        "ewc: `strategies.ewc.weight` from 1, 2 with seed 0."
    )


@pytest.mark.parametrize(("weight", "version"), [(1, "1"), (2, "2")])
def test_a_grid_of_another_value_or_version_is_not_stated(
    tmp_path: Path, weight: float, version: str
) -> None:
    save_ewc(tmp_path, weight)
    write_tuning(tuning(version), tmp_path / "tuning" / tuning().path())
    assert header_line(tmp_path, CHOSEN) == f"no grid is stored{REST}"


def test_a_damaged_grid_is_named(tmp_path: Path) -> None:
    save_ewc(tmp_path, 2)
    path = tmp_path / "tuning" / tuning().path()
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(ArtefactError, match=r"ewc\.json is no sound tuning"):
        build_leaderboard(tmp_path / "records", tmp_path / "out")


def test_values_are_found_by_their_keys() -> None:
    method = {
        "objective": {"name": "mae", "view": {"size": 0.5}},
        "strategies": [{"name": "ewc", "weight": 2}],
    }
    protocol = {"training": {"learning_rate": 1e-3}}
    assert value_of(method, protocol, "objective.view.size") == 0.5
    assert value_of(method, protocol, "strategies.ewc.weight") == 2
    assert value_of(method, protocol, "strategies.si.weight") is None
    assert value_of(method, protocol, "training.learning_rate") == 1e-3
    assert value_of(method, protocol, "objective.absent.size") is None
    own = {**method, "training": {"learning_rate": 3e-4, "weight_decay": None}}
    assert value_of(own, protocol, "training.learning_rate") == 3e-4
    assert value_of(own, protocol, "training.weight_decay") is None


def test_rates_of_methods_are_stated() -> None:
    """Most rows have the protocol's rate, and one method has a rate of its own."""
    records = [record_of(method=name) for name in ("a", "b", "c")]
    settings = {"learning_rate": 3e-4}
    method = {**records[2].identity.method, "training": settings}
    identity = records[2].identity.model_copy(update={"method": method})
    records[2] = records[2].model_copy(update={"identity": identity})
    for record in records:
        record.identity.protocol["training"] = {"learning_rate": 1e-3}
    loaded = [LoadedRecord(Path(f"{n}.json"), record) for n, record in enumerate(records)]
    text = leaderboard_markdown(make_board(group_key(records[0]), loaded, {}))
    assert "- Learning rate: 0.001, other than 0.0003: c\n" in text


IBOT = "seed 0, 5 epochs of the first task, grid {1e-3, 1e-4}, on validation"


@pytest.mark.parametrize(
    ("method", "training", "version", "stated"),
    [
        ("ibot", {"learning_rate": 1e-4}, "2", IBOT),
        ("own-recipe", {"learning_rate": 1e-4}, "2", IBOT),  # its objective is ibot
        ("ibot", {"learning_rate": 3e-4}, "2", None),
        ("ibot", {"learning_rate": 1e-4}, "1", None),
        ("ibot", None, "2", None),
    ],
)
def test_a_choice_that_the_protocol_declares(
    method: str, training: dict[str, float] | None, version: str, stated: str | None
) -> None:
    """The statement counts for runs that have the declared values, and for no other."""
    declared = load_scenario("scene4").protocols["cpu"].training_for["ibot"]
    assert (declared.learning_rate, declared.chosen) == (1e-4, IBOT)
    parameters: dict[str, Any] = {"objective": {"name": "ibot"}}
    record = record_of(scenario="scene4", version=version, protocol_name="cpu", edition="real")
    raw = {**record.identity.method, **parameters, "name": method}
    raw |= {} if training is None else {"training": training}
    own = record.identity.model_copy(update={"method": raw})
    changed = record.model_copy(update={"identity": own})
    assert declared_choice(changed) == stated
    changed.identity.protocol["training"] = {"learning_rate": 1e-3}
    board = make_board(group_key(changed), [LoadedRecord(Path("0.json"), changed)], {})
    sentence = f"{method}: training settings, {IBOT}."
    assert (sentence in leaderboard_markdown(board)) == (stated is not None)
    assert declared_choice(record_of()) is None, "its scenario is not known"


def test_published_table_states_grids_and_rate() -> None:
    text = (ROOT / "leaderboards/scene4-v2/cpu/leaderboard.md").read_text(encoding="utf-8")
    assert "- Learning rate: 0.001\n" in text
    for method in ("ewc", "der", "pfr"):
        assert f"{method}: `strategies.{method}." in text
