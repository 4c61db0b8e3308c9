"""Whole runs of the toy scenario, from an archive to a record."""

import hashlib
import json
import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any

import numpy as np
import pytest
import torch
from helpers.archives import sketches
from helpers.paths import TOY
from helpers.runs import Quiet, Run, Runner

import rscl_bench
from rscl_bench.declarations import load_scenario
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.device import open_device
from rscl_bench.engine.prepare import check_writable, open_run
from rscl_bench.engine.recording import task_line
from rscl_bench.engine.run import execute
from rscl_bench.errors import ArtefactError, RsclError, SpecError, TrainingError
from rscl_bench.models.encoder_file import read_encoder
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.objectives.mae import MAE
from rscl_bench.probes.base import FrozenProbe
from rscl_bench.probes.encoding import EvalContext, TileSubset, encode_tiles
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.probes.pixel_statistics import pixel_statistics
from rscl_bench.progress import silent
from rscl_bench.results.folders import run_folder
from rscl_bench.results.image_scores import read_image_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import probe_key, task_key
from rscl_bench.testing.tiny import differing


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


def scores(run: Run) -> list[dict[str, Any]]:
    return [{name: score.model_dump() for name, score in row.items()} for row in run.record.scores]


@pytest.mark.parametrize("method", ["finetune", "cosmae"])
def test_same_seed_same_bits(runs: Runner, tmp_path: Path, method: str) -> None:
    first = runs(method)
    torch.manual_seed(77)
    again = runs.fresh(runs.spec(method), tmp_path)
    assert not differing(first.encoder, again.encoder)
    assert scores(first) == scores(again)
    assert [t.final_loss for t in first.record.tasks] == [t.final_loss for t in again.record.tasks]
    assert first.record.id == again.record.id
    assert first.folder.name == again.folder.name
    for name in ("encoder.safetensors", "record.safetensors"):
        files = [run.folder / name for run in (first, again)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_other_seed_other_run(runs: Runner) -> None:
    first, other = runs("finetune"), runs("finetune", 1)
    assert differing(first.encoder, other.encoder)
    assert first.record.id != other.record.id
    assert first.folder != other.folder
    assert scores(first)[0] != scores(other)[0]


def test_assignment_makes_another_run(runs: Runner) -> None:
    changed = runs("cosmae", 0, "strategies.model-mixup.beta=0.5")
    assert changed.record.id != runs("cosmae").record.id
    assert changed.record.identity.overrides == {"strategies.model-mixup.beta": 0.5}
    assert differing(changed.encoder, runs("cosmae").encoder)


def test_record_is_what_was_run(runs: Runner) -> None:
    run = runs("cosmae")
    record, opened = run.record, run.opened
    assert read_record(run.folder / "record.json") == record
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "encoder.safetensors",
        "losses.csv",
        "record.json",
        "record.safetensors",
        "state.safetensors",
    ]
    umask = os.umask(0)
    os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in run.folder.iterdir()}
    assert modes == {0o666 & ~umask}
    images = read_image_scores(run.folder / "record.json", record)
    assert images is not None
    assert images.run == record.id
    assert record.identity == opened.identity
    assert record.id == opened.identity.run_id()
    assert record.identity.edition == "sketch"
    assert record.identity.seed == 0
    assert record.identity.precision == "fp32"
    assert record.identity.protocol["buffer_size"] == 12
    assert [task.name for task in record.tasks] == ["first", "second", "third"]
    assert len(record.scores) == 4
    flops = record.flops
    assert flops is not None
    assert flops.strategies_with_gradient is not None
    assert flops.strategies_without_gradient is not None
    assert flops.strategies_without_gradient > 0  # the teacher of model mixup
    objective = flops.with_gradient + flops.without_gradient
    strategies = flops.strategies_with_gradient + flops.strategies_without_gradient
    for index, task in enumerate(record.tasks):
        assert (task.tiles, task.epochs, task.steps) == (20, 2, 4)
        assert task.images_per_second == pytest.approx(4 * 8 / task.train_seconds)
        assert task.peak_memory_bytes is not None
        assert 1e8 < task.peak_memory_bytes < 1e11  # an interpreter with torch, in bytes
        assert task.waited_seconds is not None
        assert 0 < task.waited_seconds < task.train_seconds
        assert record.provenance.matrix_flops is not None
        assert task.images_per_second is not None
        assert task.flop_utilisation is not None
        operations = objective + (strategies if index else 0)
        done = operations * task.images_per_second / record.provenance.matrix_flops
        assert task.flop_utilisation == pytest.approx(done)
        assert 0 < task.flop_utilisation < 1
    (probe,) = record.probes
    assert (probe.name, probe.task, probe.test_tiles, probe.labels) == ("toy", "first", 20, 2)
    (opened_probe,) = opened.probes
    stores = {task_key(t.name): s for t, s in zip(record.tasks, opened.stores, strict=True)}
    stores |= {probe_key("toy", role): store for role, store in opened_probe.stores.items()}
    assert record.format == 3
    assert record.identity.data == {key: store.source_digest for key, store in stores.items()}
    assert record.pixel_digests == {key: store.digest for key, store in stores.items()}
    assert set(opened_probe.stores) == {"train", "val", "test"}
    seconds = record.seconds
    assert seconds.training == pytest.approx(sum(task.train_seconds for task in record.tasks))
    assert seconds.packing is not None
    assert seconds.total >= seconds.training + seconds.probing
    assert record.provenance.rscl_bench == rscl_bench.__version__
    assert record.provenance.device_type == "cpu"
    assert record.provenance.threads == torch.get_num_threads()


def test_parameters_are_counted(runs: Runner) -> None:
    objective = build_objective(runs.spec("cosmae"), torch.device("cpu"))
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    encoder = sum(p.numel() for p in objective.encoder.parameters())
    projector = 24 * 128 + 128 + 128 * 24 + 24
    plain, cosmae = runs("finetune").record.parameters, runs("cosmae").record.parameters
    assert (plain.encoder, plain.trainable) == (encoder, trained)
    assert (cosmae.encoder, cosmae.trainable) == (encoder, trained + projector)


def test_run_folder_names_the_run(runs: Runner) -> None:
    run = runs("cosmae")
    parts = run.folder.relative_to(runs.out).parts
    assert parts == ("toy-sketch", "tiny", "cosmae", f"seed0-{run.record.id}")


def test_reporter_gets_progress_and_lines(runs: Runner) -> None:
    reporter = runs("finetune").reporter
    assert reporter.parts[:4] == [("training task 1 first", step, 4) for step in (1, 2, 3, 4)]
    assert len(reporter.parts) == 12
    assert len(reporter.lines) == 3
    assert reporter.lines[1].startswith("task 2 second: trained in ")


@pytest.mark.parametrize(
    ("ranks", "found"),
    [
        ((5.0, 5.0), "a micro-mAP 90.00, b micro-mAP undefined (spread 0.50, effective rank 5.0)"),
        (
            (5.0, 6.0),
            "a micro-mAP 90.00 (spread 0.50, effective rank 5.0), "
            "b micro-mAP undefined (spread 0.50, effective rank 6.0)",
        ),
    ],
    ids=["equal tiles", "other tiles"],
)
def test_line_after_a_task(ranks: tuple[float, float], found: str) -> None:
    scores = {"a": Fake(test=Fake(micro=0.9)), "b": Fake(test=Fake(micro=None))}
    spreads = {n: Fake(std=0.5, effective_rank=r) for n, r in zip("ab", ranks, strict=True)}
    opened: Any = Fake(spec=Fake(scenario=Fake(tasks=[Fake(name="first")])), gone=())
    template: Any = Fake(final_loss=[0.25], task_clock=Fake(train_seconds=[1.0]))
    prober: Any = Fake(rows=[0, 1], scores=lambda: [scores], spreads=[spreads])
    line = task_line(opened, template, prober)
    assert line == f"task 1 first: trained in 1.0 s, loss 0.2500, {found}"


def micro(run: Run, features: Any, role: str) -> Any:
    (probe,) = run.opened.probes
    train, wanted = (features(probe.stores[name]) for name in ("train", role))
    assert isinstance(probe.probe, FrozenProbe)
    result = probe.probe.score(train, probe.labels["train"], wanted)
    return multilabel_map(probe.labels[role], result)


def features_of(run: Run, encoder: Any) -> Any:
    (probe,) = run.opened.probes

    def features(store: Any) -> Any:
        views, device = run.opened.spec.protocol.views, run.opened.device
        context = EvalContext(16, views, probe.scaling, device.torch, device.autocast)
        return encode_tiles(encoder, TileSubset(store, np.arange(len(store))), context)

    return features


def test_untrained_encoder_and_pixel_statistics_are_scored(runs: Runner) -> None:
    run = runs("cosmae")
    fresh = build_objective(run.opened.spec, torch.device("cpu")).encoder
    features = features_of(run, fresh)
    for role in ("test", "val"):
        assert getattr(run.record.scores[0]["toy"], role) == micro(run, features, role)
        pixels = micro(run, lambda store: pixel_statistics(store.tiles), role)
        assert getattr(run.record.pixel_statistics["toy"], role) == pixels


def test_image_scores_give_the_numbers_of_the_record(runs: Runner) -> None:
    run = runs("cosmae")
    images = read_image_scores(run.folder / "record.json", run.record)
    assert images is not None
    (probe,) = run.opened.probes
    for role in ("test", "val"):
        labels = images.labels["toy"][role]
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, probe.labels[role])
        kept = [*(row["toy"][role] for row in images.scores), images.pixel_statistics["toy"][role]]
        rows = [*run.record.scores, run.record.pixel_statistics]
        assert len(kept) == 5
        for scored, row in zip(kept, rows, strict=True):
            assert scored.shape == (20, 2)
            assert scored.dtype == np.float64
            assert multilabel_map(labels, scored) == getattr(row["toy"], role)


def test_image_scores_of_another_run_are_refused(runs: Runner, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    run, other = runs("cosmae"), runs("cosmae", 1)
    shutil.copy(run.folder / "record.json", record)
    assert read_image_scores(record, run.record) is None
    shutil.copy(other.folder / "record.safetensors", tmp_path)
    with pytest.raises(ArtefactError, match=r"record\.safetensors does not belong to .*SHA-256"):
        read_image_scores(record, run.record)


def test_saved_encoder_gives_the_last_scores(runs: Runner) -> None:
    run = runs("cosmae")
    encoder, _ = read_encoder(run.folder / "encoder.safetensors")
    assert run.record.scores[-1]["toy"].test == micro(run, features_of(run, encoder), "test")


def test_saved_encoder_says_how_to_use_it(runs: Runner) -> None:
    run = runs("cosmae")
    path = run.folder / "encoder.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == run.record.encoder_digest
    encoder, description = read_encoder(path)
    assert not encoder.training
    identity = run.record.identity
    assert description.run == run.record.id
    assert (description.scenario, description.scenario_version) == ("toy", "1")
    assert (description.edition, description.protocol) == ("sketch", "tiny")
    assert (description.method, description.seed) == ("cosmae", 0)
    assert description.rscl_bench == identity.code
    assert description.backbone.model_dump() == identity.protocol["backbone"]
    assert description.image_size == identity.protocol["image_size"]
    assert description.bands == ("red", "green", "blue")
    assert [given.task for given in description.inputs] == ["first", "second", "third"]
    for given, store in zip(description.inputs, run.opened.stores, strict=True):
        assert (given.unit, given.scale) == ("8-bit digital number", 255.0)
        assert given.bands == description.bands
        np.testing.assert_allclose(given.mean, store.mean, rtol=1e-6)
        np.testing.assert_allclose(given.std, store.std, rtol=1e-6)


def test_probe_does_not_change_training(runs: Runner, tmp_path: Path) -> None:
    """A second probe changes no weight."""
    (probe,) = load_scenario(str(TOY)).probes
    more = probe.model_copy(update={"name": "more", "task": None, "max_tiles": 10})
    run = runs.fresh(runs.spec("cosmae", 0, probes=(probe, more)), tmp_path)
    assert not differing(run.encoder, runs("cosmae").encoder)
    assert [row["toy"] for row in scores(run)] == [row["toy"] for row in scores(runs("cosmae"))]
    assert run.record.probes[1].test_tiles == 10
    assert run.record.id != runs("cosmae").record.id


# Refusals


def refused(runs: Runner, match: str, *assignments: str, **changes: Any) -> None:
    with pytest.raises(SpecError, match=match):
        runs.open(runs.spec("finetune", 0, *assignments, **changes))


def test_task_smaller_than_a_batch(runs: Runner) -> None:
    refused(
        runs,
        "Task 'first' has 20 tiles, fewer than one batch of 21; lower training.batch_size",
        "training.batch_size=21",
    )
    runs.open(runs.spec("finetune", 0, "training.batch_size=20"))


def test_tile_smaller_than_the_crop(runs: Runner) -> None:
    refused(
        runs, "Tiles of task 'first' are 24 pixels, smaller than the crop of 32", "image_size=32"
    )
    (probe,) = load_scenario(str(TOY)).probes
    small = probe.model_copy(update={"tile_size": 12})
    refused(runs, "Tiles of probe 'toy' are 12 pixels", probes=(small,))


def test_unknown_device(runs: Runner) -> None:
    with pytest.raises(SpecError, match="Unknown device 'gpu'; use auto, cpu"):
        open_device("gpu", "fp32")
    with pytest.raises(SpecError, match="There is no device 'cuda:99'"):
        open_device("cuda:99", "fp32")


def test_output_folder_that_is_a_file(runs: Runner, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    opened = runs.open(runs.spec())
    with pytest.raises(ArtefactError, match="is not writable"):
        execute(opened, occupied / "run", Quiet())


def test_runs_that_start_together_find_the_folder_writable(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: check_writable(tmp_path), range(400)))
    assert not list(tmp_path.iterdir())


def test_utilisation_that_does_not_follow_is_refused(runs: Runner, tmp_path: Path) -> None:
    raw = runs("cosmae").record.model_dump(mode="json")
    raw["tasks"][1]["flop_utilisation"] *= 2
    (tmp_path / "record.json").write_text(json.dumps(raw))
    with pytest.raises(ArtefactError, match=r"'tasks\.1\.flop_utilisation' is not"):
        read_record(tmp_path / "record.json")


def test_diverging_run_leaves_no_record(runs: Runner, tmp_path: Path) -> None:
    opened = runs.open(runs.spec("finetune", 0, "training.learning_rate=1e30"))
    folder = run_folder(tmp_path, opened.identity)
    with pytest.raises(TrainingError, match=r"NaN or infinite at step [12] of task 1"):
        execute(opened, folder, Quiet())
    assert list(folder.iterdir()) == []


def test_missing_archive(runs: Runner, tmp_path: Path) -> None:
    with pytest.raises(RsclError, match="Toy is missing or partial"):
        open_run(runs.spec(), sketches(tmp_path, runs.cache), "cpu", silent)


def test_blank_tiles_are_known(runs: Runner) -> None:
    assert not any(s.blank for s in runs("finetune").opened.named_stores().values())


def test_bf16_run_is_another_run(runs: Runner) -> None:
    run = runs("cosmae", 0, "precision=bf16")
    assert run.record.identity.precision == "bf16"
    assert run.record.id != runs("cosmae").record.id
    assert differing(run.encoder, runs("cosmae").encoder)
    for value in run.encoder.values():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
    loss, exact = (r.record.tasks[0].final_loss for r in (run, runs("cosmae")))
    assert loss == pytest.approx(exact, rel=0.02)


# A fault that stops a run leaves a sound checkpoint.


LAST = 10  # forward passes: seven steps, and three passes that count operations


def stopped_once(
    runs: Runner, out: Path, monkeypatch: pytest.MonkeyPatch, stop: Any, message: str
) -> Run:
    """Run cosmae with a fault in the seventh step, then run it again without the fault."""
    forward, calls = MAE.forward, [0]

    def faulty(self: MAE, views: Any, generator: Any) -> Any:
        output = forward(self, views, generator)
        calls[0] += self.training
        return stop(output) if calls[0] == LAST else output

    spec = runs.spec("cosmae", 0, "training.epochs=4")
    opened = runs.open(spec)
    folder = run_folder(out, opened.identity)
    with monkeypatch.context() as patch:
        patch.setattr(MAE, "forward", faulty)
        with pytest.raises(TrainingError, match=message):
            execute(opened, folder, Quiet(), interval=0)
    assert calls[0] == LAST  # the run stopped within the step
    assert not (folder / "record.json").exists()
    reporter = Quiet()
    return Run(opened, folder, execute(opened, folder, reporter), reporter)


def not_finite(output: ObjectiveOutput) -> ObjectiveOutput:
    return ObjectiveOutput(output.loss / 0, output.encoded, output.projected)


def out_of_memory(_: ObjectiveOutput) -> ObjectiveOutput:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def no_memory(_: ObjectiveOutput) -> ObjectiveOutput:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (not_finite, "The loss became NaN or infinite at step 6 of task 1"),
        (out_of_memory, "Memory ran out in task 1 after step 6; lower training.batch_size"),
        (no_memory, "Memory ran out in task 1 after step 6; lower training.batch_size"),
    ],
)
def test_stopped_run_resumes(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any, message: str
) -> None:
    again = stopped_once(runs, tmp_path, monkeypatch, stop, message)
    assert again.reporter.lines[0] == "resuming after step 6 of task 1"
    whole = runs("cosmae", 0, "training.epochs=4")
    assert not differing(whole.encoder, again.encoder)
    assert scores(whole) == scores(again)
    (resumed,) = again.record.provenance.resumed
    assert (resumed.task, resumed.step, resumed.changed) == (0, 6, ())


def test_training_time_has_no_checkpoints(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> Path:
        time.sleep(0.3)
        return tmp_path

    monkeypatch.setattr("rscl_bench.engine.checkpointing.manager.write_checkpoint", slow)
    opened = runs.open(runs.spec("finetune"))
    record = execute(opened, run_folder(tmp_path, opened.identity), Quiet(), interval=0)
    steps = sum(task.steps for task in record.tasks)
    assert steps >= 10
    assert record.seconds.total > 0.3 * steps
    assert record.seconds.training < 0.3 * steps / 2
