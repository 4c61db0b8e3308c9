"""The recipe and the code of a run, as its record names them."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.schema import RunRecord

_REFERENCE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*\.py):([A-Za-z_][\w.]*)@([0-9a-f]{12})")
#: Folder of the code, as seen from a recipe in a bundle.
_FOLDER = "../../components"


class CodeFile(NamedTuple):
    """A file of code that a record names.

    Attributes:
        file: Name of the file.
        digits: First 12 digits of its SHA-256.
    """

    file: str
    digits: str

    @property
    def name(self) -> str:
        """Name of the file in a bundle."""
        return f"components/{self.digits}/{self.file}"


def code_files(record: RunRecord) -> list[CodeFile]:
    """Return the files of code that a record names, sorted."""
    values = [record.identity.method, record.identity.protocol]
    texts = [*_texts(values), *(probe.probe for probe in record.probes)]
    found = [match for text in texts if (match := _REFERENCE.fullmatch(text))]
    return sorted({CodeFile(match[1], match[3]) for match in found})


def is_content(code: CodeFile, content: bytes) -> bool:
    """Return whether a file has the digest that a record names."""
    return sha256(content).hexdigest()[: len(code.digits)] == code.digits


def recipe_toml(record: RunRecord) -> str:
    """Return the resolved recipe of a run as TOML.

    Paths to code lead into the folder ``components`` of a bundle. Parameters without a value are
    left out, as TOML has no null.
    """

    def path(text: str) -> str:
        match = _REFERENCE.fullmatch(text)
        return f"{_FOLDER}/{match[3]}/{match[1]}:{match[2]}" if match else text

    method = _mapped(_without_null(record.identity.method), path)
    lines = [f"{_key(key)} = {_value(value)}" for key, value in method.items() if _is_plain(value)]
    for key, value in method.items():
        if isinstance(value, dict):
            lines += ["", f"[{_key(key)}]", *_assignments(value)]
        elif not _is_plain(value):
            for item in value:
                lines += ["", f"[[{_key(key)}]]", *_assignments(item)]
    return "\n".join(lines) + "\n"


def check_recipe(path: Path, record: RunRecord) -> None:
    """Check that a file is the recipe of a record.

    Raises:
        ArtefactError: If it is not.
    """
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path.name} is no TOML ({shown(str(error))}).") from error
    if own != tomllib.loads(recipe_toml(record)):
        raise ArtefactError(
            f"The recipe {path.name} of run {record.id} is not the one in the field "
            "'identity.method' of its record; pack the run again."
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null(item) for item in value if item is not None]
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value


def _is_plain(value: Any) -> bool:
    """Return whether a value stands on the line of its key: no table, no list of tables."""
    tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    return not isinstance(value, dict) and not tables


def _assignments(table: dict[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(_assignments(value))} }}" if value else "{}"
    # Texts, whole numbers and truth values are written as in JSON, and so are finite floats.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
