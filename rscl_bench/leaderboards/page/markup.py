"""Makes elements of HTML and SVG. Every text is escaped, unless it is markup already."""

from collections.abc import Iterable

from markupsafe import Markup, escape

#: A number of an attribute, a text, or nothing: an attribute with None is left out.
Value = str | int | float | None


def text(content: str) -> Markup:
    """Return a text that shows the text and nothing else; what is not printable is a space."""
    return escape("".join(character if character.isprintable() else " " for character in content))


def element(tag: str, /, *children: str, **attributes: Value) -> Markup:
    """Return an element that is well-formed both in HTML and in XML.

    Args:
        tag: Name of the element.
        *children: Content. Plain strings are escaped; `Markup` is not.
        **attributes: Attributes. ``_`` within a name becomes ``-``, and one at its end is dropped.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{tag}{written}/>" if tag in _EMPTY else f"<{tag}{written}></{tag}>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def scrolling(table: Markup, label: str, class_: str = "scroll") -> Markup:
    """Return a table in a region that scrolls where the screen is narrow, also by keys.

    Args:
        table: The table.
        label: Name of the region.
        class_: Classes of the region.
    """
    return element("div", table, class_=class_, role="region", tabindex=0, aria_label=label)


def joined(parts: Iterable[str]) -> Markup:
    """Return parts one after the other; plain strings are escaped."""
    return Markup("").join(part if isinstance(part, Markup) else text(part) for part in parts)


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    rounded = f"{value:.1f}".removesuffix(".0")
    return "0" if rounded == "-0" else rounded


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Return the data of a path through points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in pairs)


def _value(value: Value) -> Markup:
    return text(number(value) if isinstance(value, float) else str(value))


_EMPTY = frozenset({"path", "circle", "rect", "line", "meta", "input", "br", "link"})
