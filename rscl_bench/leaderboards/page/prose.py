"""Shows the sentences of the Markdown tables as HTML, so that both state the same."""

import re

from markupsafe import Markup

from rscl_bench.leaderboards.page.markup import element, text

# What the writers of this package use of Markdown; see `rscl_bench.leaderboards.escaping`.
_TOKEN = re.compile(
    r"\\(?P<escaped>.)|`(?P<code>[^`]*)`|\*\*(?P<strong>[^*]*)\*\*"
    r"|&(?P<entity>amp|lt|gt|#47|#46);|\[(?P<shown>[^]]*)\]\((?P<target>[\w./-]+)\)|(?P<plain>.)",
    re.DOTALL,
)
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "#47": "/", "#46": "."}


def prose(markdown: str) -> Markup:
    """Return a line of Markdown as HTML: escapes, code spans, bold text and relative links."""
    return Markup("").join(_shown(match) for match in _TOKEN.finditer(markdown))


def _shown(match: re.Match[str]) -> Markup:
    kind, content = next((k, v) for k, v in match.groupdict().items() if v is not None)
    if kind in ("code", "strong"):
        return element(kind, content)
    if kind == "entity":
        return text(_ENTITIES[content])
    if kind == "shown":
        return element("a", content, href=match["target"])
    return text(content)
