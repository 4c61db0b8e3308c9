"""Describes datasets in Markdown, from the class attributes of their adapters."""

from collections.abc import Iterator
from contextlib import suppress
from textwrap import fill

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.errors import SpecError

_WIDTH = 100


def markdown(name: str) -> str:
    """Return the section of `docs/data.md` on one dataset.

    Args:
        name: Registered name, or ``file.py:Class``.

    Returns:
        A heading and a list, with a line break at the end.

    Raises:
        SpecError: If the name is unknown.
    """
    adapter: type[DatasetAdapter] = registry.load("datasets", name)
    if ":" in name and not registry.is_reference(name):
        with suppress(SpecError):  # without options, some datasets have no sensor
            adapter = adapter.configured({})
    items = (_item(title, text) for title, text in _facts(adapter) if text)
    return "\n".join([f"### {adapter.name}: {adapter.title}", "", *items]) + "\n"


def _facts(adapter: type[DatasetAdapter]) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of every item; an empty text has no item."""
    if hasattr(adapter, "folder"):
        yield "Folder", f"`{adapter.folder}/`, with {_escaped(adapter.layout)}"
        yield "Source", adapter.source
        yield "Licence", adapter.licence
    yield "Images", adapter.images
    if hasattr(adapter, "sensor"):
        yield "Bands", _bands(adapter)
    yield f"Classes ({len(adapter.classes)})", ", ".join(adapter.classes)
    if hasattr(adapter, "splits"):
        yield "Splits", ", ".join(f"`{split}`" for split in adapter.splits)
    for option, field in adapter.Options.model_fields.items():
        yield f"`options.{option}`", field.description or ""
    for note in adapter.notes:
        yield "", note
    yield "Cite", " and ".join(adapter.citations)


def _bands(adapter: type[DatasetAdapter]) -> str:
    sensor = adapter.sensor
    distance = "varies" if sensor.gsd_m is None else f"{sensor.gsd_m:g} m"
    bands = sensor.described_bands()
    units = sensor.unit if sensor.unit.endswith(")") else f"{sensor.unit}s"
    return f"{bands}; {units} in `{sensor.dtype}`; ground sample distance: {distance}"


def _item(title: str, text: str) -> str:
    return fill(
        f"- {title}: {text}" if title else f"- {text}",
        _WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _escaped(text: str) -> str:
    return text.replace("*", r"\*")
