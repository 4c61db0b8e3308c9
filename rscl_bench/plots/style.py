"""The style of all figures: fonts, colours, markers; and the writing of files with equal bytes.

Colours are those of M. Okabe and K. Ito, "Color Universal Design", 2008, which most colour-blind
people tell apart. Lines also differ in marker and dash, bars in hatch, so that a figure can be read
in grey.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import SpecError

Format = Literal["svg", "pdf", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
GREY = "#666666"
#: Resolution of a PNG in dots per inch, as printers ask for.
DPI = 300
_RC: dict[Any, Any] = {
    "axes.edgecolor": "#333333",
    "axes.grid": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so equal everywhere
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # TrueType: text in a PDF can be searched, and publishers accept it
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "rscl-bench",
    "text.parse_math": False,  # a method's name is shown as it is
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7,
    "ytick.major.width": 0.6,
}
# No date and no version of a program, so that equal records give equal bytes.
_METADATA: dict[Format, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


class Look(NamedTuple):
    """Colour, marker and dash of one line."""

    colour: str
    marker: str
    dash: Any


def looks(count: int) -> list[Look]:
    """Return distinct looks for a number of lines."""
    return list(islice(_all_looks(), count))


def _all_looks() -> Iterator[Look]:
    number = 0
    while True:  # colour and marker change with every line, the dash once all colours are used
        yield Look(
            _COLOURS[number % len(_COLOURS)],
            _MARKERS[number % len(_MARKERS)],
            _DASHES[number // len(_COLOURS) % len(_DASHES)],
        )
        number += 1


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style to all figures that a block makes or writes."""
    with mpl.rc_context():
        mpl.rcdefaults()  # a matplotlibrc of the user would change bytes
        mpl.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure without a window.

    Args:
        width: Width in inches; a column of a paper has about 3.4, a page about 7.
        height: Height in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def fix_layout(figure: Figure) -> None:
    """Compute the layout of a figure once; every later drawing would move it by a little."""
    figure.canvas.draw()
    figure.set_layout_engine("none")


def figure_bytes(figure: Figure, form: Format) -> bytes:
    """Return a figure as the content of a file; equal figures give equal bytes."""
    content = io.BytesIO()
    with drawing():
        figure.savefig(content, format=form, dpi=DPI, metadata=_METADATA[form], bbox_inches="tight")
    return content.getvalue()


def write_figure(figure: Figure, path: Path, form: Format | None = None) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: The figure.
        path: Path of the file.
        form: Format; None takes the ending of the path.

    Raises:
        SpecError: If the format is unknown.
        ArtefactError: If the file cannot be written.
    """
    chosen = form or path.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise SpecError(
            f"'{path.name}' does not end with .svg, .pdf or .png; give such a name, or --format."
        )
    write_atomic(path, figure_bytes(figure, chosen))


def is_dark(colour: tuple[float, float, float, float]) -> bool:
    """Return whether white text on a colour has more contrast than black text (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
