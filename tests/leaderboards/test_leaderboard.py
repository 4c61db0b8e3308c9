"""Tests leaderboards: their rows, columns, files and refusals."""

import csv
import os
import random
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from helpers.records import record_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.leaderboards.formats import SKETCH_WARNING
from rscl_bench.results.record import write_record
from rscl_bench.results.schema import FlopsRecord, Identity, RunRecord

FOLDER = "toy-v1-sketch/quick"
FILES = {
    "index.html",
    "leaderboard.csv",
    "leaderboard.md",
    "comparisons.csv",
    "costs.csv",
    "scores.csv",
    "image-intervals.jsonl",
}


def saved(folder: Path, records: Iterable[RunRecord]) -> Path:
    for number, record in enumerate(records):
        write_record(record, folder / f"{number}" / "run.json")
    return folder


def built(tmp_path: Path, records: Iterable[RunRecord]) -> Path:
    out = tmp_path / "out"
    build_leaderboard(saved(tmp_path / "records", records), out)
    return out


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def folders(out: Path) -> set[str]:
    return {str(path.parent.relative_to(out)) for path in out.rglob("leaderboard.csv")}


def three_seeds(**changes: Any) -> list[RunRecord]:
    return [
        record_of(seed=seed, finals=(0.40 + seed / 100, 0.5), random=0.2 + seed / 50, **changes)
        for seed in range(3)
    ]


def test_row_has_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    out = built(tmp_path, three_seeds())
    rows = rows_of(out / FOLDER)
    assert [row["method"] for row in rows] == ["random-encoder", "pixel-statistics", "finetune"]
    reference, pixels, row = rows
    values = [40.0, 41.0, 42.0]
    assert row["T1.outer.micro.mean"] == f"{mean(values):.2f}"
    assert row["T1.outer.micro.std"] == f"{stdev(values):.2f}"
    assert row["T1.outer.micro.ci95"] == "2.48"  # t(0.975, 2) · 1 / √3 = 4.3027 / 1.7321
    assert (row["T2.outer.micro.mean"], row["T2.outer.micro.std"]) == ("50.00", "0.00")
    assert row["T2.outer.macro.mean"] == "25.00"
    assert row["outer.gain_over_random.micro.mean"] == "28.00"
    assert row["outer.mean_over_tasks.micro.mean"] == "45.50"
    assert (row["seeds"], row["precision"], row["device"]) == ("3", "fp32", "Some CPU")
    assert (row["training_hours"], row["images_per_second"]) == ("0.01", "0.8889")
    assert row["trainable_parameters"] == "1500"
    assert reference["T1.outer.micro.mean"] == reference["T2.outer.micro.mean"] == "22.00"
    assert reference["T1.outer.micro.std"] == f"{stdev([20, 22, 24]):.2f}"
    assert (reference["seeds"], reference["device"], reference["training_hours"]) == ("3", "", "")
    assert (pixels["T2.outer.micro.mean"], pixels["T2.outer.micro.std"]) == ("10.00", "")
    assert pixels["seeds"] == ""
    assert not any(name.startswith("continual.") for name in row)


def test_markdown_explains_the_numbers(tmp_path: Path) -> None:
    probes = {"outer": None, "inner": "sea"}
    records = [*three_seeds(probes=probes), record_of(method="cosmae", random=0.2, probes=probes)]
    text = (built(tmp_path, records) / FOLDER / "leaderboard.md").read_text()
    assert "- Scenario: toy, version 1: T1 sea → T2 land" in text
    assert "**sketch**: synthetic" in text
    assert "- Protocol: quick (digest " in text
    assert "asks for 3 per row; fewer have cosmae (1)" in text
    assert "- Precision: fp32\n" in text
    assert "- Machines: Some CPU (processor not recorded): 4 runs\n" in text
    # The scores 40, 41, 42 have deviation 1; half the width is t(0.975, 2) / √3 = 4.3027 / 1.7321.
    assert (
        "| – | finetune | 3 | 41.00 ± 2.48 | 50.00 ± 0.00 | – | 45.50 ± 1.24 | 28.00 ± 4.97 |"
        in text
    )
    assert "| – | cosmae | 1 | 40.00 | 50.00 | – | 45.00 | 30.00 |" in text
    assert "| – | pixel-statistics | – | 10.00 | 10.00 | – | – | – |" in text
    assert "**Not known** over test images" in text
    assert text.count("## Probe ") == 2
    assert "8 test tiles, 4 labels, domain of task sea" in text
    assert "macro-mAP (over 3 labels with positives)" in text
    assert "| cosmae | 1 | 50.00 | 45.00 | 10.00 | -10.00 | – |" in text
    assert text.splitlines()[-1] == SKETCH_WARNING
    assert (
        "fewer have"
        not in (built(tmp_path / "full", three_seeds()) / FOLDER / "leaderboard.md").read_text()
    )


def test_rows_are_references_then_methods_by_falling_score(tmp_path: Path) -> None:
    records = [
        record_of(method="middle", finals=(0.9, 0.5)),
        record_of(method="best", finals=(0.1, 0.6)),
        record_of(method="also-middle", finals=(0.1, 0.5)),
        record_of(method="undefined", finals=(0.9, None)),
    ]
    rows = rows_of(built(tmp_path, records) / FOLDER)
    assert [row["method"] for row in rows][2:] == ["best", "also-middle", "middle", "undefined"]


def test_undefined_value_is_empty_and_not_zero(tmp_path: Path) -> None:
    records = [
        record_of(method="single", finals=(0.4, None)),
        record_of(method="partly", finals=(0.4, 0.5), seed=0),
        record_of(method="partly", finals=(0.4, None), seed=1),
    ]
    out = built(tmp_path, records)
    for row in rows_of(out / FOLDER)[2:]:
        for column in ("T2.outer.micro", "T2.outer.macro", "outer.final.micro"):
            assert row[f"{column}.mean"] == row[f"{column}.std"] == ""
    assert "| 40.00 | – | – | – | – |" in (out / FOLDER / "leaderboard.md").read_text()


def test_score_of_zero_is_written_as_zero(tmp_path: Path) -> None:
    row = rows_of(built(tmp_path, [record_of(finals=(0.0,), random=0.0)]) / FOLDER)[-1]
    assert row["T1.outer.micro.mean"] == "0.00"
    assert row["outer.gain_over_random.micro.mean"] == "0.00"


@settings(max_examples=15, deadline=None)
@given(
    order=st.randoms(use_true_random=False),
    scores=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_bytes_do_not_depend_on_the_order_of_records(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, scores: list[float]
) -> None:
    records = [
        record_of(method=method, seed=seed, finals=(0.3, scores[2 * index + seed]))
        for index, method in enumerate(("a", "b"))
        for seed in (0, 1)
    ]
    tmp_path = tmp_path_factory.mktemp("order")
    out = built(tmp_path / "one", records)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
    assert {path.name for path in before} == FILES
    order.shuffle(records)
    files = [tmp_path / f"{number}.json" for number in range(len(records))]
    for path, record in zip(files, records, strict=True):
        write_record(record, path)
    written = build_leaderboard(files, tmp_path / "two")
    assert {p.relative_to(tmp_path / "two"): p.read_bytes() for p in written} == before
    assert b"\r" not in b"".join(before.values())
    written[0].write_text("stale")
    assert build_leaderboard(files, tmp_path / "two") == written
    assert written[0].read_bytes() == before[written[0].relative_to(tmp_path / "two")]


def test_editions_versions_scenarios_and_protocols_have_separate_leaderboards(
    tmp_path: Path,
) -> None:
    records = [
        record_of(),
        record_of(edition="real"),
        record_of(version="2"),
        record_of(scenario="other"),
        record_of(protocol_name="long", protocol={"image_size": 64}),
        record_of(overrides={"image_size": 64}, protocol={"image_size": 64}),
    ]
    out = built(tmp_path, records)
    names = folders(out)
    overridden = {name for name in names if name.startswith(f"{FOLDER}-")}
    assert len(overridden) == 1
    assert names - overridden == {
        FOLDER,
        "toy-v1/quick",
        "toy-v2-sketch/quick",
        "other-v1-sketch/quick",
        "toy-v1-sketch/long",
    }
    assert all(len(rows_of(out / name)) == 3 for name in names)
    text = (out / overridden.pop() / "leaderboard.md").read_text()
    assert "with `image_size=64`" in text
    real = (out / "toy-v1/quick/leaderboard.md").read_text()
    assert "- Edition: real archives" in real
    assert "no result" not in real


def test_protocols_that_differ_in_method_defaults_share_a_leaderboard(tmp_path: Path) -> None:
    """Defaults of objectives and strategies belong to the method; defaults of probes do not."""
    defaults: list[dict[str, Any]] = [{"mae": {"norm_pix": True}}, {"ewc": {"weight": 2.0}}, {}]
    records = [
        record_of(method=f"m{number}", protocol={"defaults": values})
        for number, values in enumerate(defaults)
    ]
    out = built(tmp_path, records)
    assert folders(out) == {FOLDER}
    assert {row["method"] for row in rows_of(out / FOLDER)} >= {"m0", "m1", "m2"}
    other = record_of(method="m3", protocol={"defaults": {"ml-knn": {"k": 3}}})
    with pytest.raises(ArtefactError, match="resolve protocol 'quick' of toy version 1 differ"):
        built(tmp_path / "probe", [*records, other])


def test_different_protocols_of_one_name_are_refused(tmp_path: Path) -> None:
    records = [record_of(), record_of(protocol={"image_size": 64})]
    with pytest.raises(ArtefactError, match="resolve protocol 'quick' of toy version 1 differ"):
        built(tmp_path, records)
    assert not (tmp_path / "out").exists()


def test_override_with_the_protocols_own_value_keeps_the_leaderboard(tmp_path: Path) -> None:
    records = [record_of(), record_of(seed=1, overrides={"image_size": 32})]
    out = built(tmp_path, records)
    assert folders(out) == {FOLDER}
    assert [row["seeds"] for row in rows_of(out / FOLDER)] == ["2", "", "2"]


def test_method_overrides_are_part_of_the_row_key(tmp_path: Path) -> None:
    overrides = {"strategies.model-mixup.beta": 0, "objective.feature": "cls"}
    records = [
        record_of(method="cosmae"),
        record_of(method="cosmae", overrides=overrides, parameters={"beta": 0}),
    ]
    rows = rows_of(built(tmp_path, records) / FOLDER)
    assert {row["method"] for row in rows if row["training_hours"]} == {
        "cosmae",
        "cosmae[objective.feature=cls,strategies.model-mixup.beta=0]",
    }


def test_seeds_of_several_devices_share_a_row_without_a_time(tmp_path: Path) -> None:
    records = [
        record_of(seconds=10.0),
        record_of(seconds=1000.0, device="Old CPU", seed=1),
        record_of(seconds=20.0, seed=2),
        record_of(method="other", seconds=100.0, device="GPU | 1", device_type="cuda"),
    ]
    out = built(tmp_path, records)
    rows = {row["method"]: row for row in rows_of(out / FOLDER)}
    assert rows["finetune"]["seeds"] == "3"
    assert rows["finetune"]["device"] == "2 devices"
    assert rows["finetune"]["training_hours"] == rows["finetune"]["images_per_second"] == ""
    assert rows["finetune"]["trainable_parameters"] == "1500"
    assert (rows["other"]["device"], rows["other"]["training_hours"]) == ("GPU | 1", "0.05556")
    assert rows["random-encoder"]["seeds"] == "3"
    costs = list(csv.DictReader((out / FOLDER / "costs.csv").read_text().splitlines()))
    assert [(c["method"], c["device"], c["seeds"], c["training_hours"]) for c in costs] == [
        ("finetune", "Old CPU", "1", "0.5556"),
        ("finetune", "Some CPU", "2", "0.008333"),  # 2 tasks of 10 s and of 20 s
        ("other", "GPU | 1", "1", "0.05556"),
    ]
    text = (out / FOLDER / "leaderboard.md").read_text()
    assert "| finetune | 2 devices | 3 |" in text
    assert "| finetune | Old CPU | 1 | 0.5556 |" in text
    assert r"GPU \| 1" in text


def test_costs_have_utilisation_and_memory_of_the_records(tmp_path: Path) -> None:
    record = record_of(provenance={"matrix_flops": 1e9})
    flops = FlopsRecord(with_gradient=10**8, without_gradient=0)
    rate = 16 / 18  # images/s
    tasks = [
        task.model_copy(
            update={
                "flop_utilisation": rate / 10,
                "peak_memory_bytes": 2**30 * (1 + number),
            }
        )
        for number, task in enumerate(record.tasks)
    ]
    whole = record.model_copy(update={"tasks": tuple(tasks), "flops": flops})
    out = built(tmp_path, [whole])
    (costs,) = csv.DictReader((out / FOLDER / "costs.csv").read_text().splitlines())
    assert (costs["flop_utilisation"], costs["peak_memory_gib"]) == ("0.08889", "2")
    assert costs["gflops_with_gradient"] == "0.1"


def test_precisions_have_separate_rows_of_one_table(tmp_path: Path) -> None:
    records = [record_of(), record_of(precision="bf16", seed=1)]
    out = built(tmp_path, records)
    rows = [(row["method"], row["precision"], row["seeds"]) for row in rows_of(out / FOLDER)]
    assert rows == [
        ("random-encoder", "bf16", "1"),
        ("random-encoder", "fp32", "1"),
        ("pixel-statistics", "", ""),
        ("finetune", "bf16", "1"),
        ("finetune", "fp32", "1"),
    ]
    text = (out / FOLDER / "leaderboard.md").read_text()
    assert "- Precision: bf16, fp32; rows of two precisions are compared, and such pairs" in text
    assert "| – | finetune | bf16 | 1 |" in text


def test_methods_with_rates_of_their_own_stand_in_one_table(tmp_path: Path) -> None:
    """The resolved recipe holds a method's own training settings, also those of ``--set``."""
    own = {"learning_rate": 3e-4, "warmup_epochs": 1.0, "weight_decay": 0.05, "betas": [0.9, 0.95]}
    records = [
        record_of(protocol={"training": {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3}}),
        record_of(
            protocol={"training": {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3}},
            parameters={"training": own},
            overrides={"training.learning_rate": 3e-4},
        ),
    ]
    out = built(tmp_path, records)
    assert folders(out) == {FOLDER}
    methods = [row["method"] for row in rows_of(out / FOLDER) if row["training_hours"]]
    name = "finetune[training.learning_rate=0.0003]"
    assert methods == ["finetune", name]
    text = (out / FOLDER / "leaderboard.md").read_text()
    escaped = name.replace("[", r"\[").replace("]", r"\]").replace("_", r"\_")
    assert f"- Learning rate: 0.001, other than 0.0003: {escaped}\n" in text


def test_assignment_of_the_precision_keeps_the_leaderboard(tmp_path: Path) -> None:
    """The digest is that of the precision ``auto``, as before for published records."""
    changes: list[dict[str, Any]] = [
        {"protocol": {"precision": "auto"}},
        {
            "protocol": {"precision": "bf16"},
            "overrides": {"precision": "bf16"},
            "precision": "bf16",
            "seed": 1,
        },
    ]
    out = built(tmp_path, [record_of(**change) for change in changes])
    assert folders(out) == {FOLDER}
    rows = [(row["method"], row["precision"]) for row in rows_of(out / FOLDER)[3:]]
    assert rows == [("finetune", "bf16"), ("finetune", "fp32")]
    shared = {"seeds": 3, "training": {"batch_size": 4, "epochs": 2}, "image_size": 32}
    digest = sha256(canonical_json({**shared, "defaults": {}, "precision": "auto"})).hexdigest()
    text = (out / FOLDER / "leaderboard.md").read_text()
    assert f"- Protocol: quick (digest {digest[:8]})\n" in text
    assert "- Corrections, outer: no pair can be judged\n" in text


def test_package_versions_have_separate_leaderboards(tmp_path: Path) -> None:
    """Seeds of two versions never share a mean; the newest version has the plain folder."""
    records = [
        record_of(code="0.2.0", finals=(0.4, 0.5)),
        record_of(code="0.2.0", finals=(0.4, 0.6), seed=1),
        record_of(code="0.10.0", finals=(0.4, 0.9), seed=2),
    ]
    out = built(tmp_path, records)
    assert folders(out) == {FOLDER, f"{FOLDER}-0.2.0"}
    newest, older = rows_of(out / FOLDER)[-1], rows_of(out / f"{FOLDER}-0.2.0")[-1]
    assert (newest["seeds"], newest["T2.outer.micro.mean"]) == ("1", "90.00")
    assert (older["seeds"], older["T2.outer.micro.mean"]) == ("2", "55.00")
    assert "- Code: rscl-bench 0.10.0\n" in (out / FOLDER / "leaderboard.md").read_text()
    alone = built(tmp_path / "alone", records[:2])
    assert folders(alone) == {FOLDER}


def test_copied_record_counts_once_and_contradicting_record_is_refused(tmp_path: Path) -> None:
    out = built(tmp_path, [record_of(), record_of()])
    assert rows_of(out / FOLDER)[-1]["seeds"] == "1"
    for name, other, devices in (
        ("rerun", record_of(seconds=20.0), "Some CPU"),
        ("elsewhere", record_of(device="GPU"), "Some CPU and on GPU"),
    ):
        with pytest.raises(ArtefactError, match="are both finetune with seed 0 in fp32") as e:
            built(tmp_path / name, [record_of(), other])
        assert f"trained on {devices};" in str(e.value)
        assert str(e.value).count("run.json") == 2


IDENTITY_CHANGES: dict[str, dict[str, Any]] = {
    "scenario": {"version": "2"},
    "edition": {"edition": "real"},
    "protocol_name": {"protocol_name": "long"},
    "protocol": {"protocol": {"image_size": 64}},
    "method": {"parameters": {"objective": {"name": "simmim"}}},
    "overrides": {"overrides": {"objective.mask_ratio": 0.5}},
    "precision": {"precision": "bf16"},
    "data": {"digests": {"tasks.sea": "changed-data"}},
    "code": {"code": "0.2.0"},
}


def test_no_field_of_the_identity_is_left_out() -> None:
    # Runs that began elsewhere have rows of other names; see test_initial_run.py.
    began = ("init", "parent")
    assert {*IDENTITY_CHANGES, *began, "seed", "plugins"} == set(Identity.model_fields)


@pytest.mark.parametrize("field", IDENTITY_CHANGES)
def test_runs_that_differ_in_identity_never_share_a_mean(tmp_path: Path, field: str) -> None:
    """Two seeds whose identities differ in one more field have two rows, or are refused."""
    records = [record_of(), record_of(seed=1, **IDENTITY_CHANGES[field])]
    assert getattr(records[0].identity, field) != getattr(records[1].identity, field)
    try:
        out = built(tmp_path, records)
    except ArtefactError:
        return
    rows = [row for path in out.rglob("leaderboard.csv") for row in rows_of(path.parent)]
    assert [row["seeds"] for row in rows if row["trainable_parameters"]] == ["1", "1"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scenario_digest": "fedcba9876543210"}, "identity.scenario.digest"),
        ({"digests": {"tasks.sea": "changed-data"}}, "identity.data.tasks.sea"),
        ({"digests": {"probes.outer.test": "extra-data"}}, "identity.data.probes.outer.test"),
        ({"parameters": {"objective": {"name": "simmim"}}}, "identity.method"),
        ({"finals": (0.4,)}, "identity.data.tasks.land"),
        ({"random": 0.25, "method": "other", "seed": 0}, "scores.0.outer.test.micro"),
        ({"random": None, "method": "other", "seed": 0}, "scores.0.outer.test.micro"),
        ({"pixels": 0.15}, "pixel_statistics.outer.test.micro"),
    ],
)
def test_contradicting_records_are_refused_with_the_name_of_the_field(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    out = built(tmp_path / "old", [record_of()])
    before = (out / FOLDER / "leaderboard.csv").read_bytes()
    records = saved(tmp_path / "new", [record_of(), record_of(**{"seed": 1, **changes})])
    with pytest.raises(ArtefactError, match=f"field '{field}") as caught:
        build_leaderboard(records, out)
    assert str(caught.value).count("run.json") == 2
    assert (out / FOLDER / "leaderboard.csv").read_bytes() == before


def test_random_encoders_may_differ_by_rounding(tmp_path: Path) -> None:
    records = [record_of(random=0.2), record_of(method="other", random=0.2004)]
    assert rows_of(built(tmp_path, records) / FOLDER)[0]["T1.outer.micro.mean"] == "20.02"


def test_run_that_trains_in_the_first_task_only_is_an_upper_reference(tmp_path: Path) -> None:
    records = [
        record_of(method="best", finals=(0.8, 0.9)),
        record_of(method="joint", finals=(0.7, 0.7), steps=(8, 0)),
    ]
    out = built(tmp_path, records)
    rows = rows_of(out / FOLDER)
    assert [(row["method"], row["reference"]) for row in rows] == [
        ("random-encoder", "lower"),
        ("pixel-statistics", "lower"),
        ("joint", "upper"),
        ("best", ""),
    ]
    joint = rows[2]  # 8 steps of 4 images in 18 s; no step in the second task
    assert (joint["training_hours"], joint["images_per_second"]) == ("0.005", "1.778")
    text = (out / FOLDER / "leaderboard.md").read_text()
    assert "`joint`: trained on all tasks at once, an upper reference by custom." in text
    alone = built(tmp_path / "one", [record_of(method="single", finals=(0.7,), steps=(8,))])
    assert rows_of(alone / FOLDER)[-1]["reference"] == "", "one task is no stream"


def test_scenario_with_domain_probes_has_columns_of_continual_metrics(tmp_path: Path) -> None:
    probes: dict[str, str | None] = {"inner": "sea", "late": "land"}
    row = rows_of(built(tmp_path, [record_of(probes=probes)]) / FOLDER)[-1]
    assert row["continual.backward_transfer.micro.mean"] == "10.00"
    assert row["continual.forgetting.micro.mean"] == "-10.00"
    assert row["continual.forward_transfer.micro.mean"] == "20.00"
    assert row["continual.average_incremental.macro.mean"] == "22.50"
    single = built(tmp_path / "single", [record_of(finals=(0.4,), probes={"inner": "sea"})])
    assert rows_of(single / FOLDER)[-1]["continual.backward_transfer.micro.mean"] == ""


def test_damaged_record_missing_source_and_empty_folder_are_refused(tmp_path: Path) -> None:
    records = saved(tmp_path / "records", [record_of()])
    (records / "broken.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"broken\.json is damaged"):
        build_leaderboard(records, tmp_path / "out")
    with pytest.raises(ArtefactError, match="There is no file or folder"):
        build_leaderboard([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match="There is no run record"):
        build_leaderboard(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failed_write_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = built(tmp_path, [record_of()])
    before = (out / FOLDER / "leaderboard.csv").read_bytes()
    more = saved(tmp_path / "more", [record_of(finals=(0.1, 0.2))])

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ArtefactError, match="cannot be written"):
        build_leaderboard(more, out)
    assert (out / FOLDER / "leaderboard.csv").read_bytes() == before
