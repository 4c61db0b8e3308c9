"""The datasets in docs/data.md are what the adapters declare."""

import pytest
from helpers.paths import ROOT

from rscl_bench import catalogue, registry
from rscl_bench.archives.describe import markdown

PAGE = ROOT / "docs" / "data.md"


def test_data_page_is_up_to_date() -> None:
    """`python -m rscl_bench.catalogue docs/data.md` rewrites the page."""
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- list datasets -->" in page
    assert catalogue.updated(page) == page


@pytest.mark.parametrize("name", registry.entries("datasets"))
def test_a_section_has_what_an_error_tells_a_user(name: str) -> None:
    adapter = registry.load("datasets", name)
    section = " ".join(markdown(name).replace("\\", "").split())
    assert section.startswith(f"### {name}: {adapter.title}")
    for text in (adapter.source, adapter.licence, f"`{adapter.folder}/`", adapter.layout):
        assert text in section
    for option in adapter.Options.model_fields:
        assert f"- `options.{option}`: " in section
