"""Lists what the selectors of the page can show: a probe or the mean over domains, and a score."""

from dataclasses import dataclass

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import KINDS, domain_column, score_column
from rscl_bench.leaderboards.page.markup import element, joined
from rscl_bench.results.schema import ProbeRecord


@dataclass(frozen=True)
class View:
    """A measure and a score.

    Attributes:
        position: Position of the measure among the measures.
        probe: The probe; None for the mean over the probes of the tasks' domains.
        kind: ``micro`` or ``macro``.
        tasks: Number of tasks.
    """

    position: int
    probe: ProbeRecord | None
    kind: str
    tasks: int

    @property
    def name(self) -> str:
        """Name of the measure."""
        return "all domains" if self.probe is None else self.probe.name

    @property
    def title(self) -> str:
        """Measure and score for readers."""
        return f"{self.name}, {self.kind}-mAP"

    @property
    def marks(self) -> str:
        """Classes of what only this view shows."""
        return f"v p{self.position} {self.kind}"

    @property
    def quality(self) -> str:
        """Column of the main number: the score after the last task, or its mean over domains."""
        if self.probe is None:
            return domain_column("final_average", self.kind)
        return score_column(self.tasks, self.probe.name, self.kind)

    @property
    def quality_name(self) -> str:
        """The main number for readers."""
        if self.probe is None:
            return f"final average over the domains, {self.kind}-mAP"
        return f"{self.probe.name} after T{self.tasks}, {self.kind}-mAP"


def measures(board: Board) -> list[ProbeRecord | None]:
    """Return the mean over the domains, if there is a probe of a domain, and the probes."""
    probes = list(board.layout.probes)
    return [*([None] if has_domains(board) else []), *probes]


def views(board: Board) -> list[View]:
    """Return all views; the first is shown first."""
    tasks = len(board.layout.tasks)
    return [
        View(position, probe, kind, tasks)
        for position, probe in enumerate(measures(board))
        for kind in KINDS
    ]


def has_domains(board: Board) -> bool:
    """Return whether a probe belongs to the domain of a task."""
    return any(probe.task is not None for probe in board.layout.probes)


def shown_in(view: View, content: Markup, name: str = "div") -> Markup:
    """Return content that only one view shows."""
    return element(name, content, class_=view.marks)


def selectors(board: Board) -> Markup:
    """Return the radio buttons of measures and scores; they work without script."""
    names = [view.name for view in views(board)[:: len(KINDS)]]
    groups = [_radios("score", "Score", [(kind, f"{kind}-mAP") for kind in KINDS])]
    if len(names) > 1:
        labels = [(f"p{position}", name) for position, name in enumerate(names)]
        groups.insert(0, _radios("measure", "Probe", labels))
    return joined(groups)


def _radios(name: str, legend: str, labels: list[tuple[str, str]]) -> Markup:
    buttons = [
        element(
            "label",
            element(
                "input",
                type="radio",
                name=name,
                id=f"show-{mark}",
                value=mark,
                checked="checked" if number == 0 else None,
            ),
            element("span", label),
        )
        for number, (mark, label) in enumerate(labels)
    ]
    return element("fieldset", element("legend", legend), *buttons, class_="choice")


def selector_style(board: Board) -> str:
    """Return the rules that hide all other views; browsers without ``:has`` show all views."""
    count = len(measures(board))
    marks = [f"p{position}" for position in range(count)] if count > 1 else []
    return (
        "\n".join(
            f"body:has(#show-{mark}:checked) .v:not(.{mark}){{display:none}}" for mark in [*marks]
        )
        + "\n"
        + "\n".join(
            f"body:has(#show-{kind}:checked) .v:not(.{kind}){{display:none}}" for kind in KINDS
        )
    )
