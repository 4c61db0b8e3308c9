"""Tests which edits of run records are found: alone, beside other records, with image scores.

Every edit keeps the record whole: ids and derived fields are computed again, as somebody would who
wants the record to be accepted.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from helpers.records import FOLDER, images_of, save, write_run

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.results.continual import continual_of
from rscl_bench.results.files import find_records
from rscl_bench.results.image_scores import image_scores_path, read_image_scores, write_image_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import ProbeRecord, ProbeScore, TaskRecord
from rscl_bench.results.validation import verdicts
from rscl_bench.spec import identity

PUBLISHED = ROOT / "leaderboards" / "records" / "scene4"
METHODS = ("finetune", "cosmae")
Raw = dict[str, Any]
#: Records of two methods with three seeds, by method and seed.
Study = dict[tuple[str, int], Raw]


@pytest.fixture(scope="module")
def study() -> Study:
    records = [json.loads(path.read_text()) for path in sorted(PUBLISHED.rglob("*.json"))]
    return {
        (raw["identity"]["method"]["name"], raw["identity"]["seed"]): raw
        for raw in records
        if raw["identity"]["method"]["name"] in METHODS
    }


def derive(raw: Raw) -> None:
    """Compute the id and the continual metrics again, and make times fit steps and speed."""
    raw["id"] = identity(raw["identity"])
    raw["continual"] = continual_of(
        [TaskRecord.model_validate(task) for task in raw["tasks"]],
        [ProbeRecord.model_validate(probe) for probe in raw["probes"]],
        [{n: ProbeScore.model_validate(s) for n, s in row.items()} for row in raw["scores"]],
    ).model_dump()


def put(raw: Raw, path: str, value: Any) -> None:
    """Set a field by its dotted path; a function gets the old value."""
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    current: Any = raw
    for key in keys:
        current = current[key]
    current[last] = value(current[last]) if callable(value) else value


def one(path: str, value: Any, *, seed: int = 0) -> Callable[[Study], None]:
    """Return an edit of one record."""
    return lambda study: put(study["cosmae", seed], path, value)


def every(path: str, value: Any, methods: Sequence[str] = ("cosmae",)) -> Callable[[Study], None]:
    """Return an edit of all seeds of methods."""

    def edit(study: Study) -> None:
        for (method, _), raw in study.items():
            if method in methods:
                put(raw, path, value)

    return edit


def both(*edits: Callable[[Study], None]) -> Callable[[Study], None]:
    def edit(study: Study) -> None:
        for part in edits:
            part(study)

    return edit


def fitted(edit: Callable[[Study], None]) -> Callable[[Study], None]:
    """Return an edit after which ids and continual metrics are made to fit."""

    def edit_and_fit(study: Study) -> None:
        edit(study)
        for raw in study.values():
            derive(raw)

    return edit_and_fit


def slower(factor: float, methods: Sequence[str] = ("cosmae",)) -> Callable[[Study], None]:
    """Return an edit of all times of all seeds, with fitting speeds and sums."""

    def edit(study: Study) -> None:
        for (method, _), raw in study.items():
            if method not in methods:
                continue
            for task in raw["tasks"]:
                task["train_seconds"] *= factor
                task["images_per_second"] /= factor
            raw["seconds"]["training"] *= factor
            raw["seconds"]["total"] = 60.0 + sum(
                raw["seconds"][part] for part in ("packing", "training", "probing")
            )

    return edit


def more_steps(study: Study) -> None:
    for seed in range(3):
        for task in study["cosmae", seed]["tasks"]:
            task["steps"] *= 10
            task["images_per_second"] *= 10


def relabelled_seed(study: Study) -> None:
    study["cosmae", 0]["identity"]["seed"] = 3


def fourth_seed(study: Study) -> None:
    study["cosmae", 3] = json.loads(json.dumps(study["cosmae", 0]))
    study["cosmae", 3]["identity"]["seed"] = 3


def another_name(study: Study) -> None:
    for seed in range(3):
        copy = json.loads(json.dumps(study["cosmae", seed]))
        copy["identity"]["method"].update(name="ours", title="Our method")
        copy["identity"]["method"]["strategies"][0]["alpha"] = 0.7
        study["ours", seed] = copy


def swapped_scores(study: Study) -> None:
    for seed in range(3):
        first, second = study["cosmae", seed], study["finetune", seed]
        first["scores"][1:], second["scores"][1:] = second["scores"][1:], first["scores"][1:]


def scores_of_seed_0(study: Study) -> None:
    for seed in (1, 2):
        study["cosmae", seed]["scores"][1:] = study["cosmae", 0]["scores"][1:]


def swapped_contents(study: Study) -> None:
    study["cosmae", 0], study["cosmae", 1] = study["cosmae", 1], study["cosmae", 0]


def added_field(study: Study) -> None:
    study["cosmae", 0]["note"] = "the best"


def removed_field(study: Study) -> None:
    del study["cosmae", 0]["parameters"]


def removed_seed(study: Study) -> None:
    del study["cosmae", 2]


def all_macro_labels(study: Study) -> None:
    raw = study["cosmae", 0]
    for row in (*raw["scores"], raw["pixel_statistics"]):
        row["ucmerced"]["test"]["macro_labels"] = 1


LAST = "scores.4.ucmerced"
BETA = "identity.method.strategies.1.beta"


def put_digest(study: Study, methods: Sequence[str]) -> None:
    for (method, _), raw in study.items():
        if method in methods:
            raw["identity"]["data"]["probes.ucmerced.test"] = "0" * 64


#: Edits and the field that the refusal names.
REFUSED: dict[str, tuple[Callable[[Study], None], str]] = {
    "01 score": (one(f"{LAST}.test.micro", 0.99), "continual.micro.outside.ucmerced"),
    "06 score above 1": (one(f"{LAST}.test.micro", 1.5), f"{LAST}.test.micro"),
    "07 score of NaN": (one(f"{LAST}.test.micro", float("nan")), f"{LAST}.test.micro"),
    "08 loss of NaN": (one("tasks.0.final_loss", float("nan")), "tasks.0.final_loss"),
    "09 loss of 1e308": (one("tasks.0.final_loss", 1e308), "tasks.0.final_loss"),
    "10 seed without id": (one("identity.seed", 5), "id"),
    "11 seed relabelled": (fitted(relabelled_seed), "image_scores_digest|identity.seed"),
    "12 run as a fourth seed": (fitted(fourth_seed), "image_scores_digest"),
    "14 runs under another name": (fitted(another_name), "image_scores_digest"),
    "15 parameter in one seed": (fitted(one(BETA, 0.3)), "identity.method"),
    "17 beta below 0 in all seeds": (fitted(every(BETA, -5)), BETA),
    "19 time": (one("tasks.0.train_seconds", 1.0), "tasks.0.images_per_second"),
    "20 times of 1e-300 s": (slower(1e-300), "tasks.0.train_seconds"),
    "21 total below training": (one("seconds.total", 1.0), "seconds.total"),
    "22 training is not the sum": (one("seconds.training", 300.0), "seconds.training"),
    "23 year 2099": (one("provenance.started", "2099-01-01T00:00:00Z"), "provenance.started"),
    "23b year 2019": (one("provenance.started", "2019-01-01T00:00:00Z"), "provenance.started"),
    "24 date not UTC": (
        one("provenance.started", "2026-11-21T22:31:40+02:00"),
        "provenance.started",
    ),
    "25 missing field": (removed_field, "parameters"),
    "26 pixel statistics": (
        one("pixel_statistics.ucmerced.test.micro", 0.1),
        "pixel_statistics.ucmerced.test.micro",
    ),
    "27 untrained encoder": (
        fitted(one("scores.0.ucmerced.test.micro", 0.1)),
        "scores.0.ucmerced.test.micro",
    ),
    "31 protocol of one": (one("identity.protocol.image_size", 96), "id"),
    "32 epochs": (one("tasks.0.epochs", 1), "tasks.0.epochs"),
    "33 steps times 10": (more_steps, "tasks.0.steps"),
    "34 test tiles": (one("probes.0.test_tiles", 80), "probes"),
    "35 one trainable parameter": (every("parameters.trainable", 1), "parameters.trainable"),
    "36 parameters of the encoder": (one("parameters.encoder", 10**30), "parameters.encoder"),
    "36b encoder of twice the size": (
        every("parameters.encoder", lambda size: size * 2),
        "parameters.encoder|parameters.trainable",
    ),
    "37 digest of a split": (
        fitted(lambda study: put_digest(study, ["cosmae"])),
        "identity.data.probes.ucmerced.test",
    ),
    "39 extra field": (added_field, "note"),
    "40b threads": (one("provenance.threads", 8), "provenance.threads"),
    "42 code of the identity": (fitted(every("identity.code", "0.3.0")), "provenance.rscl_bench"),
    "47b operations of one seed": (
        one("flops", {"with_gradient": 1, "without_gradient": 0}),
        "flops",
    ),
    "48 spread of 1e9": (
        one("spread", [{"ucmerced": {"std": 1e9, "effective_rank": 3.0}}] * 5),
        "spread.0.ucmerced.std",
    ),
    "48b rank above the tiles": (
        one("spread", [{"ucmerced": {"std": 0.5, "effective_rank": 1e4}}] * 5),
        "spread.0.ucmerced.effective_rank",
    ),
    "49 scores of seed 0 in all seeds": (fitted(scores_of_seed_0), "scores"),
    "50 macro labels of one row": (
        one(f"{LAST}.test.macro_labels", 1),
        f"{LAST}",
    ),
    "50b macro labels of one record": (all_macro_labels, "scores.ucmerced.test.macro_labels"),
    "51 parameter of the protocol": (
        fitted(every("identity.protocol.training.learning_rate", -1.0, METHODS)),
        "identity.protocol.training.learning_rate",
    ),
    "52 name with a link": (
        fitted(one("identity.method.name", "x](http://evil) | 1 | y")),
        "identity.method",
    ),
}

#: Edits that nothing in the records contradicts. docs/results.md lists them.
NOT_DETECTABLE: dict[str, Callable[[Study], None]] = {
    "02 score of one run": fitted(one(f"{LAST}.test.micro", 0.9)),
    "03 scores of all tasks": fitted(
        both(*(one(f"scores.{t}.ucmerced.test.micro", 0.9 - t / 100) for t in range(1, 5)))
    ),
    "04 validation score": one(f"{LAST}.val.micro", 0.99),
    "05 scores of all seeds": fitted(
        both(*(one(f"{LAST}.test.micro", 0.9 + seed / 100, seed=seed) for seed in range(3)))
    ),
    "16 beta in all seeds": fitted(every(BETA, 0.3)),
    "18 times of all seeds": slower(0.1),
    "28 names of two files": swapped_contents,
    "29, 30 scores of two methods": fitted(swapped_scores),
    "38 digest of the test split in all records": fitted(lambda study: put_digest(study, METHODS)),
    "40 device": every("provenance.device", "Other CPU (1 thread)", METHODS),
    "41 precision": fitted(every("identity.precision", "fp32", METHODS)),
    "42 code version": fitted(
        both(
            every("identity.code", "0.3.0", METHODS),
            every("provenance.rscl_bench", "0.3.0", METHODS),
        )
    ),
    "43 seed removed": removed_seed,
    "44 digest of image scores": one("image_scores_digest", "0" * 64),
    "46 edition": fitted(every("identity.edition", "sketch", METHODS)),
    "47 operations of all seeds": every(
        "flops", {"with_gradient": 172_800_000_000, "without_gradient": 0}
    ),
}


def write(study: Study, folder: Path) -> list[Path]:
    folder.mkdir()
    paths = []
    for (method, seed), raw in study.items():
        path = folder / f"{method}-{seed}.json"
        path.write_text(json.dumps(raw))
        paths.append(path)
    return paths


def refusal(paths: Sequence[Path], out: Path) -> str | None:
    """Return the first sentence with which records are refused; None if all are accepted."""
    for verdict in verdicts(paths).values():
        if verdict.state == "refused":
            return verdict.reason
    try:
        build_leaderboard(paths, out)
    except ArtefactError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", REFUSED)
def test_edit_is_refused_with_the_name_of_the_field(
    name: str, study: Study, tmp_path: Path
) -> None:
    edit, fields = REFUSED[name]
    edited: Study = {key: json.loads(json.dumps(raw)) for key, raw in study.items()}
    edit(edited)
    reason = refusal(write(edited, tmp_path / "records"), tmp_path / "out")
    assert reason is not None
    assert any(f"'{field}" in reason for field in fields.split("|")), reason


@pytest.mark.parametrize("name", NOT_DETECTABLE)
def test_edit_is_not_detectable_without_image_scores(
    name: str, study: Study, tmp_path: Path
) -> None:
    """The list is explicit, so that nobody takes an accepted record for a proven one."""
    edited: Study = {key: json.loads(json.dumps(raw)) for key, raw in study.items()}
    NOT_DETECTABLE[name](edited)
    assert refusal(write(edited, tmp_path / "records"), tmp_path / "out") is None


def test_exact_copy_is_no_contradiction(study: Study, tmp_path: Path) -> None:
    paths = write(study, tmp_path / "records")
    copy = tmp_path / "records" / "copy.json"
    shutil.copy(paths[0], copy)
    assert refusal([*paths, copy], tmp_path / "out") is None


def test_published_records_are_accepted_with_their_ids() -> None:
    judged = verdicts(find_records([PUBLISHED]).records)
    assert len(judged) == 63
    assert {verdict.state for verdict in judged.values()} == {"not recomputable"}
    for path in judged:
        assert path.stem.endswith(read_record(path).id)


def test_forged_stored_intervals_are_refused(study: Study, tmp_path: Path) -> None:
    paths = write(study, tmp_path / "records")
    published = ROOT / "leaderboards" / "scene4-v2" / "cpu" / "image-intervals.jsonl"
    (tmp_path / "scene4-v2" / "cpu").mkdir(parents=True)
    stored = tmp_path / "scene4-v2" / "cpu" / published.name
    shutil.copy(published, stored)
    assert refusal(paths, tmp_path / "sound") is None
    head, *lines = published.read_text().splitlines()
    forged = [
        json.dumps({**line, "micro": [0.2, 0.21]}) if line["minus"] else json.dumps(line)
        for line in map(json.loads, lines)
    ]
    stored.write_text("\n".join([head, *forged]) + "\n")
    reason = refusal(paths, tmp_path / "forged")
    assert reason is not None
    assert "stored interval over test images of micro-mAP of probe 'ucmerced'" in reason


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Records with image scores: two methods with two seeds."""
    folder = tmp_path / "runs"
    for method, quality in (("better", 3.0), ("worse", 1.0)):
        save(folder, method, quality, seeds=2)
    return folder


def edit_run(path: Path, change: Callable[[Raw], None]) -> None:
    """Change a record that has image scores, and make its id and derived fields fit."""
    raw = json.loads(path.read_text())
    change(raw)
    derive(raw)
    path.write_text(json.dumps(raw))


def copied(source: Path, target: Path) -> Path:
    shutil.copy(source, target)
    shutil.copy(image_scores_path(source), image_scores_path(target))
    return target


def seed_relabelled(runs: Path) -> None:
    edit_run(runs / "better-0.json", lambda raw: raw["identity"].update(seed=7))


def one_run_as_two_seeds(runs: Path) -> None:
    path = copied(runs / "better-0.json", runs / "better-9.json")
    edit_run(path, lambda raw: raw["identity"].update(seed=9))


def runs_under_another_name(runs: Path) -> None:
    for seed in range(2):
        path = copied(runs / f"better-{seed}.json", runs / f"ours-{seed}.json")
        edit_run(path, lambda raw: raw["identity"]["method"].update(name="ours"))


def swapped_identities(runs: Path) -> None:
    first, second = runs / "better-0.json", runs / "worse-1.json"
    identities = [json.loads(path.read_text())["identity"] for path in (first, second)]
    for path, other in zip((second, first), identities, strict=True):

        def take(raw: Raw, other: Raw = other) -> None:
            raw["identity"] = other

        edit_run(path, take)


def swapped_files(runs: Path) -> None:
    first, second = (image_scores_path(runs / f"{n}-0.json") for n in ("better", "worse"))
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def one_image_fewer(runs: Path) -> None:
    path = runs / "better-0.json"
    images = read_image_scores(path, read_record(path))
    assert images is not None

    def shorter(roles: Any) -> Any:
        return {probe: {r: array[1:] for r, array in row.items()} for probe, row in roles.items()}

    cut = replace(
        images,
        labels=shorter(images.labels),
        scores=[shorter(row) for row in images.scores],
        pixel_statistics=shorter(images.pixel_statistics),
    )
    write_image_scores(cut, path)
    edit_run(path, lambda raw: raw.update(image_scores_digest=cut.digest()))


def validation_score(runs: Path) -> None:
    edit_run(
        runs / "better-0.json",
        lambda raw: put(raw, "scores.1.outer.test.micro", lambda score: score + 0.001),
    )


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (seed_relabelled, "its header names the run '[0-9a-f]{16}', and the field 'id'"),
        (one_run_as_two_seeds, "'image_scores_digest'|its header names the run"),
        (runs_under_another_name, "'image_scores_digest'|its header names the run"),
        (swapped_identities, "its header names the run"),
        (swapped_files, "'image_scores_digest'"),
        (one_image_fewer, r"tensor 'labels\.outer\.test' is uint8 of shape \[149, 3\]"),
        (validation_score, r"'scores\.1\.outer\.test\.micro' of .* does not follow"),
    ],
)
def test_edit_of_a_run_with_image_scores_is_refused(
    edit: Callable[[Path], None], named: str, runs: Path, tmp_path: Path
) -> None:
    edit(runs)
    reason = refusal(sorted(runs.glob("*.json")), tmp_path / "out")
    assert reason is not None
    assert re.search(named, reason), reason


def test_scores_digest_and_record_forged_together_are_not_detectable(
    runs: Path, tmp_path: Path
) -> None:
    """Whoever invents the scores of all images, too, makes a sound record."""
    (runs / "better-0.json").unlink()
    write_run(runs / "better-0.json", images_of(9.0, 0), method="better", seed=0)
    assert refusal(sorted(runs.glob("*.json")), tmp_path / "out") is None
    assert (tmp_path / "out" / FOLDER / "leaderboard.csv").is_file()
