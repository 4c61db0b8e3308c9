"""Escapes text of records for tables, which others open in spreadsheets and browsers.

A record may come from anybody. Reading a record already refuses most of what is escaped here. A
table does not depend on that.
"""

import re
from typing import Any

import pandas as pd

from rscl_bench.results.text import one_line

# Spreadsheets take a cell that begins like this for a formula; East Asian ones also the wide forms.
_FORMULA = re.compile(r"[=+\-@＝＋－＠]")
# Characters that begin markup in a line of Markdown. An entity shows `&` and `<` as they are.
_MARKUP = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        **{character: f"\\{character}" for character in r"\`|[]*_~"},
    }
)


def csv_text(text: str) -> str:
    """Return a text as a cell of a CSV file: one line, and never a formula.

    A text that a spreadsheet would compute begins with an apostrophe. Numbers stay as they are.
    """
    line = one_line(text, len(text))
    return f"'{line}" if _FORMULA.match(line) and not _is_number(line) else line


def csv_file(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with line feeds as newlines; all texts pass through `csv_text`."""
    texts: dict[str, Any] = {
        str(column): frame[column].map(
            lambda cell: csv_text(cell) if isinstance(cell, str) else cell
        )
        for column in frame.select_dtypes(exclude=["number", "bool"])
    }
    written = frame.assign(**texts).rename(columns=csv_text)
    return written.to_csv(index=False, lineterminator="\n")


def markdown_text(text: str) -> str:
    """Return a text for a line or a cell of Markdown that shows the text and nothing else."""
    line = one_line(text, len(text)).translate(_MARKUP)
    # Readers of Markdown make links of bare addresses.
    return line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def markdown_code(text: str) -> str:
    """Return a text as a code span, outside tables; a backtick becomes an apostrophe."""
    return f"`{one_line(text, len(text)).replace('`', chr(39))}`"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text, re.ASCII) is not None
