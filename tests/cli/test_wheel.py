"""An installed wheel prints the same as the checkout, from any working directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.cli import records_in
from helpers.paths import ROOT

LIST = (
    "import rscl_bench, sys; from rscl_bench.cli import main; sys.argv = sys.argv[:1] + {}; main()"
)
WHERE = "import rscl_bench; print(rscl_bench.__file__)"
#: Modules of the extras `dev` and `docs` that nothing else needs.
TOOLS = ["build", "hatchling", "hypothesis", "mkdocs", "mypy", "pytest", "webdataset", "xdist"]
MINI = (
    "import os, sys; os.environ.pop('RSCL_DATA_ROOT', None); os.environ['RSCL_CACHE'] = 'cache'; "
    "sys.modules.update(dict.fromkeys({tools})); from rscl_bench.cli import main; "
    "sys.argv = ['rscl-bench', *{arguments}]; main()"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    return target


def python(code: str, cwd: Path, first: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(first)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_declarations_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for kind in ("scenarios", "methods"):
        for path in (ROOT / kind).glob("*.toml"):
            assert f"rscl_bench/_declarations/{kind}/{path.name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"rscl_bench"}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "rscl_bench").rglob("*.py")}
    assert sources <= set(names)
    assert "rscl_bench/archives/splits/ucmerced-multilabel.csv" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_the_embedded_images_and_is_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    embedded = {name: size for name, size in sizes.items() if "/embedded/" in name}
    files = [path for path in (ROOT / "rscl_bench" / "embedded").rglob("*") if path.is_file()]
    assert set(embedded) == {path.relative_to(ROOT).as_posix() for path in files}
    for folder, file in (
        ("hit-uav", "LICENSE"),
        ("hit-uav", "about.toml"),
        ("ucmerced", "about.toml"),
    ):
        assert f"rscl_bench/embedded/{folder}/{file}" in embedded
    assert sum(embedded.values()) < 8_000_000
    assert wheel.stat().st_size < 10_000_000


def test_installed_wheel_runs_mini_without_the_test_tools(installed: Path, tmp_path: Path) -> None:
    """No data root is set, and no package of the extras can be imported."""
    arguments = ["run", "--scenario", "mini", "--method", "cosmae", "--device", "cpu"]
    quick = ["--set", "training.epochs=1", "--set", "training.warmup_epochs=0"]
    code = MINI.format(tools=TOOLS, arguments=[*arguments, *quick])
    printed = python(code, tmp_path, installed)
    assert printed.startswith("The real images of mini are part of rscl-bench")
    assert "forgetting: " in printed
    (record,) = records_in(tmp_path / "runs")
    assert record.identity.edition == "real"


@pytest.mark.parametrize("command", [["list"], ["show", "rs4"], ["show", "cosmae"], ["--help"]])
def test_wheel_prints_the_same_as_the_checkout(
    command: list[str], installed: Path, tmp_path: Path
) -> None:
    assert str(installed) in python(WHERE, tmp_path, installed)
    assert str(ROOT) in python(WHERE, tmp_path, ROOT)
    code = LIST.format(command)
    assert python(code, tmp_path, installed) == python(code, tmp_path, ROOT)
