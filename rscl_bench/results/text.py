"""Text in records: one printable line of bounded length, so that a table can show it."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue

#: Most characters of a text in a record.
LONGEST = 200


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text as one printable line of at most ``longest`` characters.

    Control characters, line breaks, invisible characters and marks that reverse the direction of
    writing become spaces. Spaces in a row become one.
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:longest].rstrip()


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, got {len(text)}")
    return text


def _printable_values(value: JsonValue) -> JsonValue:
    """Check all texts and keys of a JSON value.

    Raises:
        ValueError: If a text is not one printable line, or is too long.
    """
    unchecked: list[Any] = [value]
    while unchecked:
        current = unchecked.pop()
        if isinstance(current, str):
            _printable(current)
        elif isinstance(current, list):
            unchecked += current
        elif isinstance(current, dict):
            unchecked += [*current, *current.values()]
    return value


#: One line of at most 200 printable characters: no control, invisible or bidirectional ones.
Line = Annotated[str, AfterValidator(_printable)]
#: A JSON value; all its texts are such lines.
PlainJson = Annotated[JsonValue, AfterValidator(_printable_values)]
#: Version of a package, as in ``1.2.0+cpu``.
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+!-]*$", max_length=64)]
#: A registered name, or ``file.py:Class@`` and digits of the file's digest.
Reference = Annotated[Line, Field(pattern=r"^\w[\w.:@ /+-]*$")]
#: The key of a ``--set`` assignment, such as ``strategies.lump.alpha``.
SettingKey = Reference
