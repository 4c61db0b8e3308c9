"""Writes a skeleton under a new name into a folder of the user."""

import ast
import builtins
import keyword
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from rscl_bench import registry
from rscl_bench.declarations import declarations
from rscl_bench.errors import ArtefactError, SpecError, shown, unknown
from rscl_bench.user_paths import user_path

SkeletonKind = Literal["dataset", "method", "objective", "probe", "scenario", "strategy"]

#: Longer names would make lines that formatters wrap.
_LONGEST = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class WrittenSkeleton(NamedTuple):
    """What was written.

    Attributes:
        files: The files, in the order in which a reader wants to see them.
        commands: Commands that run and test the skeleton, for the current folder.
    """

    files: list[Path]
    commands: list[str]


def write_skeleton(kind: str, name: str, into: str | Path = ".") -> WrittenSkeleton:
    """Write a working component with its TOML and its test; see `rscl_bench.api.new`."""
    if kind not in get_args(SkeletonKind):
        raise unknown("kind of skeleton", kind, get_args(SkeletonKind))
    _check_name(kind, name)
    folder = user_path(into, "The folder")
    contents = _rendered(kind, name)
    code = contents.get(f"{_stem(name)}.py")
    if code is not None:
        _check_identifiers(kind, name, code)
    paths = {folder / file: text for file, text in contents.items()}
    _write(folder, paths)
    return WrittenSkeleton(list(paths), list(_commands(kind, folder, name)))


def _check_name(kind: str, name: str) -> None:
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        humps = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
        near = re.sub(r"[^a-z0-9]+", "-", humps.lower()).strip("-0123456789")
        hint = f", such as '{near}'" if _NAME.fullmatch(near) and len(near) <= _LONGEST else ""
        raise SpecError(
            f"'{shown(name, 60)}' is no name for a {kind}: give small letters, digits and single "
            f"hyphens, beginning with a letter, at most {_LONGEST}{hint}."
        )
    if name in _known(kind):
        raise SpecError(
            f"There is {registry.article(kind)} '{name}' already; choose another name, or read it "
            f"with `rscl-bench show {kind}:{name}`."
        )


def _known(kind: str) -> Iterable[str]:
    if kind == "method":
        return declarations("methods")
    if kind == "scenario":
        return declarations("scenarios")
    plural = next(plural for plural, singular in registry.SINGULAR.items() if singular == kind)
    return registry.entries(plural)


def _stem(name: str) -> str:
    return name.replace("-", "_")


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _rendered(kind: str, name: str) -> dict[str, str]:
    """Return the texts of a skeleton by the names of their files."""
    named = {
        f"{kind}.py": f"{_stem(name)}.py",
        f"{kind}.toml": f"{name}.toml",
        f"test_{kind}.py": f"test_{_stem(name)}.py",
    }
    folder = files(__package__)
    return {
        new: _renamed(folder.joinpath(old).read_text(encoding="utf-8"), name)
        for old, new in named.items()
        if folder.joinpath(old).is_file()
    }


def _renamed(text: str, name: str) -> str:
    for old, new in (
        ("skeleton.py", f"{_stem(name)}.py"),
        ("skeleton", name),
        ("Skeleton", _class_name(name)),
    ):
        text = text.replace(old, new)
    return text


def _check_identifiers(kind: str, name: str, code: str) -> None:
    """Refuse a name whose class or file would hide another of the same name."""
    stem, class_name = _stem(name), _class_name(name)
    reserved = {*dir(builtins), *keyword.kwlist}
    if class_name in reserved or list(_bound(code)).count(class_name) > 1:
        raise SpecError(
            f"'{name}' cannot be the name of this {kind}, because its class {class_name} would "
            f"hide another {class_name}; choose another name."
        )
    if stem in reserved or stem in sys.stdlib_module_names or _is_installed(stem):
        raise SpecError(
            f"'{name}' cannot be the name of this {kind}, because {stem}.py would hide {stem} of "
            "Python or of a package; choose another name."
        )


def _bound(code: str) -> Iterator[str]:
    """Yield every name that a file imports or defines, as often as it does."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name


def _is_installed(module: str) -> bool:
    """Return whether a module can be imported from elsewhere than the current folder."""
    spec = find_spec(module)
    return spec is not None and not (spec.origin and Path(spec.origin).parent == Path.cwd())


def _write(folder: Path, texts: dict[Path, str]) -> None:
    """Write all files, or none where one exists or cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is no folder; choose another with --into.")
    written: list[Path] = []
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in texts:
            if path.is_symlink() or path.exists():
                raise FileExistsError
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except BaseException as error:
        for done in written:
            done.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise ArtefactError(
                f"{path} exists and is not replaced; choose another name, or another folder with "
                "--into."
            ) from error
        if isinstance(error, OSError):
            raise ArtefactError(
                f"{path} cannot be written ({error.strerror or error}); choose another folder with "
                "--into."
            ) from error
        raise


def _commands(kind: str, folder: Path, name: str) -> Iterator[str]:
    toml = folder / f"{name}.toml"
    given = shlex.quote(str(toml) if toml.is_absolute() or folder != Path() else f"./{toml}")
    if kind in ("method", "objective", "strategy"):
        yield f"rscl-bench run --scenario scene4 --method {given}"
    else:
        yield f"rscl-bench run --scenario {given} --method finetune"
    yield f"pytest {shlex.quote(str(folder / f'test_{_stem(name)}.py'))}"
