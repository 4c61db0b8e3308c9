"""The Markdown pages of the project, and the example files of two of them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from helpers.paths import ROOT

PAGES = sorted(
    path
    for pattern in ("", "docs/", "methods/", "scenarios/", "leaderboards/**/", "benchmarks/")
    for path in ROOT.glob(f"{pattern}*.md")
)
CARDS = [page for page in PAGES if page.parent.name == "methods"]

EXAMPLES = ("extending.md", "folder.md", "continuing.md", "tutorial.md")

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced code block, and the line of text before it."""

    line_before: str
    language: str
    code: str


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def code_blocks(text: str) -> list[Block]:
    return [
        Block(text[: match.start()].rstrip().rsplit("\n", 1)[-1], match[1], match[2])
        for match in _FENCE.finditer(text)
    ]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as forges make them from their text."""
    outside = _FENCE.sub("", text)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def commands(text: str) -> list[list[str]]:
    """Return the words of every ``rscl-bench`` command in console blocks and in inline code."""
    consoles = [block.code for block in code_blocks(text) if block.language == "console"]
    lines = [part for code in consoles for line in code.split("\n") for part in line.split("&&")]
    inline = re.findall(r"`(rscl-bench [^`]+)`", text)
    split = [shlex.split(line, comments=True) for line in [*lines, *inline]]
    return [words[1:] for words in split if words[:1] == ["rscl-bench"]]


def write_examples(folder: Path) -> None:
    """Write the files that the pages of `EXAMPLES` show."""
    pages = (read("docs", page) for page in EXAMPLES)
    for line_before, _, code in (block for page in pages for block in code_blocks(page)):
        if match := re.fullmatch(r"`([\w-]+\.(?:py|toml))`:", line_before):
            (folder / match[1]).write_text(code, encoding="utf-8")
        elif match := re.search(r"At the end of `(\w+\.toml)`:$", line_before):
            path = folder / match[1]
            extended = path.with_name(f"{path.stem}-extended.toml")
            extended.write_text(path.read_text(encoding="utf-8") + code, encoding="utf-8")
