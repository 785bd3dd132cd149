"""Draws a result of benchmarks.conv: bars of TFLOP/s, by direction and layer.

    python -m benchmarks.chart RESULT.json CHART.svg

The same result gives the same file. Needs matplotlib (pip install '.[examples]').
"""

import json
import sys

import matplotlib
from matplotlib.figure import Figure

from benchmarks.table import DIRECTIONS, conv_cells, geometric_mean, provenance

TITLES = dict(zip(DIRECTIONS, ("Forward", "Gradient of the images", "Gradient of the filters")))
# {(implementation, precision): (label, colour)}, TF32 and float16 in the paler colours
SERIES = {
    ("convnet_ops", "float32"): ("convnet_ops float32", "#1f5fa8"),
    ("cudnn", "float32"): ("cuDNN float32", "#d9701a"),
    ("theano_corrmm", "float32"): ("GpuCorrMM float32", "#4d4d4d"),
    ("convnet_ops", "tf32"): ("convnet_ops TF32", "#a6c8ec"),
    ("cudnn", "tf32"): ("cuDNN TF32", "#f7c89c"),
    ("convnet_ops", "float16"): ("convnet_ops float16", "#c5b8e0"),
}
GROUP_WIDTH = 0.84  # of the distance from group to group
MEAN_GAP = 0.3  # more than that distance, before the means


def layer_labels(layers):
    """The names of (layer, batch), long ones on two lines, with the batches where a name comes with several."""
    names = [name for name, _ in layers]
    lines = [name.replace("_", "\n", 1) if len(name) > 12 else name for name in names]
    return [
        line if names.count(name) == 1 else "%s\nN=%d" % (line, batch) for line, (name, batch) in zip(lines, layers)
    ]


def bar_heights(cells, layers, direction, column):
    """{group: TFLOP/s} of one column: the layers that have it and, after them, their mean if all do."""
    rows = [cells.get(layer + (direction,), {}).get(column) for layer in layers]
    heights = {group: row["tflops"] for group, row in enumerate(rows) if row is not None}
    if len(heights) == len(layers):
        heights[len(layers)] = geometric_mean(heights.values())
    return heights


def draw_panel(axes, cells, layers, direction, columns):
    """The bars of one direction."""
    width = GROUP_WIDTH / len(columns)
    places = list(range(len(layers))) + [len(layers) + MEAN_GAP]
    for index, column in enumerate(columns):
        heights = bar_heights(cells, layers, direction, column)
        label, colour = SERIES[column]
        middles = [places[group] + (index - (len(columns) - 1) / 2) * width for group in heights]
        axes.bar(middles, list(heights.values()), width, label=label, color=colour)
    axes.axvline(len(layers) - 0.5 + MEAN_GAP / 2, color="#b0b0b0", linewidth=0.8)
    axes.set_xticks(places, layer_labels(layers) + ["mean\n(geometric)"])
    axes.set_xlim(-0.6, places[-1] + 0.6)
    axes.set_ylabel("TFLOP/s")
    axes.set_title(TITLES[direction], loc="left", fontsize=10)
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(result):
    """The figure of a result: a panel a direction; a peer that was not measured has no bars."""
    cells = conv_cells(result)
    layers = list(dict.fromkeys(key[:2] for key in cells))
    columns = [column for column in SERIES if any(column in cell for cell in cells.values())]
    figure = Figure(figsize=(max(10, 1.05 * (len(layers) + 1)), 10))
    for axes, direction in zip(figure.subplots(len(DIRECTIONS), 1), DIRECTIONS):
        draw_panel(axes, cells, layers, direction, columns)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=len(labels), frameon=False, fontsize=9)
    figure.text(0.5, 0.008, provenance(result), ha="center", va="bottom", fontsize=7, color="#4d4d4d")
    figure.tight_layout(rect=(0, 0.02, 1, 0.97))
    return figure


def save(figure, path):
    """Write the figure, as SVG the same bytes each time."""
    metadata = {"Date": None} if path.endswith(".svg") else None
    with matplotlib.rc_context({"svg.hashsalt": "convnet_ops"}):
        figure.savefig(path, metadata=metadata, dpi=120)


def main(arguments):
    source, target = arguments
    with open(source, encoding="utf-8") as file:
        save(draw(json.load(file)), target)


if __name__ == "__main__":
    main(sys.argv[1:])
