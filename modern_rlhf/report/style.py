"""How the package's figures look: one place for colours, sizes and axes.

Colours are Okabe and Ito's (2008), told apart under every common colour blindness; lines also
differ in marker and dash, so that a print in grey stays readable. matplotlib is used through
`Figure` alone: no pyplot, no global state, no display.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#6B6B6B"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1, 1.2)))
MODEL_COLOURS = {"base": GREY, "sft": ORANGE, "rlhf": BLUE}

PANEL = (4.3, 2.9)
"""Width and height of one panel, inches."""
DPI = 130

_RC: Any = {  # matplotlib's own type lists every key by name
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
}


@contextmanager
def house_style() -> Iterator[None]:
    """The settings above, for the figures made inside the block only."""
    with matplotlib.rc_context(_RC):
        yield


def grid(
    count: int, *, columns: int = 3, panel: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows; call inside `house_style`."""
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows + 1.0))
    figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.09, hspace=0.03, wspace=0.02)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def finish(figure: Figure, *, title: str, caption: str) -> bytes:
    """Put title and caption around the panels; the PNG."""
    width = figure.get_size_inches()[0]
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    lines = textwrap.wrap(caption, int(width * 14.5))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color="#555555")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def whole_steps(axis: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def plain_small_numbers(axis: Axes) -> None:
    """Write `2e-05` at the ticks of the y axis instead of a power of ten above the panel."""
    if max(map(abs, axis.get_ylim())) < 1e-2:
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
