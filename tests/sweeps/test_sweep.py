"""Sweeps: processes, recorded runs, failures, interruptions and killed processes."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import sketches
from helpers.cli import ONE_EPOCH, call, error_lines, records_in, refused
from helpers.paths import TOY
from rich.console import Console
from typer.testing import Result

from rscl_bench.console import LiveSweep, PlainSweep
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.prepare import open_run
from rscl_bench.interruption import SIGNALS
from rscl_bench.leaderboards.formats import SKETCH_WARNING
from rscl_bench.progress import silent
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import read_record, write_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import RunSpec
from rscl_bench.sweeps import pool
from rscl_bench.sweeps.plan import plan
from rscl_bench.sweeps.pool import Run, run_all, share_cores
from rscl_bench.sweeps.selection import method_runs
from rscl_bench.sweeps.worker import Event, Job

SCENARIO = str(TOY.parent / "toy.toml")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.getbasetemp() / "sweep-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(folder))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        # One core gives every process the number of threads of this process.
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        patch.setattr(os, "cpu_count", lambda: 1)
        yield folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A method whose loss is not finite."""
    path = tmp_path_factory.mktemp("methods") / "broken.toml"
    path.write_text(
        'name = "broken"\ntitle = "Breaks"\n\n[objective]\n'
        f'name = "{TOY.parent / "broken.py"}:NotFinite"\n',
        encoding="utf-8",
    )
    return str(path)


def sweep(out: Path, methods: str, *more: str) -> Result:
    given = ("--scenario", SCENARIO, "--methods", methods, "--seeds", "0", "--out", out)
    return call("sweep", *given, *ONE_EPOCH, *more)


# Real processes


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, broken: str
) -> Iterator[tuple[Path, Result]]:
    """A sweep of a method that fails and a method that succeeds, both at the same time."""
    out = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "sweep-cache"))
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield out, sweep(out, f"{broken},finetune", "--jobs", "2")


def test_a_failing_method_does_not_stop_other_methods(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.exit_code == 1
    (record,) = records_in(out)
    assert record.identity.method["name"] == "finetune"
    lines = error_lines(result)
    assert lines[0] == "1 of 2 runs failed:"
    assert lines[1].startswith("  broken seed 0: The loss became NaN or infinite at step 0 of task")
    assert lines[1].endswith(".")
    log = Path(lines[2].removeprefix("    log: "))
    assert out / "toy-sketch" / "tiny" / "broken" in log.parents
    assert "error: The loss became NaN" in log.read_text(encoding="utf-8")
    assert len(lines) == 3


def test_the_leaderboard_has_the_finished_runs(finished: tuple[Path, Result]) -> None:
    out, result = finished
    folder = next((out / "leaderboards" / "toy-v1-sketch").iterdir())
    lines = result.stdout.splitlines()
    assert str(folder / "leaderboard.md") in lines
    table = (folder / "leaderboard.csv").read_text(encoding="utf-8")
    assert "finetune" in table
    assert "broken" not in table


def test_the_leaderboard_is_printed_with_a_warning_of_sketches(
    finished: tuple[Path, Result],
) -> None:
    """The last lines are the table, whose numbers are those of the CSV, and the warning."""
    out, result = finished
    (path,) = out.rglob("leaderboard.csv")
    lines = result.stdout.splitlines()
    title = f"toy-v1-sketch/{path.parent.name}: mAP in % after the last task"
    (start,) = (number for number, line in enumerate(lines) if line.startswith(title))
    printed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[start + 4 : -2]]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row[:2] for row in printed] == [[row["method"], row["seeds"] or "–"] for row in rows]
    assert [row[2:4] for row in printed] == [
        [row["T3.toy.micro.mean"], row["T3.toy.macro.mean"]] for row in rows
    ]
    assert lines[-1] == SKETCH_WARNING


def test_a_pipe_gets_plain_lines(finished: tuple[Path, Result]) -> None:
    out, result = finished
    (record,) = records_in(out)
    micro = record.scores[-1]["toy"].test.micro
    assert micro is not None
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Sketch edition of toy")
    assert "2 runs: 0 recorded before, 2 to do; 2 at a time, 1 thread each." in lines
    done = f"finetune seed 0: done, micro-mAP on the test split: toy {100 * micro:.2f}"
    assert done in lines
    assert "\x1b" not in result.stdout


def without_times(record: RunRecord) -> Any:
    measured = {"started", "resumed", "matrix_flops"}
    raw = record.model_dump(mode="json", exclude={"seconds": True, "provenance": measured})
    for task in raw["tasks"]:
        del task["train_seconds"], task["images_per_second"], task["waited_seconds"]
        del task["flop_utilisation"], task["peak_memory_bytes"]
    return raw


def test_a_record_equals_that_of_a_single_run(
    finished: tuple[Path, Result], tmp_path: Path
) -> None:
    """The comparison includes threads and device, and another run was active at the time."""
    out, _ = finished
    single = ("--scenario", SCENARIO, "--method", "finetune", "--out", tmp_path, *ONE_EPOCH)
    assert call("run", *single).exit_code == 0
    (swept,), (alone,) = records_in(out), records_in(tmp_path)
    assert swept.provenance.threads == 1
    assert without_times(swept) == without_times(alone)
    (one,), (other,) = (list(f.rglob("encoder.safetensors")) for f in (out, tmp_path))
    assert one.read_bytes() == other.read_bytes()
    assert one.parent.relative_to(out) == other.parent.relative_to(tmp_path)


# Start and end of runs: real processes with scripts in place of training.


def fake(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let the process of every run execute a script, in which ``job`` is the job."""
    start = "import json, os, signal, sys, time; job = json.loads(sys.stdin.readline()); "
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", start + script))


def test_recorded_runs_start_no_process(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished[0], out)
    (path,) = out.rglob("record.json")
    before = path.read_bytes()
    fake(monkeypatch, "sys.exit(7)")
    again = sweep(out, "finetune")
    assert again.exit_code == 0, again.output
    assert "1 runs: 1 recorded before, 0 to do; 1 at a time, 1 thread each." in again.stdout
    assert "finetune seed 0: recorded before, micro-mAP on the test split: toy " in again.stdout
    assert path.read_bytes() == before
    forced = sweep(out, "finetune", "--force")
    assert forced.exit_code == 1
    assert "finetune seed 0: The process ended with exit status 7" in forced.stderr
    assert "leaderboard" not in forced.stdout, "the old record is not of this sweep"
    path.unlink()
    half_written = sweep(out, "finetune")
    assert "1 runs: 0 recorded before, 1 to do" in half_written.stdout
    assert half_written.exit_code == 1


def test_a_second_sweep_keeps_the_rows_of_the_first(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished[0], out)
    (path,) = out.rglob("record.json")
    record = read_record(path)
    other = record.identity.model_copy(
        update={"method": {**record.identity.method, "name": "earlier"}}
    )
    changes = {"identity": other, "id": other.run_id(), "image_scores_digest": "e" * 64}
    earlier = record.model_copy(update=changes)
    write_record(earlier, run_folder(out, other) / "record.json")
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", "sys.exit(7)"))
    again = sweep(out, "finetune")
    assert again.exit_code == 0, again.output
    (table,) = out.rglob("leaderboard.csv")
    with table.open(newline="") as file:
        methods = [row["method"] for row in csv.DictReader(file) if row["training_hours"]]
    assert sorted(methods) == ["earlier", "finetune"]
    assert "│ earlier " in again.stdout


def test_a_damaged_record_is_refused_before_the_first_run(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished[0], out)
    (path,) = out.rglob("record.json")
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    fake(monkeypatch, "sys.exit(7)")
    result = sweep(out, "cosmae,finetune")
    assert f"error: {path} is damaged" in result.stderr
    assert "to do" not in result.stdout


def job(folder: Path, method: str = "finetune", seed: int = 0) -> Job:
    scenario = load_scenario(SCENARIO)
    spec = RunSpec(
        scenario=scenario,
        protocol_name="tiny",
        protocol=scenario.protocols["tiny"],
        method=load_method(method),
        seed=seed,
    )
    return Job(
        spec=spec,
        archives=sketches(folder, folder),
        device="cpu",
        threads=1,
        folder=folder / f"seed{seed}-0123",
    )


def quiet(_: Run) -> None:
    pass


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed (SIGKILL), as happens when memory runs"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "The process was ended by SIGSEGV; see its log."),
        ("sys.exit(3)", "The process ended with exit status 3; see its log."),
        ("1 / 0", "The process ended with exit status 1; see its log."),
        ("pass", "record.json cannot be read"),
        ("print(json.dumps({'reason': 'No room.'}), flush=True); sys.exit(1)", "No room."),
        ('sys.stdout.write(\'{"phase": "tra\'); sys.exit(4)', "exit status 4"),
    ],
)
def test_every_failed_process_has_a_reason(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, script)
    run = Run("finetune", job(tmp_path))
    run_all([run], 1, quiet)
    assert run.state == "failed"
    assert reason in run.reason
    assert run.log.is_file()


def test_a_folder_that_cannot_be_created_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, "pass")
    runs = [Run("a", job(tmp_path, seed=0)), Run("b", job(tmp_path, seed=1))]
    runs[0].job.folder.touch()
    run_all(runs, 1, quiet)
    assert str(runs[0].job.folder) in runs[0].reason
    assert "record.json cannot be read" in runs[1].reason


def test_runs_start_in_order_and_n_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, "time.sleep(0.1)")
    runs = [Run(name, job(tmp_path, seed=seed)) for seed, name in enumerate("abcde")]
    runs[1].state = "recorded before"
    begun: list[str] = []
    most = 0

    def changed(run: Run) -> None:
        nonlocal most
        if run.state == "running":
            begun.append(run.label)
        most = max(most, sum(run.state == "running" for run in runs))

    run_all(runs, 2, changed)
    assert begun == ["a", "c", "d", "e"]
    assert most == 2
    assert [run.state for run in runs].count("failed") == 4
    assert runs[1].state == "recorded before"


def test_threads_and_job_reach_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        monkeypatch,
        "names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'); "
        "print(json.dumps({'reason': str([os.environ[n] for n in names])}), flush=True); "
        "print(job['spec']['method']['name'], file=sys.stderr); sys.exit(1)",
    )
    monkeypatch.setenv("MKL_NUM_THREADS", "9")
    run = Run("cosmae", job(tmp_path, "cosmae").model_copy(update={"threads": 3}))
    run_all([run], 1, quiet)
    assert run.reason == "['3', '3', '3']"
    assert run.log.read_text(encoding="utf-8") == "cosmae\n"


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert share_cores(None, None, "cpu") == (7, 1)
    assert share_cores(None, None, "cuda") == (1, 7)
    assert share_cores(1, None, "cpu") == (1, 7)
    assert share_cores(2, None, "cpu") == (2, 3)
    assert share_cores(9, None, "cuda") == (9, 1)
    assert share_cores(None, 2, "cpu") == (3, 2)
    assert share_cores(None, 9, "cpu") == (1, 9)
    assert share_cores(4, 1, "cpu") == (4, 1)
    assert share_cores(None, 3, "cuda") == (1, 3)


def gone(pid: int, seconds: float = 20) -> bool:
    """Wait until a process has ended, or is a zombie."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
        ).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", [number.name for number in SIGNALS])
def test_an_interruption_ends_all_processes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(
        monkeypatch,
        "open(os.path.join(job['folder'], 'pid'), 'w').write(str(os.getpid())); time.sleep(0.5); "
        f"job['spec']['seed'] == 1 and os.kill(os.getppid(), signal.{name}); time.sleep(100)",
    )
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)
    try:
        result = sweep(tmp_path, "finetune", "--seeds", "0,1,2", "--jobs", "2")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert result.exit_code == 128 + number, result.output
    assert error_lines(result) == [
        f"interrupted by {name}; all records stay, and the same command resumes the other runs "
        "from their checkpoints"
    ]
    pids = [int(path.read_text()) for path in tmp_path.rglob("pid")]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # ended, and waited for
            os.kill(pid, 0)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Kill the parent of real processes before the processes train."""
    worker = (
        "import os, sys, time; from pathlib import Path; from rscl_bench.sweeps import worker; "
        "worker.run = lambda job, _: ((job.folder / 'pid').write_text(str(os.getpid())), "
        "time.sleep(100)); worker.main()"
    )
    parent = (
        "import sys; from rscl_bench.sweeps import pool; "
        f"pool.COMMAND = (sys.executable, '-P', '-c', {worker!r}); "
        "jobs = [pool.Job.model_validate_json(text) for text in sys.argv[1:]]; "
        "pool.run_all([pool.Run('r', job) for job in jobs], 2, lambda run: None)"
    )
    jobs = [job(tmp_path, seed=seed).model_dump_json() for seed in (0, 1)]
    process = subprocess.Popen([sys.executable, "-c", parent, *jobs])
    pids: list[int] = []
    while len(pids) < 2 and process.poll() is None:
        pids = [int(path.read_text()) for path in tmp_path.rglob("pid") if path.read_text()]
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_second_signal_ends_a_sweep_and_its_processes_at_once(tmp_path: Path) -> None:
    """The worker does not end on SIGTERM; it ends when its parent has gone."""
    worker = (
        "import json, os, pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "job = json.loads(sys.stdin.readline()); "
        "pathlib.Path(job['folder'], 'pid').write_text(str(os.getpid())); sys.stdin.read()"
    )
    parent = (
        "import sys; from rscl_bench.sweeps import pool; "
        f"pool.COMMAND = (sys.executable, '-c', {worker!r}); "
        "pool.run_all([pool.Run('r', pool.Job.model_validate_json(sys.argv[1]))], 1, print)"
    )
    given = job(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", parent, given.model_dump_json()], stdout=subprocess.DEVNULL
    )
    pid = ""
    while not pid and process.poll() is None:
        pid = "".join(path.read_text() for path in tmp_path.rglob("pid"))
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the checkpoint
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 128 + signal.SIGUSR1
    assert gone(int(pid))


# Before the first run


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--scenario": "rs5"}, "Unknown scenario 'rs5'; did you mean 'rs4'?"),
        ({"--methods": ""}, "--methods takes a list such as a,b,c without empty values; got ''."),
        ({"--methods": "finetune,"}, "--methods takes a list such as a,b,c without empty values"),
        (
            {"--methods": "cosmae,finetune,cosmae"},
            "'cosmae' is in --methods twice; remove one of them.",
        ),
        ({"--methods": "finetune,cosmea"}, "Unknown method 'cosmea'; did you mean 'cosmae'?"),
        ({"--seeds": "0,1,00"}, "'0' is in --seeds twice"),
        ({"--seeds": "0,-1"}, "from 0 to 2^63 - 1, as in 0,1,2; got '-1'."),
        ({"--seeds": "one"}, "got 'one'."),
        ({"--protocol": "tyni"}, "did you mean 'tiny'?"),
        ({"--device": "tpu"}, "Unknown device 'tpu'"),
        ({"--set": "training.epoch=1"}, "did you mean 'training.epochs'?"),
        ({"--set": "training.batch_size=21"}, "fewer than one batch of 21"),
        ({"--set": "backbone.patch_size=7"}, "image_size 16 is not a multiple"),
        (
            {"--set": "strategies.model-mixup.beta=1"},
            "--set strategies.model-mixup.beta is for every method of a sweep, but finetune has "
            "no strategies.model-mixup; run cosmae in another sweep.",
        ),
        ({"--set": "strategies.modell-mixup.beta=1"}, "Unknown component of method finetune"),
        ({"--set": "objective.mask=1"}, "did you mean 'mask_ratio'?"),
    ],
)
def test_refusal(
    change: dict[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, "open(os.path.join(job['folder'], 'started'), 'w')")
    given = {
        "--scenario": SCENARIO,
        "--methods": "finetune,cosmae",
        "--seeds": "0,1",
        "--device": "cpu",
        "--out": str(tmp_path),
        **change,
    }
    assert sentence in refused("sweep", *(text for pair in given.items() for text in pair))
    assert list(tmp_path.iterdir()) == []


def test_refusal_of_a_folder_and_of_two_methods_of_one_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    given = ("sweep", "--scenario", SCENARIO, "--methods")
    assert "choose another with --out" in refused(*given, "finetune", "--out", file)
    other = tmp_path / "other.toml"
    other.write_text('name = "finetune"\ntitle = "t"\n[objective]\nname = "mae"\n', "utf-8")
    assert "'finetune' is in --methods twice" in refused(*given, f"finetune,{other}")


def opened(spec: RunSpec, data: Path, cache: Path) -> Any:
    return open_run(spec, sketches(data, cache), "cpu", silent)


def test_plan_opens_the_tiles_once_for_all(toy_data: Path, toy_cache: Path, tmp_path: Path) -> None:
    methods = [load_method(name) for name in ("finetune", "cosmae")]
    overrides = {"objective.mask_ratio": 0.5}
    planned = method_runs(load_scenario(SCENARIO), methods, [3, 1], None, overrides)
    assert [(item.label, item.spec.seed) for item in planned] == [
        ("finetune", 3),
        ("cosmae", 3),
        ("finetune", 1),
        ("cosmae", 1),
    ]
    first = opened(planned[0].spec, toy_data, toy_cache)
    runs = plan(planned, first, sketches(toy_data, toy_cache), 1, tmp_path, False, {})
    folders = [run.job.folder for run in runs]
    each = [opened(item.spec, toy_data, toy_cache) for item in planned]
    assert folders == [run_folder(tmp_path, one.identity) for one in each]
    assert len(set(folders)) == 4
    for run in runs:  # what the process gets is what was planned
        again = Job.model_validate_json(run.job.model_dump_json(), strict=True)
        assert opened(again.spec, toy_data, toy_cache).identity.run_id() in run.job.folder.name


# Output


def test_remaining_time_covers_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run = Run("finetune", job(tmp_path))
    assert run.seconds_left() is None
    run.update(Event(phase="training task 1 first", done=1, total=10))
    assert run.seconds_left() is None
    now = 130.0  # 9 of 30 steps in 30 s, 20 to go
    run.update(Event(phase="training task 1 first", done=10, total=10))
    assert run.seconds_left() == pytest.approx(30 / 9 * 20)
    now = 160.0
    run.update(Event(phase="training task 2 second", done=9, total=10))
    assert run.seconds_left() == pytest.approx(60 / 18 * 11)


def test_plain_view_prints_a_line_every_10_s_per_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    runs = [Run("a", job(tmp_path)), Run("b", job(tmp_path))]
    view = PlainSweep(runs, "test")
    for step in range(1, 41):
        for run in runs:
            run.state = "running"
            run.update(Event(phase="training task 1 first", done=step, total=40))
            view.changed(run)
        now += 1.0
    runs[1].state, runs[1].reason = "failed", "No room."
    view.changed(runs[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a seed 0: training task 1 first: 11 of 40, 0:01:49 left"
    assert [line.split()[0] for line in lines] == ["a", "b"] * 3 + ["b"]
    assert lines[-1] == "b seed 0: failed: No room."


def drawn(runs: Sequence[Run], height: int | None) -> list[list[str]]:
    file = io.StringIO()
    Console(file=file, width=150).print(LiveSweep(runs, "method", "test", height))
    rows = [line for line in file.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_live_table(finished: tuple[Path, Result], tmp_path: Path) -> None:
    (record,) = records_in(finished[0])
    runs = [Run(name, job(tmp_path)) for name in "abcd"]
    runs[0].state, runs[0].record = "recorded before", record
    runs[1].state = "running"
    runs[2].state = "failed"
    micro = record.scores[-1]["toy"].test.micro
    assert micro is not None
    whole = [
        ["a", "0", "recorded before", "", "", f"toy {100 * micro:.2f}"],
        ["b", "0", "running", "starting", "unknown", ""],
        ["c", "0", "failed", "", "", ""],
        ["d", "0", "waiting", "", "", ""],
    ]
    assert drawn(runs, None) == whole
    assert drawn(runs, 2) == whole[1:3]
    runs[1].update(Event(phase="training task 1 first", done=2, total=9))
    assert drawn(runs, 2)[0][3] == "training task 1 first: 2 of 9"


# A whole sweep


def wait_for_training(runs: Path, method: str) -> None:
    """Wait until the log of a run says that the first task is trained."""
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        if any("training task 1" in log.read_text() for log in runs.rglob(f"{method}/*/run.log")):
            return
        time.sleep(0.02)
    raise AssertionError(f"{method} did not train its first task in 300 s")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_sweep_resumes_to_the_same_records(cache: Path, tmp_path: Path) -> None:
    """After SIGKILL, a sweep with one run at a time writes the records of two runs at a time."""
    given = ["sweep", "--scenario", SCENARIO, "--methods", "finetune,cosmae", "--seeds", "0"]
    given += ["--device", "cpu", "--set", "training.epochs=60", "--out"]
    one_core = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{one_core}from rscl_bench.cli import main; main()",
            *given,
            "runs",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("finetune seed 0: done"):
            break
    wait_for_training(tmp_path / "runs", "cosmae")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    assert len(children) == 1
    assert gone(int(children[0]))
    (path,) = tmp_path.rglob("record.json")
    before = path.stat().st_mtime_ns
    resumed = call(*given, tmp_path / "runs")
    assert resumed.exit_code == 0, resumed.output
    assert "2 runs: 1 recorded before, 1 to do; 1 at a time, 1 thread each." in resumed.stdout
    assert path.stat().st_mtime_ns == before
    fresh = call(*given, tmp_path / "fresh", "--jobs", "2")
    assert fresh.exit_code == 0, fresh.output
    kept, once = ([without_times(r) for r in records_in(tmp_path / n)] for n in ("runs", "fresh"))
    assert len(once) == 2
    assert kept == once
