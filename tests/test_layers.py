"""Imports go downwards only; see docs/architecture.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rscl_bench

PACKAGE = Path(rscl_bench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

#: From the top. A part may import what is below it and its own kind, nothing beside or above.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("skeletons",),
    ("catalogue", "console", "explain", "plots", "testing"),
    ("parameters",),
    ("encoders", "sweeps", "submissions"),
    ("engine",),
    ("leaderboards",),
    ("results",),
    ("strategies",),
    ("objectives", "pretrained", "probes"),
    ("models", "tiles", "views"),
    ("archives",),
    ("atomic", "randomness", "avalanche_api", "scratch"),
    ("resolve", "studies"),
    ("declarations",),
    ("encoder_bands",),
    ("sensor_table", "spec"),
    ("registry", "sensors"),
    ("user_paths",),
    ("canonical", "cores", "errors", "interruption", "output", "progress"),
)
LEVEL = {part: level for level, parts in enumerate(reversed(LAYERS)) for part in parts}


def part_of(module: Path) -> str:
    inside = module.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imported(module: Path) -> Iterator[str]:
    """Yield the parts of this package that a module imports, wherever in it it does so."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "rscl_bench" and rest:
                yield rest[0]


def test_every_part_has_a_layer() -> None:
    assert {part_of(module) for module in MODULES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(module: Path) -> None:
    part = part_of(module)
    for other in imported(module):
        if part == "__init__":
            assert other == "api"
            continue
        if other == "__version__" or other == part:
            continue
        assert LEVEL[other] < LEVEL[part], f"{part} imports {other}"


def test_avalanche_is_imported_in_one_place() -> None:
    found = {
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        if any(
            name.split(".")[0] == "avalanche"
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        )
    }
    assert found == {"avalanche_api.py"}


def test_results_and_probes_need_no_training_library() -> None:
    """Tables are built, and probes are fitted, without torch."""
    script = (
        "import sys, rscl_bench.leaderboards.build, rscl_bench.probes.ml_knn\n"
        "print([n for n in ('torch', 'avalanche', 'lightning', 'timm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_architecture_page_shows_the_layers() -> None:
    page = PACKAGE.parent.joinpath("docs", "architecture.md").read_text(encoding="utf-8")
    assert " → ".join(", ".join(parts) for parts in LAYERS) in page.splitlines()
