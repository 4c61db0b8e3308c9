import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ONE_EPOCH, call, records_in, refused, spawn
from helpers.paths import TOY as TOY_PATH
from typer.testing import Result

import rscl_bench
from rscl_bench import registry
from rscl_bench.declarations import declarations, load_method, load_scenario
from rscl_bench.leaderboards.formats import SKETCH_WARNING
from rscl_bench.parameters import parameters
from rscl_bench.resolve import resolve_run
from rscl_bench.sensor_table import SENSORS

TOY = str(TOY_PATH)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.getbasetemp() / "cli-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(folder))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        yield folder


# Lists and declarations.


def test_list_names_everything() -> None:
    result = call("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    expected: dict[str, set[str]] = {k: set(registry.entries(k)) for k in registry.BUILTIN}
    expected["scenarios"] = set(declarations("scenarios"))
    expected["methods"] = set(declarations("methods"))
    expected["sensors"] = set(SENSORS)
    found: dict[str, set[str]] = {}
    for line in lines:
        if line.endswith(":") and not line.startswith(" "):
            kind = line[:-1].partition(", ")[0]  # objectives come in families
            found[kind] = found.pop(kind, set())
        else:
            name, _, summary = line.strip().partition("  ")
            assert summary.strip(), f"'{name}' has no line on what it is"
            found[list(found)[-1]].add(name)
    assert found == expected


@pytest.mark.parametrize("name", [*declarations("scenarios"), TOY])
def test_show_of_a_scenario_is_the_scenario(name: str) -> None:
    result = call("show", name)
    shown = tomllib.loads(result.stdout)
    scenario = load_scenario(name)
    assert [task["tile_size"] for task in shown["tasks"]] == [t.tile_size for t in scenario.tasks]
    for key, protocol in scenario.protocols.items():
        found = shown["protocols"][key]
        assert found["training"] == json.loads(protocol.training.model_dump_json())
        assert found.get("defaults", {}) == protocol.defaults
    assert "# Side of the stored tiles in pixels." in re.sub(r"#\s+", "# ", result.stdout)
    assert json.loads(call("show", name, "--json").stdout)["title"] == scenario.title


@pytest.mark.parametrize("name", declarations("methods"))
def test_show_prints_the_values_that_a_run_has(name: str) -> None:
    """The recipe as printed, read again without any default, is the run's."""
    result = call("show", name, "--scenario", "scene4")
    shown = tomllib.loads(result.stdout)
    spec = resolve_run(load_scenario("scene4"), load_method(name))
    components = [spec.method.objective, *spec.method.strategies, spec.protocol.backbone]
    found = [shown["objective"], *shown.get("strategies", ()), shown["backbone"]]
    for component, values in zip(components, found, strict=True):
        given = json.loads(component.model_dump_json(exclude_none=True))
        assert values == given
    assert shown["training"] == json.loads(spec.training.model_dump_json())
    assert shown["protocol"]["image_size"] == spec.protocol.image_size
    values_lines = [line for line in result.stdout.splitlines() if re.match(r"\w+ = ", line)]
    assert all("  # " in line for line in values_lines if not line.startswith("name = "))


def test_show_says_where_each_value_comes_from() -> None:
    def lines(*more: str) -> list[str]:
        return call("show", "maskfeat", *more).stdout.splitlines()

    shown = lines("--scenario", "scene4", "--set", "training.weight_decay=0.1")
    assert "learning_rate = 0.0001  # protocol cpu, for maskfeat" in shown
    assert "weight_decay = 0.1  # --set" in shown
    assert "epochs = 10  # protocol cpu" in shown
    assert "betas = [0.9, 0.95]  # default" in shown
    assert "image_size = 64  # protocol cpu" in shown
    changes = ("--set", "training.epochs=3", "--set", "image_size=32", "--set", "views.min_scale=1")
    shown = lines("--scenario", "scene4", *changes)
    for line in ("epochs = 3", "image_size = 32", "min_scale = 1.0"):
        assert f"{line}  # --set" in shown
    assert "horizontal_flip = 0.5  # default" in shown
    sentence = refused("show", "mae", "--scenario", "scene4")
    assert "--scenario goes with a method, and 'mae' is an objective" in sentence
    finetune = call("show", "finetune", "--scenario", "scene4").stdout.splitlines()
    assert "norm_pix = true  # protocol cpu" in finetune
    alone = call("show", "finetune").stdout.splitlines()
    assert "norm_pix = false  # default" in alone
    assert alone[1].startswith("# without a protocol, whose defaults a run would have")
    pfr = call("show", "pfr-barlow-twins").stdout
    assert "# recipe pfr-barlow-twins" in pfr
    assert "--protocol and --set need --scenario" in refused("show", "cosmae", "--protocol", "cpu")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, named in registry.BUILTIN.items() for name in named],
)
def test_show_explains_every_parameter_of_a_component(kind: registry.Kind, name: str) -> None:
    word = registry.SINGULAR[kind]
    shown = " ".join(call("show", f"{word}:{name}").stdout.split())
    component = registry.load(kind, name)
    for parameter in parameters(component.Options if kind == "datasets" else component.Params):
        assert parameter.meaning, f"{word} {name}: {parameter.name} has no meaning"
        assert f"{parameter.name}: " in shown
        assert " ".join(parameter.meaning.split()) in shown
        if parameter.default is not None:
            assert f"default {parameter.default}" in shown


def test_show_of_a_component_has_types_and_source() -> None:
    shown = call("show", "mae").stdout
    assert "He et al. 2022" in shown
    assert "  mask_ratio: number above 0 below 1; default 0.75\n" in shown
    assert "  decoder_depth: integer from 1 to 1,000; default 8\n" in shown
    assert (
        '  mode: "separate" or "online"; default "separate"\n'
        in call("show", "strategy:ewc").stdout
    )
    data = json.loads(call("show", "mae", "--json").stdout)
    assert data["parameters"][0]["name"] == "mask_ratio"


@pytest.mark.parametrize("name", SENSORS)
def test_show_of_a_sensor(name: str) -> None:
    shown = call("show", name).stdout
    sensor = SENSORS[name]
    assert all(f"{band.name} ({band.wavelength_nm:g} nm)" in shown for band in sensor.bands)
    assert f"Pixel value of full brightness: {sensor.scale:g}\n" in shown


def test_show_of_an_ambiguous_name_shows_all() -> None:
    shown = call("show", "ewc").stdout
    assert "# method ewc: " in shown
    assert "\nstrategy ewc: " in shown
    assert "'ewc' is the name of 2 things" in shown.splitlines()[-1]
    assert "method:ewc, strategy:ewc" in shown.splitlines()[-1]
    assert call("show", "method:ewc").stdout in shown
    assert call("show", "strategy:ewc").stdout in shown


def test_show_of_an_unknown_name() -> None:
    sentence = refused("show", "ewcc")
    assert "Unknown scenario, method or component 'ewcc'; did you mean 'ewc'?" in sentence
    assert "Unknown sensor 'mae'" in refused("show", "sensor:mae")


def test_code_of_a_toml_is_announced() -> None:
    for command in (["show", TOY], ["show", "cosmae", "--scenario", TOY]):
        result = call(*command)
        assert result.stderr.splitlines() == [
            f"note: this command runs the code of {TOY_PATH.parent / 'adapters.py'}"
        ]
    assert call("show", "cosmae").stderr == ""


def test_version() -> None:
    assert call("--version").stdout == f"rscl-bench {rscl_bench.__version__}\n"
    command = [sys.executable, "-m", "rscl_bench", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"rscl-bench {rscl_bench.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "run --help",
        "sweep --help",
        "tune --help",
        "data --help",
        "leaderboard --help",
    ],
)
def test_help(command: str) -> None:
    result = call(*command.split())
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    "command",
    [["--help"], ["list"], ["run", "--help"], ["sweep", "--help"], ["show", "rs4"], ["run"]],
)
def test_light_commands_import_nothing_heavy(command: list[str]) -> None:
    heavy = ("torch", "numpy", "avalanche", "lightning", "timm", "torchgeo", "pandas", "sklearn")
    script = (
        "import sys\n"
        "from rscl_bench.cli import main\n"
        f"sys.argv = ['rscl-bench', *{command!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [name for name in {heavy!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


# Runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run of the toy scenario, and its output."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))
        result = call("run", "--scenario", TOY, "--method", "cosmae", "--out", out, *ONE_EPOCH)
    assert result.exit_code == 0, result.output
    return out, result


def test_run_prints_its_edition_and_the_path_of_its_record(finished: tuple[Path, Result]) -> None:
    out, result = finished
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Sketch edition of toy: small synthetic images")
    assert "RSCL_DATA_ROOT" in lines[0]
    (path,) = out.rglob("record.json")
    assert lines[-1] == f"record: {path}"
    assert path.relative_to(out).parts[:-2] == ("toy-sketch", "tiny", "cosmae")
    assert (path.parent / "encoder.safetensors").is_file()


def test_run_prints_plain_lines_to_a_pipe(finished: tuple[Path, Result]) -> None:
    _, result = finished
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    assert "training task 2 second: done (2)" in result.stdout.splitlines()


def test_run_prints_the_table_of_its_record(finished: tuple[Path, Result]) -> None:
    out, result = finished
    (record,) = records_in(out)
    table = [line for line in result.stdout.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in table]
    assert [row[0] for row in cells] == [
        "random-encoder",
        "pixel-statistics",
        "first",
        "second",
        "third",
    ]
    scores = [record.scores[0], record.pixel_statistics, *record.scores[1:]]
    for row, score in zip(cells, scores, strict=True):
        test = score["toy"].test
        assert test.micro is not None
        assert test.macro is not None
        assert row[1:3] == [f"{100 * test.micro:.2f}", f"{100 * test.macro:.2f}"]
    for row, task in zip(cells[2:], record.tasks, strict=True):
        assert row[3:] == [f"{task.train_seconds:.1f}", f"{task.images_per_second:.0f}"]
    assert cells[0][3:] == ["–", "–"]


def test_run_prints_forgetting_and_that_a_sketch_is_no_result(
    finished: tuple[Path, Result],
) -> None:
    out, result = finished
    (record,) = records_in(out)
    micro, macro = record.continual.micro, record.continual.macro
    assert micro.forgetting is not None
    assert macro.forgetting is not None
    lines = result.stdout.splitlines()
    (place,) = [n for n, line in enumerate(lines) if line.startswith("└")]
    assert lines[place + 1] == (
        f"forgetting: {100 * micro.forgetting:.2f} micro-mAP, {100 * macro.forgetting:.2f} "
        "macro-mAP (points; fall of a domain's score from its best to the end, mean over earlier "
        "domains)"
    )
    assert lines[place + 2].startswith("backward transfer: ")
    assert micro.forward_transfer is None  # no probe of a later task
    assert lines[place + 3] == SKETCH_WARNING
    assert lines[place + 4].startswith("record: ")


def test_a_code_that_exits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status of an error is never 0, whatever an extension does."""
    monkeypatch.setattr("rscl_bench.api.render_sketches", lambda *_: sys.exit(0))
    sentence = refused("data", "sketch", "--scenario", "rs4", "--out", "out")
    assert sentence == "Code outside of rscl-bench called sys.exit(0)."


def test_a_path_that_the_system_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rscl_bench.api.render_sketches", lambda *_: Path("x" * 5000).stat())
    sentence = refused("data", "sketch", "--scenario", "rs4", "--out", "out")
    assert sentence == f"{'x' * 5000} cannot be used (File name too long)."


def test_record_has_the_options_of_the_run(finished: tuple[Path, Result]) -> None:
    out, _ = finished
    (record,) = records_in(out)
    assert record.identity.edition == "sketch"
    assert record.identity.overrides == {"training.epochs": 1}
    assert [task.epochs for task in record.tasks] == [1, 1, 1]
    assert record.provenance.device_type == "cpu"


def test_second_run_is_not_run_again(tmp_path: Path) -> None:
    same = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path, *ONE_EPOCH)
    first = call(*same)
    (path,) = tmp_path.rglob("record.json")
    before = path.read_bytes()
    second = call(*same)
    assert second.exit_code == 0
    assert "This run is recorded already; --force runs it again." in second.stdout.splitlines()
    assert second.stdout.splitlines()[-1] == f"record: {path}"
    assert "training task" in first.stdout
    assert "training task" not in second.stdout
    assert path.read_bytes() == before
    forced = call(*same, "--force")
    assert forced.stdout.splitlines()[-1] == f"record: {path}"
    assert path.read_bytes() != before, "the times differ"


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    run = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path, *ONE_EPOCH)
    for seed in ("0", "1"):
        assert call(*run, "--seed", seed).exit_code == 0
    assert {record.identity.seed for record in records_in(tmp_path)} == {0, 1}


def test_leaderboard_of_the_run(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = finished
    result = call("leaderboard", "build", out, "--out", tmp_path)
    assert result.exit_code == 0
    written = [Path(line) for line in result.stdout.splitlines()]
    (table,) = {path.parent for path in written} - {tmp_path}
    assert sorted(written) == sorted(
        [
            tmp_path / "index.html",
            table / "comparisons.csv",
            table / "costs.csv",
            table / "image-intervals.jsonl",
            table / "index.html",
            table / "leaderboard.csv",
            table / "leaderboard.md",
            table / "scores.csv",
        ]
    )
    for name in ("leaderboard.csv", "index.html"):
        assert "cosmae" in (table / name).read_text(encoding="utf-8")


def test_leaderboard_without_a_record(tmp_path: Path) -> None:
    assert "no run record" in refused("leaderboard", "build", tmp_path)


# Data.


def test_prepare_and_verify() -> None:
    prepared = call("data", "prepare", "--scenario", TOY).stdout
    assert "task first: 20 tiles of 24×24×3 uint8, 0 all zero" in prepared.splitlines()
    verified = call("data", "verify", "--scenario", TOY).stdout
    assert "probe toy test: 20 tiles, SHA-256 " in verified


def test_sketch_as_data_root_stays_a_sketch(tmp_path: Path) -> None:
    written = call("data", "sketch", "--scenario", TOY, "--out", tmp_path / "data")
    root = Path(written.stdout.splitlines()[-1].removeprefix("sketch archives: "))
    out = tmp_path / "runs"
    run = ("run", "--scenario", TOY, "--method", "finetune", "--out", out, *ONE_EPOCH)
    result = call(*run, "--data-root", root)
    assert "These archives are synthetic sketches" in result.stdout
    (record,) = records_in(out)
    assert record.identity.edition == "sketch"


def test_real_archives_are_never_mixed_with_sketches(tmp_path: Path) -> None:
    written = call("data", "sketch", "--scenario", "scene4", "--out", tmp_path)
    root = Path(written.stdout.splitlines()[-1].removeprefix("sketch archives: "))
    (root / "rsscn7" / "SKETCH").unlink()
    sentence = refused("data", "prepare", "--scenario", "scene4", "--data-root", root)
    assert "is a synthetic sketch beside real archives" in sentence


def test_missing_archive_says_what_to_fetch(tmp_path: Path) -> None:
    sentence = refused(
        "run", "--scenario", "scene4", "--method", "finetune", "--data-root", tmp_path
    )
    aid = registry.load("datasets", "aid")
    for needed in (aid.title, aid.source, aid.licence, str(tmp_path / aid.folder), aid.layout):
        assert needed in sentence


def test_data_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_DATA_ROOT", str(tmp_path))
    assert str(tmp_path) in refused("data", "verify", "--scenario", "scene4")


# Error messages.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--scenario", "rs5"], "Unknown scenario 'rs5'; did you mean 'rs4'?"),
        (["--scenario", "no.toml"], "There is no file 'no.toml'"),
        (["--method", "cosmea"], "Unknown method 'cosmea'; did you mean 'cosmae'?"),
        (["--protocol", "tyni"], "Unknown protocol of scenario toy 'tyni'; did you mean 'tiny'?"),
        (["--device", "tpu"], "Unknown device 'tpu'; use auto, cpu, cuda or cuda:N."),
        (["--device", "cuda:99"], "There is no device 'cuda:99'"),
        (["--set", "training.epoch=1"], "did you mean 'training.epochs'?"),
        (["--set", "training.epochs"], "--set takes key=value"),
        (
            ["--set", "training.epochs=many"],
            "'training.epochs': Input should be a valid integer, got 'many'",
        ),
        (["--set", "training.learning_rate=nan"], "'training.learning_rate'"),
        (["--set", "objective.mask=0.5"], "did you mean 'mask_ratio'?"),
        (
            ["--set", "objective.mask_ratio=1.5"],
            "'mask_ratio': Input should be less than 1, got 1.5",
        ),
        (["--set", "strategies.data-mixup.alpha=1"], "Unknown component of method finetune"),
        (["--set", "backbone.patch_size=7"], "image_size 16 is not a multiple"),
        (["--set", "training.batch_size=21"], "fewer than one batch of 21"),
        (["--set", "image_size=32"], "smaller than the crop of 32"),
    ],
)
def test_refusal(change: list[str], sentence: str, tmp_path: Path) -> None:
    arguments = {"--scenario": TOY, "--method": "finetune", "--out": str(tmp_path)}
    if change[0] in arguments:
        arguments[change[0]] = change[1]
        change = []
    flat = [text for pair in arguments.items() for text in pair]
    assert sentence in refused("run", *flat, *change)
    assert not list(tmp_path.rglob("record.json"))


def test_invalid_toml(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("name = \n", encoding="utf-8")
    assert "is not valid TOML" in refused("show", broken)
    broken.write_bytes(b"name = '\xff'")
    assert "is not valid TOML" in refused("show", broken)


def test_output_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "runs"
    file.touch()
    sentence = refused("run", "--scenario", TOY, "--method", "finetune", "--out", file, *ONE_EPOCH)
    assert f"The output folder {file}" in sentence
    assert "choose another with --out" in sentence


def test_cache_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cache"
    file.touch()
    monkeypatch.setenv("RSCL_CACHE", str(file))
    assert "set RSCL_CACHE to a folder" in refused("data", "prepare", "--scenario", TOY)


def test_diverging_run_leaves_no_record(tmp_path: Path) -> None:
    run = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path)
    sentence = refused(*run, "--device", "cpu", "--set", "training.learning_rate=1e30")
    assert "NaN or infinite" in sentence
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("arguments", [["run"], ["run", "--nope"], ["nope"], ["run", "--seed=-1"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# In a new process.


def test_process_fails_with_one_sentence(tmp_path: Path) -> None:
    process = spawn("run", "--scenario", "rs5", "--method", "cosmae", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("error: Unknown scenario 'rs5'; did you mean 'rs4'?")
    assert err.count("\n") == 1


def test_interrupted_run_says_so(tmp_path: Path) -> None:
    run = ["run", "--scenario", TOY, "--method", "finetune", "--device", "cpu"]
    process = spawn(
        *run,
        "--set",
        "training.epochs=100000",
        cwd=tmp_path,
        env={**os.environ, "RSCL_CACHE": str(tmp_path / "cache")},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("packing toy test: done"):
            break
    process.send_signal(signal.SIGINT)  # before the training, where nothing is to be kept
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted by SIGINT; ")
    assert not list(tmp_path.rglob("record.json"))


def test_output_encoding_without_a_dash(finished: tuple[Path, Result]) -> None:
    (path,) = finished[0].rglob("record.json")
    script = (
        "from pathlib import Path; from rscl_bench import console; "
        "from rscl_bench.cli import application; "
        "from rscl_bench.results.record import read_record; "
        f"application.app = lambda: console.print_run(read_record(Path({str(path)!r})))\n"
        "application.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert "random-encoder" in done.stdout
    assert done.stdout.isascii()


def test_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    from rscl_bench.console import BarReporter, PlainReporter, reporter

    class Terminal:
        def __init__(self, real: Any):
            self.real = real

        def isatty(self) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    with reporter() as report:
        assert isinstance(report, PlainReporter)
    monkeypatch.setattr(sys, "stdout", Terminal(sys.stdout))
    with reporter() as report:
        assert isinstance(report, BarReporter)
        report.progress("packing", 1, 2)
        report.progress("packing", 2, 2)
        report.message("done")


def test_plain_reporter_is_quiet_between_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rscl_bench import console

    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    report = console.PlainReporter()
    for done in range(1, 41):
        report.progress("part", done, 40)
        now += 1.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "part: done (40)"
    assert 3 <= len(lines) <= 5
    assert lines[0] == "part: 11 of 40, about 29 s left"
