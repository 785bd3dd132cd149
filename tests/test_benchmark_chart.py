"""benchmarks/chart.py: the bars of made-up results, seen in the figure, and the file."""

import json
import os
import tempfile
from xml.etree import ElementTree

import numpy as np

from benchmarks import chart

DIRECTIONS = ("fwd", "dimages", "dfilters")
LAYERS = (("first", 128), ("second", 64))
LABELS = {
    ("convnet_ops", "float32", "c01b"): "convnet_ops float32",
    ("cudnn", "float32", "nchw"): "cuDNN float32",
    ("theano_corrmm", "float32", "bc01"): "GpuCorrMM float32",
    ("convnet_ops", "tf32", "c01b"): "convnet_ops TF32",
    ("cudnn", "tf32", "channels_last"): "cuDNN TF32",
}


def made_up_result(keys, layers=LAYERS):
    """A result in the form of benchmarks.conv's, every figure another."""
    rows = []
    for layer, batch in layers:
        for direction in DIRECTIONS:
            for implementation, precision, layout in keys:
                rows.append(
                    {
                        "layer": layer,
                        "batch": batch,
                        "direction": direction,
                        "impl": implementation,
                        "precision": precision,
                        "layout": layout,
                        "ms": 1.0 / (len(rows) + 1),
                        "tflops": 2.0 * (len(rows) + 1),
                        "rel_err": 1e-7,
                        "variant": None,
                        "workspace_mb": 0.0,
                    }
                )
    versions = {"theano": "1.0.5", "cuda": "13.0"}
    return {"device": "a GPU", "date": "2020-01-02", "commit": "0123456789abcdef", "versions": versions, "rows": rows}


def bars(axes):
    """{label: the bars' heights from left to right} of a panel."""
    return {bar.get_label(): [patch.get_height() for patch in bar.patches] for bar in axes.containers}


def tflops(result, direction, key):
    names = ("direction", "impl", "precision", "layout")
    return [row["tflops"] for row in result["rows"] if tuple(row[name] for name in names) == (direction,) + key]


def check_bars(figure, result, keys):
    assert len(figure.axes) == len(DIRECTIONS)
    for axes, direction in zip(figure.axes, DIRECTIONS):
        found = bars(axes)
        assert list(found) == [LABELS[key] for key in LABELS if key in keys], found
        for key in keys:
            wanted = tflops(result, direction, key)
            wanted.append(np.prod(wanted) ** (1 / len(wanted)))
            np.testing.assert_allclose(found[LABELS[key]], wanted)


def tick_labels(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_all_libraries():
    # Ours in bc01 is in the results too, and has no bar.
    result = made_up_result(list(LABELS) + [("convnet_ops", "float32", "bc01")])
    figure = chart.draw(result)
    check_bars(figure, result, list(LABELS))
    assert [axes.get_title("left") for axes in figure.axes] == list(chart.TITLES.values())
    assert tick_labels(figure.axes[0]) == ["first", "second", "mean\n(geometric)"]
    assert [text.get_text() for text in figure.legends[0].texts] == list(LABELS.values())
    (text,) = figure.texts
    assert text.get_text() == "a GPU, CUDA 13.0, Theano 1.0.5, 2020-01-02, commit 0123456789ab."


def test_places():
    """Bars stand in the order of their labels, each group around its tick, none over another."""
    axes = chart.draw(made_up_result(list(LABELS))).axes[0]
    groups = list(zip(*(bar.patches for bar in axes.containers)))
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for group in groups for patch in group]
    for (_, end), (start, _) in zip(spans, spans[1:]):
        assert end < start + 1e-9, spans
    for group, tick in zip(groups, axes.get_xticks()):
        middle = (group[0].get_x() + group[-1].get_x() + group[-1].get_width()) / 2
        np.testing.assert_allclose(middle, tick, atol=1e-9)


def test_missing_peers():
    for peers in ([], [("theano_corrmm", "float32", "bc01")]):
        keys = [("convnet_ops", "float32", "c01b"), ("convnet_ops", "tf32", "c01b")] + peers
        result = made_up_result(keys)
        check_bars(chart.draw(result), result, keys)


def test_missing_row():
    """A peer that lacks a layer has bars of the others, and no mean, which would be one of other layers."""
    keys = [("convnet_ops", "float32", "c01b"), ("cudnn", "float32", "nchw")]
    result = made_up_result(keys)
    assert result["rows"].pop(1)["impl"] == "cudnn"
    found = bars(chart.draw(result).axes[0])
    assert len(found["convnet_ops float32"]) == 3
    assert found["cuDNN float32"] == tflops(result, "fwd", keys[1])
    assert len(found["cuDNN float32"]) == 1


def test_labels():
    """A layer with several batches names them, and a long name is broken."""
    result = made_up_result(list(LABELS), (("first", 1), ("first", 16), ("alex2_two_groups", 64)))
    figure = chart.draw(result)
    check_bars(figure, result, list(LABELS))
    assert tick_labels(figure.axes[2]) == ["first\nN=1", "first\nN=16", "alex2\ntwo_groups", "mean\n(geometric)"]


def test_file():
    """The command writes an SVG, and the same one again."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "result.json")
        with open(source, "w", encoding="utf-8") as file:
            json.dump(made_up_result(list(LABELS)), file)
        contents = []
        for name in ("one.svg", "two.svg"):
            chart.main([source, os.path.join(folder, name)])
            with open(os.path.join(folder, name), "rb") as file:
                contents.append(file.read())
    assert contents[0] == contents[1]
    assert ElementTree.fromstring(contents[0]).tag == "{http://www.w3.org/2000/svg}svg"
