"""Run records made for tests."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from helpers.image_scores import labels_of, scored
from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.image_scores import (
    ImageScores,
    image_scores_path,
    probe_scores,
    write_image_scores,
)
from rscl_bench.results.record import make_record, package_versions, write_record
from rscl_bench.results.schema import (
    Identity,
    Parameters,
    ProbeRecord,
    ProbeScore,
    Provenance,
    RunRecord,
    ScenarioName,
    Seconds,
    TaskRecord,
    probe_key,
    task_key,
)

TASKS = ("sea", "land")


def score(micro: float | None, macro: float | None = None) -> ProbeScore:
    if micro is None:
        return ProbeScore(test=MultilabelMAP(micro=None, macro=None, macro_labels=0), val=None)
    macro = micro / 2 if macro is None else macro
    return ProbeScore(test=MultilabelMAP(micro=micro, macro=macro, macro_labels=3), val=None)


def record_of(
    *,
    method: str = "finetune",
    parameters: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    seed: int = 0,
    finals: tuple[float | None, ...] = (0.4, 0.5),
    random: float | None = 0.2,
    pixels: float | None = 0.1,
    probes: dict[str, str | None] | None = None,
    scenario: str = "toy",
    version: str = "1",
    scenario_digest: str = "0123456789abcdef",
    edition: str = "sketch",
    protocol_name: str = "quick",
    protocol: dict[str, Any] | None = None,
    precision: str = "fp32",
    device_type: str = "cpu",
    device: str = "Some CPU",
    seconds: float = 18.0,
    code: str = "0.1.0",
    digests: dict[str, str] | None = None,
    steps: tuple[int, ...] = (4, 4),
    images: ImageScores | None = None,
    provenance: dict[str, Any] | None = None,
) -> RunRecord:
    """Return a record of one run; every probe has the same scores, or those of ``images``."""
    probes = {"outer": None} if probes is None else probes
    tasks = TASKS[: len(finals)]
    keys = [task_key(task) for task in tasks]
    keys += [probe_key(probe, role) for probe in probes for role in ("train", "test")]
    if images is None:
        scores = [{name: score(value) for name in probes} for value in (random, *finals)]
        statistics = {name: score(pixels) for name in probes}
        shapes = dict.fromkeys(probes, (8, 4))
    else:
        scores = [probe_scores(images.labels, row) for row in images.scores]
        statistics = probe_scores(images.labels, images.pixel_statistics)
        shapes = {name: labels["test"].shape for name, labels in images.labels.items()}
    data = {**{key: f"{key}-digest" for key in keys}, **(digests or {})}
    base = {"seeds": 3, "training": {"batch_size": 4, "epochs": 2}, "image_size": 32}
    identity = Identity(
        scenario=ScenarioName(name=scenario, version=version, digest=scenario_digest),
        edition=edition,
        protocol_name=protocol_name,
        protocol={**base, **(protocol or {})},
        method={"name": method, "objective": {"name": "mae"}, **(parameters or {})},
        overrides=overrides or {},
        seed=seed,
        precision=precision,
        data=data,
        code=code,
    )
    run = identity.run_id()
    digest = (
        sha256(run.encode()).hexdigest() if images is None else replace(images, run=run).digest()
    )
    training = sum(seconds for taken in steps[: len(tasks)] if taken)
    return make_record(
        identity=identity,
        provenance=Provenance(
            **{
                "rscl_bench": code,
                "started": datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
                "device_type": device_type,
                "device": device,
                "threads": 2,
                "python": "3.11.9",
                "platform": "Linux-x86_64",
                "versions": package_versions(),
                **(provenance or {}),
            }
        ),
        tasks=[
            TaskRecord(
                name=task,
                tiles=10,
                epochs=2,
                steps=taken,
                train_seconds=seconds if taken else 0.0,
                images_per_second=taken * 4 / seconds if taken else None,
                final_loss=0.7 if taken else None,
                peak_memory_bytes=None,
            )
            for task, taken in zip(tasks, steps, strict=False)
        ],
        parameters=Parameters(encoder=1000, trainable=1500),
        probes=[
            ProbeRecord(
                name=name,
                probe="ml-knn",
                task=task,
                test_tiles=shapes[name][0],
                labels=shapes[name][1],
            )
            for name, task in probes.items()
        ],
        scores=scores,
        pixel_statistics=statistics,
        image_scores_digest=digest,
        seconds=Seconds(packing=None, training=training, probing=3.0, total=training + 10.0),
        pixel_digests={key: f"{key}-pixels" for key in data},
    )


FOLDER = Path("toy-v1-sketch/quick")


def images_of(quality: float, seed: int, spread: float = 0.05) -> ImageScores:
    """Return scores of a run; scores that no method influences are equal for equal seeds."""
    rng = np.random.default_rng([seed, round(quality * 1000)])
    own = quality + spread * rng.normal()
    rows = [scored(seed, 0.3), scored(seed + 10, own / 2), scored(seed + 20, own)]
    pixels = {"outer": {"test": scored(99, 0.5)}}
    return ImageScores(
        {"outer": {"test": labels_of()}}, [{"outer": {"test": row}} for row in rows], pixels
    )


def write_run(path: Path, images: ImageScores, **changes: Any) -> RunRecord:
    """Write a record with the scores of these images, and the image scores beside the record."""
    record = record_of(images=images, **changes)
    write_image_scores(replace(images, run=record.id), path)
    write_record(record, path)
    return record


def save(
    folder: Path,
    method: str,
    quality: float,
    seeds: int = 3,
    steps: tuple[int, ...] = (4, 4),
    spread: float = 0.05,
    first: int = 0,
    with_images: bool = True,
    **changes: Any,
) -> None:
    """Write the records of a method with image scores, or with their digests alone."""
    for seed in range(first, first + seeds):
        images = images_of(quality, seed, spread)
        path = folder / f"{method}-{seed}.json"
        write_run(path, images, method=method, seed=seed, steps=steps, **changes)
        if not with_images:
            image_scores_path(path).unlink()
