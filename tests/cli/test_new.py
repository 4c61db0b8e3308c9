"""`rscl-bench new` writes skeletons that run, pass their own tests and are clean as written."""

import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from helpers.cli import call, refused
from helpers.modules import load_file
from helpers.paths import ROOT

import rscl_bench as rb
from rscl_bench.errors import SpecError
from rscl_bench.skeletons.writing import SkeletonKind

KINDS: tuple[SkeletonKind, ...] = get_args(SkeletonKind)
#: Kinds that consist of a TOML alone, without code.
DECLARED = ("method", "scenario")
SHORT = ("--device", "cpu", "--set", "training.epochs=1", "--set", "training.warmup_epochs=0")


@pytest.fixture(autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "docs-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def names_of(kind: str) -> list[str]:
    code = [] if kind in DECLARED else [f"my_{kind}.py"]
    return [*code, f"my-{kind}.toml", f"test_my_{kind}.py"]


@pytest.mark.parametrize("kind", KINDS)
def test_command_writes_files_and_names_the_next_commands(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("new", kind, f"my-{kind}")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:-2] == [f"wrote {name}" for name in names_of(kind)]
    assert f"./my-{kind}.toml" in lines[-2]
    assert lines[-1] == f"next: pytest test_my_{kind}.py"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names_of(kind))
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert not any("skeleton" in text.lower() for text in texts)


#: Kinds whose test renders large sketches.
LONG = ("probe", "scenario")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in LONG else ()) for k in KINDS]
)
def test_skeleton_passes_its_own_test(
    kind: SkeletonKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = rb.new(kind, f"my-{kind}", tmp_path / "new")
    module = load_file(written.files[-1])
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert tests
    for name, test in tests.items():
        given = {"tmp_path": tmp_path / name, "monkeypatch": monkeypatch}
        test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})


#: A fault of each kind: the text that is replaced, and its replacement.
FAULTS: dict[SkeletonKind, tuple[str, str]] = {
    "dataset": ("labels=labels)", "labels=2 * labels)"),
    "method": ("alpha", "alpah"),
    "objective": ("predicted.float()", "predicted.detach().float()"),
    "probe": ("@ weights", "@ (0 * weights)"),
    "strategy": ("return dict(self.anchor)", "return {}"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_first_test_of_a_skeleton_finds_a_fault(kind: SkeletonKind, tmp_path: Path) -> None:
    written = rb.new(kind, f"my-{kind}", tmp_path / "new")
    source, fault = written.files[0], FAULTS[kind]
    text = source.read_text(encoding="utf-8")
    assert fault[0] in text
    source.write_text(text.replace(*fault), encoding="utf-8")
    module = load_file(written.files[-1])
    test = module.test_recipe if kind == "method" else module.test_contract
    with pytest.raises((AssertionError, SpecError)):
        test(*[tmp_path / "contract"] if kind == "dataset" else ())


@pytest.mark.slow
def test_skeletons_in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's way: the printed commands, and checks by tools without any configuration."""
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        lines = call("new", kind, f"my-{kind}").stdout.splitlines()
        (command,) = [line for line in lines if line.startswith("next: rscl-bench ")]
        result = call(*shlex.split(command)[2:], *SHORT)
        assert result.exit_code == 0, result.output
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    code = sorted(path.name for path in tmp_path.glob("*.py"))
    for check in (
        ["pytest", "-q", *(name for name in code if name.startswith("test_"))],
        ["ruff", "check", "--isolated", "--extend-select", "F,E,W,I,UP,B,SIM,RUF", "."],
        ["mypy", "--strict", "--follow-imports=silent", *code],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *check], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("existing", names_of("probe"))
def test_no_file_is_replaced(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine", encoding="utf-8")
    sentence = refused("new", "probe", "my-probe", "--into", tmp_path)
    assert sentence.startswith(f"{tmp_path / existing} exists and is not replaced; ")
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text(encoding="utf-8") == "mine"


def test_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "my_probe.py").symlink_to(tmp_path / "elsewhere.py")
    assert "exists and is not replaced" in refused("new", "probe", "my-probe", "--into", tmp_path)
    assert not (tmp_path / "elsewhere.py").exists()


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is no folder" in refused("new", "probe", "x", "--into", tmp_path / "file")
    sentence = refused("new", "probe", "x", "--into", tmp_path / "file" / "below")
    assert sentence.endswith(
        "cannot be written (Not a directory); choose another folder with --into."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My Probe", "such as 'my-probe'."),
        ("MyProbe", "such as 'my-probe'."),
        ("my_probe", "such as 'my-probe'."),
        ("../probe", "such as 'probe'."),
        ("probe--", "such as 'probe'."),
        ("2-probes", "such as 'probes'."),
        ("", "at most 40."),
        ("…", "at most 40."),
        ("a" * 41, "at most 40."),
        ("a\x1b[31m\n", "such as 'a-31m'."),
    ],
)
def test_odd_names_are_refused(name: str, hint: str, tmp_path: Path) -> None:
    sentence = refused("new", "probe", "--into", tmp_path, "--", name)
    assert "is no name for a probe: give small letters" in sentence
    assert sentence.endswith(hint)
    assert sentence.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("scenario", "rs4", "There is a scenario 'rs4' already"),
        ("objective", "mae", "There is an objective 'mae' already"),
        ("dataset", "aid", "There is a dataset 'aid' already"),
        ("probe", "features", "its class Features would hide another Features"),
        ("objective", "objective", "its class Objective would hide another"),
        ("strategy", "none", "its class None would hide another"),
        ("strategy", "value-error", "its class ValueError would hide another"),
        ("probe", "numpy", "numpy.py would hide numpy"),
        ("probe", "import", "import.py would hide import"),
        ("dataset", "random", "random.py would hide random"),
    ],
)
def test_names_of_others_are_refused(kind: str, name: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused("new", kind, name, "--into", tmp_path)
    assert not list(tmp_path.iterdir())


def test_class_by_path_in_the_current_folder_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rb.new("probe", "my-probe")
    assert len(rb.new("probe", "my-probe", "other").files) == 3


@pytest.mark.parametrize("name", ["a", "a" * 40])
def test_formatters_change_nothing(name: str, tmp_path: Path) -> None:
    for kind in KINDS:
        rb.new(kind, name, tmp_path / kind)
    for length in ("88", "100"):
        check = [sys.executable, "-m", "ruff", "format", "--isolated", "--check"]
        done = subprocess.run(
            [*check, "--line-length", length, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'probe'"):
        rb.new("probes", "x", tmp_path)  # type: ignore[arg-type]
    assert call("new", "probes", "x").exit_code == 2
