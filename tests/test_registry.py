import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective
from rscl_bench.probes.base import BaseProbe
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Strategy

BASES: dict[registry.Kind, Any] = {
    "objectives": Objective,
    "strategies": Strategy,
    "probes": BaseProbe,
    "datasets": DatasetAdapter,
    "backbones": Encoder,
}
NAMES = [(kind, name) for kind in registry.BUILTIN for name in registry.BUILTIN[kind]]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_name_is_what_it_claims(kind: registry.Kind, name: str) -> None:
    loaded = registry.load(kind, name)
    assert issubclass(loaded, BASES[kind])
    assert not inspect.isabstract(loaded)
    if kind == "datasets":
        assert loaded.name == name
    else:
        assert issubclass(loaded.Params, Spec)
    summary = registry.entries(kind)[name].summary
    assert 10 < len(summary) < 80
    assert not summary.endswith(".")


@pytest.mark.parametrize("kind", registry.BUILTIN)
def test_every_component_is_registered(kind: registry.Kind) -> None:
    """A component without a line could not be used by name.

    A variant of a registered dataset is reached through that dataset's options.
    """
    folders: dict[registry.Kind, str] = {"datasets": "archives", "backbones": "models"}
    folder = folders.get(kind, kind)
    registered = {entry.target for entry in registry.BUILTIN[kind].values()}
    defined = set()
    package = Path(registry.__file__).parent
    for path in (package / folder).rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        module = ".".join(("rscl_bench", *parts)).removesuffix(".__init__")
        for attribute, value in vars(importlib.import_module(module)).items():
            if inspect.isclass(value) and issubclass(value, BASES[kind]) and complete(kind, value):
                defined |= {f"{module}:{attribute}"} if value.__module__ == module else set()
    variants = {target for target in defined - registered if is_variant(target, registered)}
    assert defined - variants == registered


def is_variant(target: str, registered: set[str]) -> bool:
    module, _, attribute = target.partition(":")
    component: type = getattr(importlib.import_module(module), attribute)
    bases = {f"{base.__module__}:{base.__qualname__}" for base in component.__mro__[1:]}
    return issubclass(component, DatasetAdapter) and bool(bases & registered)


def complete(kind: registry.Kind, component: type) -> bool:
    """Return whether a class is no base class of components."""
    declared = "name" if kind == "datasets" else "Params"
    return hasattr(component, declared) and not inspect.isabstract(component)


@pytest.mark.parametrize("kind", registry.BUILTIN)
def test_entries_are_sorted(kind: registry.Kind) -> None:
    assert list(registry.entries(kind)) == sorted(registry.entries(kind))


@pytest.mark.parametrize(
    ("kind", "name", "nearest"),
    [
        ("objectives", "maee", "mae"),
        ("strategies", "model_mixup", "model-mixup"),
        ("probes", "mlknn", "ml-knn"),
        ("datasets", "uc-merced", "ucmerced"),
        ("backbones", "ViT", None),
        ("datasets", "landsat", None),
    ],
)
def test_unknown_name_has_a_hint(kind: registry.Kind, name: str, nearest: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        registry.load(kind, name)
    sentence = str(caught.value)
    assert f"Unknown {kind.removesuffix('s').replace('strategie', 'strategy')} '{name}'" in sentence
    assert (f"did you mean '{nearest}'?" in sentence) == (nearest is not None)
    assert ("did you mean" in sentence) == (nearest is not None)
    assert all(f" {known}" in sentence for known in registry.entries(kind))


# Paths.


STRATEGY = """from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Strategy


class {name}(Strategy):
    Params = Spec
    {line}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_strategy(path: Path, name: str = "Mine", line: str = "pass") -> Path:
    return write(path, STRATEGY.format(name=name, line=line))


def test_path_gives_the_class(tmp_path: Path) -> None:
    file = write_strategy(tmp_path / "mine.py", "First")
    write(file, file.read_text(encoding="utf-8") + "\n\nclass Second(First):\n    pass\n")
    first, second = (registry.load("strategies", f"{file}:{name}") for name in ("First", "Second"))
    assert issubclass(second, first), "the file must be executed once, not once per name"
    assert sys.modules[first.__module__].__file__ == str(file)


def test_files_of_one_name_are_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_strategy(tmp_path / folder / "mine.py", line=f"folder = '{folder}'")
    references = [f"{tmp_path / folder / 'mine.py'}:Mine" for folder in ("a", "b")]
    assert [registry.load("strategies", name).folder for name in references] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "names a file that does not exist"),
        ("class Other:\n    pass\n", "defines no 'Mine'; write mine.py:NAME_OF_THE_CLASS."),
        ("class Mine(:\n", "cannot be imported: "),
        ("import not_a_module_at_all\n", "cannot be imported: No module named"),
    ],
)
def test_path_that_cannot_be_used(content: str | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    if content is not None:
        write(file, content)
    before = set(sys.modules)
    with pytest.raises(SpecError) as caught:
        registry.load("strategies", f"{file}:Mine")
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)
    if content is None or "Other" not in content:
        assert not {name for name in set(sys.modules) - before if name.startswith("rscl_bench")}


def test_fault_in_a_file_is_not_hidden(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        registry.load("strategies", f"{file}:Mine")
    write_strategy(file)
    assert registry.load("strategies", f"{file}:Mine").__name__ == "Mine"


def test_path_leaves_sys_path_alone(tmp_path: Path) -> None:
    file = write_strategy(tmp_path / "mine.py", line="path = list(__import__('sys').path)")
    before = list(sys.path)
    assert registry.load("strategies", f"{file}:Mine").path == before
    assert sys.path == before
    assert "mine" not in sys.modules


def test_working_directory_is_never_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.py", "class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="Unknown objective 'mine:Mine'"):
        registry.load("objectives", "mine:Mine")
    with pytest.raises(SpecError, match="Unknown objective 'mine'"):
        registry.load("objectives", "mine")


# Wrong kinds.


@pytest.mark.parametrize("kind", registry.BUILTIN)
@pytest.mark.parametrize(
    "line", ["class Mine:\n    pass\n", "def Mine():\n    pass\n", "Mine = 1\n"]
)
def test_wrong_kind_is_one_sentence(kind: registry.Kind, line: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", line)
    base = registry.load(kind, next(iter(registry.BUILTIN[kind]))).__mro__
    with pytest.raises(SpecError, match=r"mine.py:Mine' is not an? ") as caught:
        registry.load(kind, f"{file}:Mine")
    named = str(caught.value).split("derives from ")[1].rstrip(".")
    assert named in [f"{parent.__module__}.{parent.__name__}" for parent in base]


@pytest.mark.parametrize("kind", registry.BUILTIN)
def test_component_of_another_kind_is_refused(kind: registry.Kind, tmp_path: Path) -> None:
    file = write_strategy(tmp_path / "mine.py")
    if kind != "strategies":
        with pytest.raises(SpecError, match=r"mine.py:Mine' is not an? "):
            registry.load(kind, f"{file}:Mine")


def test_incomplete_class_is_one_sentence() -> None:
    with (
        registry.registered("objectives", Objective) as name,
        pytest.raises(SpecError, match=r"'Objective' is incomplete: .* forward, Params\.$"),
    ):
        registry.load("objectives", name)


def test_class_has_a_name_within_the_block_only(tmp_path: Path) -> None:
    mine = registry.load("strategies", f"{write_strategy(tmp_path / 'mine.py')}:Mine")
    with registry.registered("strategies", mine) as name:
        assert name == "Mine"
        assert registry.load("strategies", name) is mine
    with pytest.raises(SpecError, match="Unknown strategy 'Mine'"):
        registry.load("strategies", "Mine")
    with registry.registered("strategies", "ewc") as name:
        assert name == "ewc"


def test_listing_imports_no_base_class() -> None:
    code = "import sys; from rscl_bench import registry as r; [r.entries(k) for k in r.BUILTIN]"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Entry points.


class Package:
    name = "other-package"


def offer(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Make other packages offer strategies."""

    class Point:
        dist: Any = Package

        def __init__(self, name: str, value: str):
            self.name, self.value = name, value

    def entry_points(*, group: str) -> list[Point]:
        return [Point(*point) for point in points] if group == "rscl_bench.strategies" else []

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_entry_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("theirs", "rscl_bench.strategies.data_mixup:DataMixup"))
    assert registry.entries("strategies")["theirs"].summary == "from package other-package"
    assert registry.load("strategies", "theirs") is registry.load("strategies", "data-mixup")
    assert "theirs" not in registry.entries("objectives")


@pytest.mark.parametrize("names", [("data-mixup",), ("theirs", "theirs")])
def test_two_packages_with_one_name_are_refused(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *((name, f"package{n}:Class") for n, name in enumerate(names)))
    with pytest.raises(SpecError) as caught:
        registry.entries("strategies")
    assert f"Two packages offer the strategy '{names[-1]}'" in str(caught.value)
    assert f"package{len(names) - 1}:Class" in str(caught.value)


@pytest.mark.parametrize("value", ["not_a_module_at_all:Class", "rscl_bench.errors:NoSuchClass"])
def test_entry_point_that_cannot_be_imported(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("theirs", value))
    registry.entries("strategies")  # naming it imports nothing
    with pytest.raises(SpecError, match=f"'theirs' \\({value}\\) cannot be imported"):
        registry.load("strategies", "theirs")


def test_portable_tells_code_apart_and_not_folders(tmp_path: Path) -> None:
    one, other = tmp_path / "one" / "mine.py", tmp_path / "other" / "mine.py"
    for path in (one, other):
        path.parent.mkdir()
        path.write_text("class Mine: ...\n")
    name = registry.portable(f"{one}:Mine")
    assert name.startswith("mine.py:Mine@")
    values = {"strategies": [{"name": f"{other}:Mine", "title": f"{other}:Mine"}, 1, "mae"]}
    assert registry.portable(values) == {
        "strategies": [{"name": name, "title": f"{other}:Mine"}, 1, "mae"]
    }
    one.write_text("class Mine: x = 1\n")
    assert registry.portable(f"{one}:Mine") != name
