"""The datasets in docs/data.md are what the adapters declare."""

import pytest
from helpers.paths import ROOT

from rscl_bench import catalogue, registry
from rscl_bench.archives.describe import markdown


def test_data_page_has_the_sections() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"<!-- list datasets -->\n\n{catalogue.markdown('datasets')}" in page


@pytest.mark.parametrize("name", registry.entries("datasets"))
def test_a_section_has_what_an_error_tells_a_user(name: str) -> None:
    adapter = registry.load("datasets", name)
    section = " ".join(markdown(name).replace("\\", "").split())
    assert section.startswith(f"### {name}: {adapter.title}")
    if not adapter.declared_by_options:
        for text in (adapter.source, adapter.licence, f"`{adapter.folder}/`", adapter.layout):
            assert text in section
    for option in adapter.Options.model_fields:
        assert f"- `options.{option}`: " in section
