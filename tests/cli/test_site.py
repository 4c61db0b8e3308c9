"""The documentation site: built strictly, whole, and without a request to another host."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from helpers.pages import PAGES
from helpers.paths import ROOT

import rscl_bench
import rscl_bench.testing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # Addresses of a proxy that nobody serves: a build that asks for the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


class _Loaded(HTMLParser):
    """Collects what a browser loads with a page, and the anchors of the page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        self.addresses += [values[name] for name in ("src", "srcset", "data") if name in values]
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag == "link" and values["rel"] not in ("canonical", "next", "prev"):
            self.addresses.append(values["href"])


def test_every_page_of_the_repository_is_a_page_of_the_site(site: Path) -> None:
    assert len(PAGES) > 60
    for page in PAGES:
        name = page.relative_to(ROOT).with_suffix(".html")
        path = site / (name.with_name("index.html") if page.stem == "README" else name)
        assert path.is_file(), name


def test_every_public_name_is_documented(site: Path) -> None:
    anchors = _Loaded(site / "docs" / "api.html").anchors
    functions = {f"rscl_bench.{name}" for name in rscl_bench.__all__} - {"rscl_bench.__version__"}
    contracts = {f"rscl_bench.testing.{name}" for name in rscl_bench.testing.__all__}
    assert functions | contracts <= anchors


def test_pages_load_files_of_the_site_alone(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 60
    for page in pages:
        for address in _Loaded(page).addresses:
            if not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0]).is_file(), (page, address)


def test_links_within_the_site_lead_to_files(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in _Loaded(page).links if page.name != "404.html" else ():
            path = unquote(link.partition("#")[0])
            if path and not re.match(r"\w+:", path):
                assert (page.parent / path).is_file(), (page, link)


def test_styles_load_files_of_the_site_alone(site: Path) -> None:
    for style in site.rglob("*.css"):
        for address in re.findall(r"url\(['\"]?([^)'\"]+)|@import", style.read_text("utf-8")):
            assert address.startswith("data:"), (style, address)


def test_search_knows_pages_cards_and_functions(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"] for entry in index["docs"]}
    names = {"index.html", "docs/glossary.html", "methods/cosmae.html", "scenarios/rs4.html"}
    assert names <= found
    assert "docs/api.html#rscl_bench.run" in found
    script = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert json.loads(script.removeprefix("var __index = ")) == index
