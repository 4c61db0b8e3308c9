"""Tuning: the choice is made on validation splits, stored whole, and checked on reading."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import sketches
from helpers.cli import call, error_lines, records_in, refused
from helpers.paths import ROOT, TOY
from typer.testing import Result

from rscl_bench.archives.lookup import adapters_of
from rscl_bench.archives.sketch import render
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.prepare import PreparedRun, open_run
from rscl_bench.errors import ArtefactError
from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.progress import silent
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import make_record, write_record
from rscl_bench.results.schema import ProbeScore, RunRecord
from rscl_bench.results.tuning import Tuning, read_tuning, write_tuning
from rscl_bench.spec import RunSpec
from rscl_bench.sweeps import pool

BETA = "strategies.model-mixup.beta"
#: Final validation micro-mAP of each seed, by beta. Seed 0 alone would choose 1, the test split
#: 0.1 and the task before the last 0.1.
VALIDATION = {0.1: (0.50, 0.52), 0.5: (0.60, 0.56), 1: (0.62, 0.40)}
SECRET = 0.987654321  # every test score, or near it


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.getbasetemp() / "sweep-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(folder))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        # No test of this file trains: every process that is started fails.
        patch.setattr(pool, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
        yield folder


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy scenario with two more probes, one of which has no validation split."""
    path = tmp_path_factory.mktemp("scenario") / "toy.toml"
    text = (TOY.parent / "toy.toml").read_text(encoding="utf-8")
    text = text.replace("adapters.py", str(TOY.parent / "adapters.py"))
    probe = text[text.index("[[probes]]") : text.index("[protocols.tiny]")]
    second = probe.replace('name = "toy"', 'name = "second"')
    third = probe.replace('name = "toy"', 'name = "third"').replace('val_split = "val"\n', "")
    path.write_text(text.replace("[protocols.tiny]", second + third + "[protocols.tiny]"), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def record(scenario: str, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The record of a real run, from which other records are made."""
    out = tmp_path_factory.mktemp("true")
    given = ("--scenario", scenario, "--method", "cosmae", "--out", out, "--device", "cpu")
    assert call("run", *given, "--set", "training.epochs=1").exit_code == 0
    (found,) = records_in(out)
    return found


def spec_of(scenario: str, seed: int, *assignments: str) -> RunSpec:
    method = load_method("cosmae")
    return resolve_run(
        load_scenario(scenario), method, seed=seed, overrides=parse_assignments(assignments)
    )


@pytest.fixture(scope="module")
def opened(scenario: str, record: RunRecord, cache: Path) -> PreparedRun:
    """One prepared run; the run of `record` has packed its tiles."""
    spec = spec_of(scenario, 0)
    root = render(adapters_of(spec.scenario), cache)
    return open_run(spec, sketches(root, cache), "cpu", silent)


def scored(
    record: RunRecord, opened: PreparedRun, validation: float | None, test: float
) -> RunRecord:
    """Return a record with these final scores, and with opposite scores after the task before."""
    rows: list[dict[str, ProbeScore]] = []
    for number, row in enumerate(record.scores):
        last = number == len(record.scores) - 1
        value = validation if last or validation is None else 1 - validation
        rows.append({})
        for probe, score in row.items():
            micro = value / 2 if value is not None and probe == "second" else value
            val = None if score.val is None else score.val.model_copy(update={"micro": micro})
            if val is not None and micro is None:
                val = MultilabelMAP(micro=None, macro=None, macro_labels=0)
            rows[-1][probe] = ProbeScore(
                test=score.test.model_copy(update={"micro": test}), val=val
            )
    return make_record(
        identity=opened.identity,
        provenance=record.provenance,
        tasks=[task.model_copy(update={"epochs": 2, "steps": 4}) for task in record.tasks],
        parameters=record.parameters,
        probes=record.probes,
        scores=rows,
        pixel_statistics=record.pixel_statistics,
        image_scores_digest=sha256(opened.identity.run_id().encode()).hexdigest(),
        seconds=record.seconds,
        pixel_digests=record.pixel_digests,
    )


Fill = Callable[[Mapping[float, tuple[float | None, ...]]], Path]


@pytest.fixture(scope="module")
def fill(
    scenario: str, record: RunRecord, opened: PreparedRun, tmp_path_factory: pytest.TempPathFactory
) -> Fill:
    """Write records of all settings and seeds into a folder of runs."""
    tasks = [
        task.model_copy(
            update={"images_per_second": 32 / task.train_seconds, "flop_utilisation": None}
        )
        for task in record.tasks
    ]
    doubled = record.model_copy(update={"tasks": tuple(tasks)})

    def write(validation: Mapping[float, tuple[float | None, ...]]) -> Path:
        out = tmp_path_factory.mktemp("runs")
        for beta, values in validation.items():
            for seed, value in enumerate(values):
                this = opened.with_spec(spec_of(scenario, seed, f"{BETA}={beta}"))
                made = scored(doubled, this, value, SECRET - beta / 1e4)
                write_record(made, run_folder(out, this.identity) / "record.json")
        return out

    return write


def tune(scenario: str, out: Path, *more: str) -> Result:
    given = ("--scenario", scenario, "--method", "cosmae", "--out", out, "--device", "cpu")
    return call("tune", *given, "--seeds", "0,1", *more)


def stored(result: Result) -> tuple[Path, Tuning]:
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.splitlines()[-1].removeprefix("stored: "))
    return path, read_tuning(path)


@pytest.fixture(scope="module")
def tuned(scenario: str, fill: Fill) -> tuple[Path, Result]:
    """The folder of the runs, and the output of tuning on all runs."""
    out = fill(VALIDATION)
    return out, tune(scenario, out, "--grid", f"{BETA}=0.1,0.5,1")


def test_the_choice_is_made_on_validation(tuned: tuple[Path, Result]) -> None:
    out, result = tuned
    path, tuning = stored(result)
    assert path == out / "tuning" / "toy-sketch" / "tiny" / "cosmae.json"
    assert tuning.choice == {BETA: 0.5}
    # By hand: seeds and probes count alike, and the second probe has half of the first's.
    means = [(a + b) / 2 * 0.75 for a, b in VALIDATION.values()]
    assert [setting.score for setting in tuning.settings] == pytest.approx(means)
    lines = result.stdout.splitlines()
    assert f"  * 43.50  {BETA}=0.5" in lines
    assert f"    38.25  {BETA}=0.1" in lines
    assert (
        f"{BETA}=0.5 seed 1: recorded before, micro-mAP on the validation split: " in result.stdout
    )
    assert tuning.grid == {BETA: (0.1, 0.5, 1)}
    by_id = {found.id: found for found in records_in(out)}
    for setting, (beta, finals) in zip(tuning.settings, VALIDATION.items(), strict=True):
        assert setting.values == {BETA: beta}
        for seed, run in enumerate(setting.runs):
            assert run.seed == by_id[run.record].identity.seed == seed
            assert by_id[run.record].identity.overrides == {BETA: beta}
            final = finals[seed]
            before = {"toy": 1 - final, "second": (1 - final) / 2}
            assert run.scores == (before, before, {"toy": final, "second": final / 2})


def test_no_test_score_is_printed_or_stored(tuned: tuple[Path, Result]) -> None:
    _, result = tuned
    path, _ = stored(result)
    for text in (result.output, path.read_text(encoding="utf-8")):
        assert "98.7" not in text
        assert "0.987" not in text
        assert "test split" not in text
        assert '"test' not in text
        assert '"third' not in text, "a probe without a validation split"


def test_the_first_of_equal_settings_is_chosen(scenario: str, fill: Fill) -> None:
    out = fill({0.1: (0.4,), 0.5: (0.7,), 1: (0.7,)})
    for order, choice in (("0.1,1,0.5", 1), ("0.1,0.5,1", 0.5)):
        result = tune(scenario, out, "--seeds", "0", "--grid", f"{BETA}={order}")
        assert stored(result)[1].choice == {BETA: choice}


def test_the_printed_lines_give_a_recipe_with_the_choice(
    scenario: str, tuned: tuple[Path, Result], tmp_path: Path
) -> None:
    _, result = tuned
    (line,) = [line for line in result.stdout.splitlines() if "[[strategies]]" in line]
    assert [line.strip()] == list(stored(result)[1].write)
    assignment, _, place = line.strip().partition(" under ")
    assert place == (
        '[[strategies]] named "model-mixup" of the recipe cosmae, or under '
        "[protocols.tiny.defaults.model-mixup] for protocol tiny alone"
    )
    recipe = tmp_path / "cosmae.toml"
    heading = 'name = "model-mixup"\n'
    base = (ROOT / "methods" / "cosmae.toml").read_text(encoding="utf-8")
    base = base[: base.index(heading) + len(heading)]  # whatever it sets itself is overridden
    recipe.write_text(f"{base}{assignment}\n", encoding="utf-8")
    new = resolve_run(load_scenario(scenario), load_method(str(recipe)))
    assert new.method == spec_of(scenario, 0, f"{BETA}=0.5").method


def test_leaderboards_ignore_tuning_files(tuned: tuple[Path, Result], tmp_path: Path) -> None:
    out, result = tuned
    assert stored(result)[0].is_relative_to(out)
    result = call("leaderboard", "build", out, "--out", tmp_path / "tables")
    assert result.exit_code == 0, result.output


def test_an_undefined_score_chooses_nothing(scenario: str, fill: Fill) -> None:
    out = fill({0.1: (0.5,), 0.5: (None,)})
    given = ("--scenario", scenario, "--method", "cosmae", "--device", "cpu", "--out", out)
    sentence = refused_after("tune", *given, "--grid", f"{BETA}=0.1,0.5")
    assert "No setting can be chosen: a validation score after the last task is missing" in sentence
    assert not (out / "tuning").exists()


def refused_after(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 1
    (line,) = error_lines(result)
    return line


def test_a_failed_run_chooses_nothing(scenario: str, fill: Fill) -> None:
    out = fill({0.1: (0.5, 0.6), 0.5: (0.6,)})
    result = tune(scenario, out, "--grid", f"{BETA}=0.1,0.5")
    assert result.exit_code == 1
    lines = error_lines(result)
    assert lines[0] == "1 of 4 runs failed:"
    assert lines[1].startswith(f"  {BETA}=0.5 seed 1: The process ended with exit status 7")
    assert lines[-1].startswith(
        "error: No setting was chosen, because 1 of 4 runs failed; the first, "
    )
    assert not (out / "tuning").exists()


def test_the_file_can_be_named_and_a_protocol_has_its_own(
    scenario: str, tuned: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = tuned
    file = tmp_path / "elsewhere.json"
    path, tuning = stored(tune(scenario, out, "--grid", f"{BETA}=0.1", "--store", str(file)))
    assert path == file
    changed = tuning.model_copy(update={"overrides": {"training.epochs": 3}})
    assert changed.path() == Path(f"toy-sketch/tiny-{tuning.protocol[:8]}/cosmae.json")
    own = tuning.model_copy(update={"overrides": {"objective.mask_ratio": 0.5}})
    assert own.path() == Path("toy-sketch/tiny/cosmae.json")


# The file


@pytest.fixture
def written(tuned: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the file, which a test may damage."""
    return Path(shutil.copy(stored(tuned[1])[0], tmp_path / "tuning.json"))


def test_a_file_reads_as_it_was_written(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    write_tuning(read_tuning(written), copy)
    assert copy.read_bytes() == written.read_bytes()


def change_choice(raw: Any) -> None:
    raw["choice"] = {BETA: 1}


def change_score(raw: Any) -> None:
    raw["settings"][1]["runs"][0]["scores"][-1]["toy"] = 0.9


def change_mean(raw: Any) -> None:
    raw["settings"][0]["score"] = 0.99


def drop_setting(raw: Any) -> None:
    del raw["settings"][0]


def drop_seed(raw: Any) -> None:
    del raw["settings"][2]["runs"][1]


def drop_probe(raw: Any) -> None:
    del raw["settings"][2]["runs"][1]["scores"][-1]["second"]


def add_key(raw: Any) -> None:
    raw["test"] = 1


def newer(raw: Any) -> None:
    raw["format"] = 2


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change_choice, "field 'choice' is not the first setting with the highest score"),
        (change_score, "field 'settings.1.score' is not the mean of its runs"),
        (change_mean, "field 'settings.0.score' is not the mean of its runs"),
        (drop_setting, "field 'settings' is not the product of field 'grid'"),
        (drop_seed, "field 'settings.2' has other seeds than the first setting"),
        (drop_probe, "field 'settings.2' has other probes than the first run"),
        (add_key, "field 'test': Extra inputs are not permitted"),
        (newer, "field 'format': Input should be 1"),
    ],
)
def test_a_damaged_file_is_refused(
    written: Path, damage: Callable[[Any], None], sentence: str
) -> None:
    raw = json.loads(written.read_text(encoding="utf-8"))
    damage(raw)
    written.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ArtefactError) as caught:
        read_tuning(written)
    assert sentence in str(caught.value)
    assert str(written) in str(caught.value)


def test_a_truncated_or_missing_file_is_refused(written: Path, tmp_path: Path) -> None:
    written.write_bytes(written.read_bytes()[:-10])
    with pytest.raises(ArtefactError, match=r"is damaged|is no sound tuning"):
        read_tuning(written)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_tuning(tmp_path / "none.json")


# Before the first run


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--grid", BETA], "--grid takes a parameter of the objective, of a strategy or of the"),
        (["--grid", "training.epochs=1,2"], "--grid takes a parameter of the objective, of a"),
        (["--grid", f"{BETA}=1,,2"], "--grid takes a list"),
        (["--grid", f"{BETA}=1,1"], "'1' is in --grid twice"),
        (["--grid", f"{BETA}=1,1.0"], f"'{BETA}=1' and '{BETA}=1.0' are the same setting"),
        (["--grid", f"{BETA}=1", "--grid", f"{BETA}=2"], f"'{BETA}' is in --grid twice"),
        (["--grid", f"{BETA}=1", "--set", f"{BETA}=2"], f"'{BETA}' is in --grid and --set twice"),
        (["--grid", "strategies.model-mixup.betta=1"], "did you mean 'beta'?"),
        (["--grid", "strategies.ewc.weight=1"], "Unknown component of method cosmae"),
        (["--grid", f"{BETA}=1,many"], "'beta': Input should be a valid number"),
    ],
)
def test_refusal(more: list[str], sentence: str, scenario: str, tmp_path: Path) -> None:
    given = ("--scenario", scenario, "--method", "cosmae", "--out", tmp_path, "--device", "cpu")
    assert sentence in refused("tune", *given, *more)
    assert list(tmp_path.iterdir()) == []


def test_no_validation_split(scenario: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    text = Path(scenario).read_text(encoding="utf-8").replace('val_split = "val"\n', "")
    path.write_text(text, encoding="utf-8")
    given = ("--scenario", path, "--method", "cosmae", "--out", tmp_path / "runs")
    sentence = refused("tune", *given, "--grid", f"{BETA}=1,2")
    assert sentence.startswith("No probe of scenario toy has a validation split")


def test_a_grid_of_two_parameters_has_all_pairs(scenario: str, tmp_path: Path) -> None:
    tau = "strategies.model-mixup.temperature"
    result = tune(scenario, tmp_path, "--grid", f"{BETA}=0.1,1", "--grid", f"{tau}=0.5,0.9")
    failed = [line.partition(": failed")[0] for line in result.stdout.splitlines()]
    expected = [
        f"{BETA}={beta}, {tau}={value} seed {seed}"
        for seed in (0, 1)
        for beta in ("0.1", "1")
        for value in ("0.5", "0.9")
    ]
    assert sorted(line for line in failed if " seed " in line) == sorted(expected)


def test_a_grid_of_rates(scenario: str, tmp_path: Path) -> None:
    """Rates are the method's: one protocol, one file, and a line that says where to write them."""
    given = ("--scenario", scenario, "--method", "finetune", "--out", tmp_path, "--device", "cpu")
    epochs = ("--set", "training.epochs=1")
    for rate in ("1e-4", "3e-4", "1e-3"):
        run = call("run", *given, *epochs, "--set", f"training.learning_rate={rate}")
        assert run.exit_code == 0, run.output
    grid = ("--grid", "training.learning_rate=1e-4,3e-4,1e-3", *epochs)
    path, tuning = stored(call("tune", *given, *grid))
    assert path.name == "finetune.json"
    assert tuning.grid == {"training.learning_rate": (1e-4, 3e-4, 1e-3)}
    chosen = tuning.choice["training.learning_rate"]
    assert tuning.write == (
        f"learning_rate = {chosen} under [training] of the recipe finetune, or under "
        "[protocols.tiny.training_for.finetune] for protocol tiny alone",
        'chosen = "seed 0, training.epochs=1, grid learning_rate 0.0001, 0.0003, 0.001, on '
        'validation" beside them in the same table',
    )
    records = records_in(tmp_path)
    rates = {record.identity.method["training"]["learning_rate"] for record in records}  # type: ignore[index,call-overload]
    assert rates == {1e-4, 3e-4, 1e-3}
    assert len({json.dumps(record.identity.protocol, sort_keys=True) for record in records}) == 1
    losses = {record.tasks[-1].final_loss for record in records}
    assert len(losses) == 3, "the rate changes the training"
