"""The pages of the repository as one site: MkDocs calls the functions of this module.

MkDocs knows one folder of pages. The pages of this project lie where a reader of the repository
looks for them, and link to each other by relative paths. So the site keeps the paths of the
repository, and one link works in both.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import rscl_bench
from rscl_bench import testing

ROOT = Path(__file__).parents[2]
PAGES = (
    "*.md",
    "docs/*.md",
    "methods/*.md",
    "scenarios/*.md",
    "leaderboards/**/*.md",
    "benchmarks/*.md",
)
STATIC = (
    "docs/site/*.css",
    "docs/site/*.js",
    "leaderboards/*/*/index.html",
    "leaderboards/*/*/*.csv",
    "leaderboards/*/*/*.jsonl",
)
#: ``R[t][j]`` in a text is an element of a matrix and no link to a heading ``j``.
MATRIX = re.compile(r"(\w)\[([^\[\]]+)\]\[(\w+)\]")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)")
OBJECTS = {
    "What the functions return": (
        "rscl_bench.pretrained.Encoder",
        "rscl_bench.results.schema.RunRecord",
    ),
    "Base classes of components": (
        "rscl_bench.objectives.base.Objective",
        "rscl_bench.strategies.base.Strategy",
        "rscl_bench.probes.base.BaseProbe",
        "rscl_bench.archives.adapter.DatasetAdapter",
    ),
}


def on_config(config: MkDocsConfig) -> None:
    """Replace the patterns of the navigation by pages."""
    assert config.nav is not None
    named = set(_named(config.nav))
    config.nav = _expanded(config.nav, named)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Put the pages of the repository, and the files that they link to, in place of `docs_dir`."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    pages = list(_matches(PAGES))
    paths = dict.fromkeys([*pages, *_matches(STATIC), *_linked(pages)])
    own = [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in paths]
    return Files([*kept, *own])


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the reference to the page of the API, and the link to a leaderboard's drawings."""
    path = page.file.src_uri
    if path == "README.md":
        page.meta["hide"] = ["navigation"]
    parts = CODE.split(markdown)
    parts[::2] = [MATRIX.sub(r"\1\[\2\]\[\3\]", text) for text in parts[::2]]
    markdown = "".join(parts)
    if path == "docs/api.md":
        return markdown + reference()
    if path.endswith("/leaderboard.md"):
        page.meta["hide"] = ["toc"]  # wide tables need the room
        if (ROOT / path).with_name("index.html").is_file():
            title, _, rest = markdown.partition("\n")
            return f"{title}\n\n[The same with curves, matrices and sorting](index.html)\n{rest}"
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Put the Markdown of a leaderboard beside its drawings, which link to it."""
    for path in ROOT.glob("leaderboards/*/*/leaderboard.md"):
        shutil.copyfile(path, Path(config.site_dir, path.relative_to(ROOT)))


def reference() -> str:
    """Return the directives for all public names, in sections."""
    functions = [f"rscl_bench.{name}" for name in rscl_bench.__all__ if name != "__version__"]
    contracts = [f"rscl_bench.testing.{name}" for name in testing.__all__]
    sections: dict[str, Any] = {"Functions": functions, **OBJECTS, "Contracts": contracts}
    return "".join(
        f"\n## {title}\n" + "".join(f"\n::: {name}\n" for name in names)
        for title, names in sections.items()
    )


def _matches(patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        yield from (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern)))


def _linked(pages: Iterable[str]) -> Iterator[str]:
    for page in pages:
        folder = (ROOT / page).parent
        for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            path = (folder / target).resolve()
            if path.is_file() and path.is_relative_to(ROOT):
                yield path.relative_to(ROOT).as_posix()


def _named(nav: Any) -> Iterator[str]:
    for item in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(item, str):
            yield item
        else:
            yield from _named(item)


def _expanded(nav: Any, named: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _expanded(item, named) for title, item in nav.items()}
    if not isinstance(nav, list):
        return nav
    expanded: list[Any] = []
    for item in nav:
        if isinstance(item, str) and "*" in item:
            expanded += [path for path in _matches((item,)) if path not in named]
        else:
            expanded.append(_expanded(item, named))
    return expanded
