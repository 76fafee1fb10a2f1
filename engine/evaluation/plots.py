"""Draw a report's figures as PNG. Needs matplotlib, the extra ``report``; without it there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import UserError
from engine.evaluation.comparison import Document, Row, main_column
from engine.evaluation.metrics import CUTOFFS
from engine.membership import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 6
"""Methods of a figure: the baseline and the best ones."""

DOTS = 110
"""Resolution, in dots an inch."""

_BESIDE: Mapping[str, Any] = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1, 1)}
"""A legend of methods beside the last panel, where it covers none of them."""

SIDES = ("Pos", "Neg", "Comb")


class Plot(NamedTuple):
    """A figure: the name of its file without an ending, what it shows, and the file."""

    name: str
    caption: str
    png: bytes


class Points(NamedTuple):
    """Entities of a few groups on a plane: float64 [n, 2], and of each its group's name."""

    title: str
    places: npt.NDArray[np.float64]
    groups: Sequence[str]


def available() -> bool:
    """Return whether figures can be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def plots(document: Document, planes: Sequence[Points] = ()) -> Iterator[Plot]:
    """Yield the figures that a report fills.

    Args:
        document: see :func:`engine.evaluation.comparison.document`.
        planes: entities by a view, before training and after.

    Raises:
        UserError: matplotlib is not installed.
    """
    if not available():
        raise UserError("figures need matplotlib; run `pip install 'seedset[report]'`, or give --no-plots")
    rows = _shown(document)
    if not rows:
        return
    sides = SIDES if document["negatives"] else SIDES[:1]
    yield _by_class(rows)
    yield _curves(rows, sides)
    if own := [row for row in rows if row["tail"]]:
        yield _tail(own)
    for sweep in document["sweeps"]:
        yield _sweep(sweep, sides)
    if planes:
        yield _planes(planes)


def _shown(document: Document) -> list[Row]:
    """Return the baseline's row and those of the best methods."""
    column = main_column(document["negatives"])
    rows = [row for row in document["rows"] if "why_not" not in row]
    best = sorted(rows, key=lambda row: -row["overall"][column])
    first = [row for row in rows if row["method"] == document["statistics"]["baseline"]]
    return [*first, *(row for row in best if row not in first)][:SHOWN]


def _drawn(name: str, caption: str, panels: int, draw: Any, height: float = 3.4) -> Plot:
    """Return a figure of panels side by side; ``draw`` is given the axes of all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.6 * panels, 6.4), height), layout="constrained")
    FigureCanvasAgg(figure)
    draw(list(figure.subplots(1, panels, squeeze=False)[0]))
    sink = BytesIO()
    figure.savefig(sink, dpi=DOTS, format="png", metadata={"Software": None})
    return Plot(name, caption, sink.getvalue())


def _by_class(rows: Sequence[Row]) -> Plot:
    classes = list(rows[0]["by_class"])

    def draw(axes: list[Axes]) -> None:
        width = 0.8 / len(rows)
        places = np.arange(len(classes))
        for number, row in enumerate(rows):
            heights = [row["by_class"].get(name, {}).get("PosMAP@10", np.nan) for name in classes]
            axes[0].bar(places + number * width, heights, width, label=row["method"])
        axes[0].set_xticks(places + 0.4 - width / 2, classes, rotation=30, ha="right")
        axes[0].set_ylabel("PosMAP@10")
        axes[0].legend(**_BESIDE)

    caption = "By fine-grained class (UltraWiki, figure 10)"
    return _drawn("classes", caption, 1 + (len(classes) > 8), lambda axes: draw(axes[:1]))


def _curves(rows: Sequence[Row], sides: Sequence[str]) -> Plot:
    def draw(axes: list[Axes]) -> None:
        for panel, side in zip(axes, sides, strict=True):
            for row in rows:
                columns = [f"{side}MAP@{k}" for k in CUTOFFS]
                values = [row["overall"][name] for name in columns]
                low, high = np.array([row["intervals"][name] for name in columns]).T
                (line,) = panel.plot(CUTOFFS, values, marker="o", label=row["method"])
                panel.fill_between(CUTOFFS, low, high, alpha=0.12, color=line.get_color())
            panel.set_xscale("log")
            panel.set_xticks(CUTOFFS, list(map(str, CUTOFFS)))
            panel.minorticks_off()
            panel.set_xlabel("K")
            panel.set_title(f"{side}MAP@K")
        axes[-1].legend(**_BESIDE)

    return _drawn("curves", "By K, with 95 % intervals", len(sides), draw)


def _sweep(sweep: Mapping[str, Any], sides: Sequence[str]) -> Plot:
    def draw(axes: list[Axes]) -> None:
        labels = list(map(str, sweep["values"]))
        for panel, side in zip(axes, sides, strict=True):
            for k in (CUTOFFS[0], CUTOFFS[-1]):
                column = f"{side}MAP@{k}"
                values = [one[column] for one in sweep["overall"]]
                panel.plot(labels, values, marker="o", label=column)
            panel.set_xlabel(f"{sweep['method']}: {sweep['setting'].replace('_', ' ')}")
            panel.legend(fontsize="small")

    caption = f"{sweep['title']}: {sweep['method']}, {sweep['queries']} queries"
    return _drawn(f"sweep-{sweep['name']}", caption, len(sides), draw)


def _tail(rows: Sequence[Row]) -> Plot:
    groups = [one for one in rows[0]["tail"] if one["truth"]]
    names = [one["sentences"] for one in groups]
    labels = [f"{one['sentences']}\n({one['truth']})" for one in groups]

    def draw(axes: list[Axes]) -> None:
        for row in rows:
            by_name = {one["sentences"]: one["share"] for one in row["tail"]}
            shares = [np.nan if by_name[name] is None else by_name[name] for name in names]
            axes[0].plot(labels, shares, marker="o", label=row["method"])
        axes[0].set_xlabel("sentences of the entity (true entities)")
        axes[0].set_ylabel("found among 100, %")
        axes[0].legend(**_BESIDE)

    return _drawn("tail", "Long tail: true entities by number of sentences", 1, draw)


def _planes(planes: Sequence[Points]) -> Plot:
    def draw(axes: list[Axes]) -> None:
        for panel, points in zip(axes, planes, strict=True):
            for group in dict.fromkeys(points.groups):
                own = points.places[[g == group for g in points.groups]]
                panel.scatter(own[:, 0], own[:, 1], s=12, label=group)
            panel.set_title(points.title)
            panel.set_xticks([])
            panel.set_yticks([])
        axes[-1].legend(**_BESIDE)

    return _drawn("views", "Entities by t-SNE (UltraWiki, figures 11 and 12)", len(planes), draw, 4.2)


def heat_map(title: str, values_UU: npt.NDArray[np.float32], groups: Sequence[str]) -> bytes:
    """Return a map of values between rows and columns as PNG.

    Args:
        title: of the figure.
        values_UU: cosines.
        groups: of the rows, in order: each is named once, where it begins.
    """
    starts = [place for place, one in enumerate(groups) if place == 0 or groups[place - 1] != one]
    names = [groups[place] for place in starts]

    def draw(axes: list[Axes]) -> None:
        image = axes[0].imshow(values_UU, cmap="viridis", vmax=1)
        axes[0].set_xticks(starts, names, rotation=90, fontsize="small")
        axes[0].set_yticks(starts, names, fontsize="small")
        axes[0].set_title(title)
        axes[0].figure.colorbar(image, ax=axes[0], shrink=0.8)

    return _drawn("map", title, 1, draw, 5.6).png


def reliability_plot(found: Reliability, title: str) -> bytes:
    """Return a figure of what probabilities say against the share that is so, as PNG."""

    def draw(axes: list[Axes]) -> None:
        axes[0].plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes[0].plot(found.said, found.true, marker="o")
        for said, true, entities in zip(found.said, found.true, found.entities, strict=True):
            label = f"{entities:,}"
            axes[0].annotate(label, (said, true), (4, -9), textcoords="offset points", fontsize=7)
        axes[0].set_xlabel("probability that an entity belongs")
        axes[0].set_ylabel("share that belongs")
        axes[0].set_title(f"{title}: expected calibration error {found.error:.3f}", fontsize="medium")

    return _drawn("reliability", "", 1, draw).png
