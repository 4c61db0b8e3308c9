"""Writes a table for a paper as LaTeX or as Markdown."""

import re

import pandas as pd

from rscl_bench.leaderboards.escaping import markdown_text
from rscl_bench.leaderboards.export import Cell, ExportTable
from rscl_bench.leaderboards.formats import ABSENT

#: What LaTeX takes for a command, as pandas' Styler escapes it in names.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def latex_text(text: str) -> str:
    """Return a text for LaTeX that shows the text and nothing else."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex_table(table: ExportTable) -> str:
    r"""Return a table as a LaTeX ``table`` of the package booktabs.

    A rule divides lower references from methods. Only the mean of a bold cell is bold.
    """
    groups = [("", "method"), *((column.group, column.title) for column in table.columns)]
    cells = [[_latex_cell(cell) for cell in column.cells] for column in table.columns]
    names = [latex_text(name) for name in table.names]
    frame = pd.DataFrame(list(zip(names, *cells, strict=True)))
    frame.columns = pd.MultiIndex.from_tuples(
        [(latex_text(group), latex_text(title)) for group, title in groups]
    )
    text = frame.style.hide(axis="index").to_latex(
        column_format="l" + "r" * len(table.columns),
        hrules=True,
        multicol_align="c",
        position="tbp",
        position_float="centering",
        caption=latex_text(table.caption),
        label=f"tab:{table.label}",
    )
    return "% needs \\usepackage{booktabs}\n" + _with_rules(text, groups, table.references)


def markdown_table(table: ExportTable) -> str:
    """Return a table as Markdown, with its caption below."""
    groups = {column.group for column in table.columns if column.group}
    heads = ["method"]
    for column in table.columns:
        shown = f"{column.group}: " if column.group and len(groups) > 1 else ""
        heads.append(f"{shown}{column.title}")
    lines = [heads, ["---", *["---:"] * len(table.columns)]]
    for number, name in enumerate(table.names):
        cells = [_markdown_cell(column.cells[number]) for column in table.columns]
        lines.append([markdown_text(name), *cells])
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*rows, "", markdown_text(table.caption), ""])


def _latex_cell(cell: Cell) -> str:
    mean = "--" if cell.mean == ABSENT else cell.mean.replace("-", "$-$")
    shown = rf"\textbf{{{mean}}}" if cell.bold else mean
    return rf"{shown} $\pm$ {cell.half}" if cell.half else shown


def _markdown_cell(cell: Cell) -> str:
    shown = f"**{cell.mean}**" if cell.bold else cell.mean
    return f"{shown} ± {cell.half}" if cell.half else shown


def _with_rules(text: str, groups: list[tuple[str, str]], references: int) -> str:
    """Add a rule below each group of columns, and one below the lower references."""
    lines = text.splitlines()
    top = lines.index(r"\toprule")
    spans, first = [], 0
    for number in range(1, len(groups) + 1):
        if number == len(groups) or groups[number][0] != groups[first][0]:
            if groups[first][0]:
                spans.append(rf"\cmidrule(lr){{{first + 1}-{number}}}")
            first = number
    middle = lines.index(r"\midrule")
    body = lines[middle + 1 :]
    rule = [r"\midrule"] if 0 < references < _rows_of(body) else []
    parts = [*lines[: top + 2], " ".join(spans), *lines[top + 2 : middle + 1]]
    parts += [*body[:references], *rule, *body[references:]]
    return "\n".join(part for part in parts if part) + "\n"


def _rows_of(lines: list[str]) -> int:
    return sum(bool(re.search(r"\\\\$", line)) for line in lines)
