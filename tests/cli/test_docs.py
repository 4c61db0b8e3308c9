"""Every page of the documentation: links, commands, names of tests and files, generated tables."""

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call
from helpers.pages import (
    CARDS,
    PAGES,
    anchors,
    code_blocks,
    commands,
    page_id,
    read,
    write_examples,
)
from helpers.paths import ROOT
from typer.main import get_command

import rscl_bench
from rscl_bench import catalogue, registry
from rscl_bench.cli import app
from rscl_bench.declarations import declarations, load_method, load_scenario
from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.page.index import index_page
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.results.schema import RunRecord

every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


# All pages


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if "://" not in target:
            file = page.parent / target if target else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), anchor


@every_page
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, function in re.findall(r"`tests/([\w/]*test_\w+\.py)(?:::(\w+))?", text):
        path = ROOT / "tests" / name
        assert path.is_file(), name
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, f"{name}::{function}"


@every_page
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:rscl_bench|docs|methods|scenarios|benchmarks)/[\w./-]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert set(options) <= known | {"--help"}, words


@every_page
def test_runs_in_commands_resolve(page: Path, examples: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        options = dict(pairwise(words))
        scenario, method = options.get("--scenario"), options.get("--method")
        if words[0] != "run" or scenario is None or method is None or "PATH" in words:
            continue
        scenario, method = (
            str(examples / name) if name.endswith(".toml") else name for name in (scenario, method)
        )
        settings = [after for word, after in pairwise(words) if word == "--set"]
        resolve_run(
            load_scenario(scenario),
            load_method(method),
            options.get("--protocol"),
            overrides=parse_assignments(settings),
        )


@every_page
def test_python_interface_has_the_shown_names(page: Path) -> None:
    for block in code_blocks(page.read_text(encoding="utf-8")):
        if block.language == "python" and "import rscl_bench as rb" in block.code:
            shown = re.findall(r"\brb\.(\w+)", block.code)
            assert set(shown) <= set(rscl_bench.__all__)


@every_page
def test_tables_of_components_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert catalogue.updated(text) == text, "python -m rscl_bench.catalogue README.md docs/*.md"


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "docs"], ids=page_id)
def test_page_begins_with_what_it_is_for(page: Path) -> None:
    title, first = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert title.startswith("# ")
    assert re.match(r"[A-Z`].{40,}", " ".join(first.split())), first


# Generated tables


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_table_has_every_component(kind: Any) -> None:
    names = declarations(kind) if kind in ("scenarios", "methods") else registry.entries(kind)
    words = re.findall(r"[\w-]+", catalogue.markdown(kind))
    assert set(names) <= set(words)


def test_page_is_updated_between_its_markers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- list backbones -->\nold\n<!-- end -->\n\nafter\n")
    catalogue.main([str(page)])
    table = catalogue.markdown("backbones")
    markers = f"<!-- list backbones -->\n\n{table}\n<!-- end -->"
    assert page.read_text() == f"before\n\n{markers}\n\nafter\n"
    assert capsys.readouterr().out == f"{page}\n"
    catalogue.main([str(page)])
    assert capsys.readouterr().out == ""


def test_unknown_kind_of_table_is_refused() -> None:
    with pytest.raises(SpecError, match="did you mean 'probes'"):
        catalogue.markdown("probe")


# Cards


@pytest.mark.parametrize("name", declarations("methods"))
def test_method_has_a_card(name: str) -> None:
    cards = [card.read_text(encoding="utf-8") for card in CARDS]
    assert any(f"`{name}.toml`" in card for card in cards)


@pytest.mark.parametrize("name", declarations("scenarios"))
def test_scenario_has_a_card(name: str) -> None:
    assert (ROOT / "scenarios" / f"{name}.md").is_file()


@pytest.mark.parametrize("card", CARDS, ids=page_id)
def test_settings_of_a_card_change_its_recipe(card: Path) -> None:
    scenario, method = load_scenario("rs4"), load_method(card.stem)
    plain = resolve_run(scenario, method)
    settings = re.findall(r"`--set ([^`]+)`", card.read_text(encoding="utf-8"))
    assert settings or card.stem == "finetune"
    for setting in settings:
        changed = resolve_run(scenario, method, overrides=parse_assignments([setting]))
        assert (changed.method, changed.protocol) != (plain.method, plain.protocol), setting


# Single pages


def test_readme_installs_and_runs_in_one_line() -> None:
    assert (
        "python -m venv .venv && . .venv/bin/activate && pip install . && "
        "rscl-bench run --scenario rs4 --method cosmae\n" in read("README.md")
    )


@pytest.mark.slow
def test_readme_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [b.code for b in code_blocks(read("README.md")) if b.language == "python"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["record"].seconds.total > 0
    assert f"torch.Size([2, {names['encoder'].feature_dim}])" in capsys.readouterr().out
    assert len(names["table"]) == 24  # untrained and 2 tasks, 2 probes, 2 splits, 2 scores
    assert list(tmp_path.glob("runs/leaderboards/**/leaderboard.md"))


def test_contributing_page_names_the_checks() -> None:
    checks = "pytest && ruff check . && ruff format --check . && mypy\n"
    assert checks in read("CONTRIBUTING.md")


def test_readme_recipe_is_the_tested_one(examples: Path) -> None:
    recipes = [b.code for b in code_blocks(read("README.md")) if b.language == "toml"]
    assert (examples / "mine.toml").read_text(encoding="utf-8") in recipes


def test_architecture_page_names_every_part() -> None:
    text, package = read("docs", "architecture.md"), ROOT / "rscl_bench"
    folders = [f"{init.parent.name}/" for init in package.glob("*/__init__.py")]
    modules = [module.name for module in package.glob("[!_]*.py")]
    engine = [module.stem for module in (package / "engine").glob("[!_]*.py")]
    for name in [*(f"rscl_bench/{part}" for part in (*folders, *modules)), *engine]:
        assert f"`{name}`" in text, name


def test_results_page_has_every_field_of_a_record() -> None:
    text = read("docs", "results.md")
    for name in RunRecord.model_fields:
        assert f"`{name}`" in text, name


@pytest.mark.parametrize(
    "scenario",
    [
        # Intervals of scene4 are stored; those of the others are computed from packed scores.
        folder.name
        if folder.name == "scene4"
        else pytest.param(folder.name, marks=pytest.mark.slow)
        for folder in sorted((ROOT / "leaderboards" / "records").iterdir())
    ],
)
def test_published_tables_equal_those_built_from_the_records(scenario: str, tmp_path: Path) -> None:
    published = ROOT / "leaderboards"
    result = call("leaderboard", "build", published / "records" / scenario, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    built = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    built.remove(Path("index.html"))  # lists the tables of one scenario alone
    assert {path.name for path in built} >= {"index.html", "leaderboard.md", "leaderboard.csv"}
    for name in built:
        assert (published / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_published_list_of_tables_is_up_to_date() -> None:
    published = ROOT / "leaderboards"
    assert (published / "index.html").read_text(encoding="utf-8") == index_page(published)
