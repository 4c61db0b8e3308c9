"""The documentation's examples run as they stand, and its statements about the registry hold."""

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.cli import ONE_EPOCH, call, records_in, refused
from helpers.paths import ROOT
from typer.main import get_command

from rscl_bench import registry
from rscl_bench.cli import app
from rscl_bench.declarations import declarations, load_method, load_scenario
from rscl_bench.registry import Entry
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.results.schema import RunRecord

PAGES = sorted(
    path
    for folder in (".", "docs", "methods", "scenarios", "leaderboards")
    for path in (ROOT / folder).glob("*.md")
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return the line before each fenced block, its language and its content."""
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rsplit("\n", 1)[-1]
        found.append((before, match[1], match[2]))
    return found


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of docs/extending.md."""
    folder = tmp_path_factory.mktemp("examples")
    for before, _, content in blocks(read("docs", "extending.md")):
        if match := re.fullmatch(r"`(\w+\.(?:py|toml))`:", before):
            (folder / match[1]).write_text(content, encoding="utf-8")
        elif match := re.search(r"At the end of `(\w+\.toml)`:$", before):
            path = folder / match[1]
            extended = path.with_name(f"{path.stem}-extended.toml")
            extended.write_text(path.read_text(encoding="utf-8") + content, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "docs-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def run(out: Path, scenario: Path, method: Path | str, *changes: str) -> RunRecord:
    settings = [text for change in changes for text in ("--set", change)]
    arguments = ("--scenario", scenario, "--method", method, "--out", out, *ONE_EPOCH)
    result = call("run", *arguments, *settings)
    assert result.exit_code == 0, result.output
    (record,) = records_in(out)
    return record


def method_of(record: RunRecord) -> Any:
    return record.identity.method


def losses(record: RunRecord) -> list[float]:
    found = [task.final_loss for task in record.tasks if task.final_loss is not None]
    assert len(found) == len(record.tasks)
    return found


# docs/extending.md


def test_method_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "mine", examples / "stripes.toml", examples / "mine.toml")
    assert method_of(record)["objective"]["mask_ratio"] == 0.6
    assert method_of(record)["strategies"][0]["alpha"] == 1.0
    other = run(
        tmp_path / "set",
        examples / "stripes.toml",
        examples / "mine.toml",
        "strategies.data-mixup.alpha=0.4",
    )
    assert method_of(other)["strategies"][0]["alpha"] == 0.4
    assert losses(other)[0] == losses(record)[0]
    assert losses(other)[1] != losses(record)[1]


def test_dataset_and_probe_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path, examples / "stripes-extended.toml", "finetune")
    assert record.identity.scenario.name == "stripes"
    assert [task.tiles for task in record.tasks] == [24, 24]
    assert [probe.name for probe in record.probes] == ["stripes", "stripes-ridge"]
    assert {probe.labels for probe in record.probes} == {2}
    assert record.probes[1].probe.startswith("ridge.py:RidgeProbe@")
    knn, ridge = ([row[p.name].test for row in record.scores] for p in record.probes)
    assert knn != ridge
    broken = examples / "stripes-broken.toml"
    text = (examples / "stripes-extended.toml").read_text(encoding="utf-8")
    broken.write_text(text.replace("penalty = 0.1", "penalty = 0"), encoding="utf-8")
    arguments = ("--scenario", broken, "--method", "finetune", "--out", tmp_path)
    assert "'penalty': Input should be greater than 0, got" in refused("run", *arguments)


def test_objective_example(examples: Path, tmp_path: Path) -> None:
    scenario, method = examples / "stripes.toml", examples / "denoise.toml"
    records = [
        run(tmp_path / sigma, scenario, method, f"objective.sigma={sigma}")
        for sigma in ("0.3", "0.2")
    ]
    assert method_of(records[0])["objective"]["name"].startswith("denoise.py:Denoise@")
    assert losses(records[0])[0] != losses(records[1])[0]
    plain = run(
        tmp_path / "plain",
        scenario,
        method,
        "objective.sigma=0.3",
        "strategies.model-mixup.beta=0",
    )
    assert losses(plain)[0] == losses(records[0])[0]
    assert losses(plain)[1] < losses(records[0])[1], "the distillation adds to the loss"


def test_strategy_example(examples: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", examples / "stripes.toml", "finetune")
    anchored = run(tmp_path / "anchored", examples / "stripes.toml", examples / "anchor.toml")
    assert losses(anchored)[0] == losses(plain)[0]
    assert losses(anchored)[1] > losses(plain)[1]


def test_unknown_parameter_of_an_example(examples: Path) -> None:
    sentence = refused(
        "run",
        *("--scenario", examples / "stripes.toml", "--method", examples / "denoise.toml"),
        *("--set", "objective.sigme=1"),
    )
    assert "did you mean 'sigma'?" in sentence


def load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_contracts_example(examples: Path, tmp_path: Path) -> None:
    module = load_file(examples / "test_extensions.py")
    module.test_stripes(tmp_path)
    module.test_denoise()
    module.test_anchor()
    module.test_ridge()


def package_block() -> dict[str, Any]:
    (content,) = [
        content
        for before, _, content in blocks(read("docs", "extending.md"))
        if before.startswith("`pyproject.toml` of that package")
    ]
    return tomllib.loads(content)


def install(folder: Path, module: Path, name: str = "my-package") -> Path:
    """Lay out what an installer makes of the example package; return its place on the path."""
    site = folder / f"site-{name}"
    package = site / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "anchor.py").write_bytes(module.read_bytes())
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
    )
    points = package_block()["project"]["entry-points"]
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site


def test_entry_point_example(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(tmp_path, examples / "anchor.py")
    recipe = tmp_path / "named.toml"
    text = (examples / "anchor.toml").read_text(encoding="utf-8")
    recipe.write_text(text.replace("anchor.py:Anchor", "anchor"), encoding="utf-8")
    assert "Unknown strategy 'anchor'" in refused("show", recipe)
    command = [sys.executable, "-m", "rscl_bench.cli", "list"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(site)}
    )
    assert re.search(r"^  anchor +from package my-package$", done.stdout, re.MULTILINE)

    monkeypatch.syspath_prepend(site)
    anchored = run(
        tmp_path / "runs", examples / "stripes.toml", recipe, "strategies.anchor.weight=5"
    )
    assert method_of(anchored)["strategies"] == [{"name": "anchor", "weight": 5.0}]
    by_path = run(tmp_path / "path", examples / "stripes.toml", examples / "anchor.toml")
    assert losses(by_path)[0] == losses(anchored)[0]
    assert losses(by_path)[1] != losses(anchored)[1]


def test_two_packages_with_one_name(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-package", "your-package"):
        monkeypatch.syspath_prepend(install(tmp_path, examples / "anchor.py", name))
    assert "Two packages offer the strategy 'anchor'" in refused("list")


def test_registry_line() -> None:
    (content,) = [
        content
        for _, language, content in blocks(read("docs", "extending.md"))
        if language == "python" and content.startswith('"anchor": Entry')
    ]
    lines = eval("{" + content + "}", {"Entry": Entry})  # as it would stand in the table
    assert isinstance(lines["anchor"], Entry)
    assert lines["anchor"].target == "rscl_bench.strategies.anchor:Anchor"


# All pages


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_tests_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, function in re.findall(r"`tests/(test_\w+\.py)(?:::(\w+))?`", text):
        path = ROOT / "tests" / name
        assert path.is_file(), name
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, f"{name}::{function}"
    for name in re.findall(r"`((?:rscl_bench|docs|methods|scenarios|benchmarks)/[\w./-]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name


def commands(text: str) -> list[list[str]]:
    """Return every ``rscl-bench`` command of a page's console blocks, and of its inline code."""
    lines = [
        line for _, language, c in blocks(text) if language == "console" for line in c.split("\n")
    ]
    parts = [part for line in lines for part in line.split("&&")]
    inline = re.findall(r"`(rscl-bench [^`]+)`", text)
    found = [shlex.split(part, comments=True) for part in [*parts, *inline]]
    return [words[1:] for words in found if words[:1] == ["rscl-bench"]]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_are_commands(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert set(options) <= known | {"--help"}, words


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_name_what_exists(page: Path, examples: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        named = dict(pairwise(words))
        scenario, method = named.get("--scenario"), named.get("--method")
        if words[0] != "run" or scenario is None or method is None or "PATH" in words:
            continue
        spec = [
            str(examples / name) if name.endswith(".toml") else name for name in (scenario, method)
        ]
        changes = [after for word, after in pairwise(words) if word == "--set"]
        resolve_run(
            load_scenario(spec[0]),
            load_method(spec[1]),
            named.get("--protocol"),
            overrides=parse_assignments(changes),
        )


# Cards


@pytest.mark.parametrize("name", declarations("methods"))
def test_method_has_a_card(name: str) -> None:
    cards = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "methods").glob("*.md"))]
    assert any(re.search(rf"`{name}\.toml`", card) for card in cards)


@pytest.mark.parametrize("card", sorted((ROOT / "methods").glob("*.md")), ids=page_id)
def test_settings_of_a_card_are_settings(card: Path) -> None:
    """Every ``--set`` of a card is valid for the recipe of its name and changes what it says."""
    text = card.read_text(encoding="utf-8")
    scenario = load_scenario("rs4")
    method = load_method(card.stem)
    plain = resolve_run(scenario, method)
    settings = re.findall(r"`--set ([^`]+)`", text)
    assert settings or card.stem == "finetune"
    for setting in settings:
        changed = resolve_run(scenario, method, overrides=parse_assignments([setting]))
        assert (changed.method, changed.protocol) != (plain.method, plain.protocol), setting


# docs/data.md


@pytest.mark.parametrize("name", registry.entries("datasets"))
def test_data_page_has_every_dataset(name: str) -> None:
    adapter = registry.load("datasets", name)
    text = read("docs", "data.md")
    (section,) = re.findall(
        rf"^## {re.escape(name)}: .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    flat = " ".join(section.split())
    for needed in (adapter.title, adapter.source, adapter.licence, f"`{adapter.folder}/`"):
        assert needed in flat, needed
    assert " ".join(adapter.layout.split()) in flat.replace("`", "")
    for split in adapter.splits:
        assert f"`{split}`" in flat, split
    for option in adapter.Options.model_fields:
        assert f"`options.{option}`" in flat, option


# README.md


def test_readme_has_two_commands() -> None:
    text = read("README.md")
    assert (
        "python -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]' && "
        "rscl-bench run --scenario rs4 --method cosmae" in text
    )
    assert "pytest && ruff check . && ruff format --check . && mypy" in text


def test_readme_names_every_scenario_and_method() -> None:
    text = read("README.md")
    for name in [*declarations("scenarios"), *declarations("methods")]:
        assert f"`{name}`" in text, name


# docs/results.md


def test_results_page_has_every_field_of_a_record() -> None:
    text = read("docs", "results.md")
    for name in RunRecord.model_fields:
        assert f"`{name}`" in text, name


def test_readme_recipe_is_the_tested_one(examples: Path) -> None:
    (recipe,) = [c for _, language, c in blocks(read("README.md")) if language == "toml"]
    assert recipe == (examples / "mine.toml").read_text(encoding="utf-8")


# leaderboards


def test_published_tables_are_what_the_records_give(tmp_path: Path) -> None:
    published = ROOT / "leaderboards"
    # Scores of images are not published, only the intervals that were computed from them.
    for path in published.rglob("image-intervals.jsonl"):
        kept = tmp_path / path.relative_to(published)
        kept.parent.mkdir(parents=True)
        shutil.copy(path, kept)
    result = call("leaderboard", "build", published / "records", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    built = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(built) >= 4
    for name in built:
        assert (published / name).read_bytes() == (tmp_path / name).read_bytes(), name
