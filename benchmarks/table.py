"""Makes a table of benchmarks/README.md from a result of the benchmarks.

    python -m benchmarks.table RESULT.json [README.md [NAME]]

Prints it, or puts it between the markers of its name, or of NAME, in that file.
"""

import json
import math
import sys

DIRECTIONS = ("fwd", "dimages", "dfilters")


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(math.log(value) for value in values) / len(values))


def provenance(result):
    """Of what and when the result is: what it does not say, such as a CPU's driver, is left out."""
    versions = result["versions"]
    parts = [
        (result["device"], "%s"),
        (result.get("threads"), "%d threads"),
        (result.get("driver"), "driver %s"),
        (versions.get("cuda"), "CUDA %s"),
        (versions["theano"], "Theano %s"),
        (versions.get("torch"), "PyTorch %s"),
        (versions.get("cudnn"), "cuDNN %s"),
        (result["date"], "%s"),
        (result["commit"][:12], "commit %s"),
    ]
    return ", ".join(form % value for value, form in parts if value is not None) + "."


def duration(ms):
    return "%.0f us" % (1e3 * ms) if ms < 1 else "%.3g ms" % ms


def memory_markdown(result):
    """The Markdown table of benchmarks.memory_ops: times, and shares of the rate of a copy."""
    benches = {}
    for row in result["rows"]:
        benches.setdefault((row["op"], row["direction"], tuple(row["shape"])), {})[row["impl"]] = row
    peers = "ratio: the time of the faster of Theano and PyTorch to ours."
    if "torch" not in result["versions"]:
        peers = "ratio: Theano's time to ours; PyTorch was not measured."
    lines = [
        provenance(result),
        "",
        "A copy moves %.0f GB/s, read and write counted; %s" % (result["copy_gb_s"], peers),
        "",
        "| op | (C, H, W, N) | convnet_ops | GB/s | of the copy | error | Theano | PyTorch | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (op, direction, shape), impls in benches.items():
        ours, theirs = impls["convnet_ops"], [impls[name]["ms"] for name in ("theano", "pytorch") if name in impls]
        lines.append(
            "| %s, %s | %s | %s | %s | %.0f %% | %.1e | %s | %s | %s |"
            % (
                op,
                direction,
                shape,
                duration(ours["ms"]),
                "%.*f" % (ours["gb_s"] < 100, ours["gb_s"]),
                100 * ours["share_of_copy"],
                ours["rel_err"],
                duration(impls["theano"]["ms"]) if "theano" in impls else "-",
                duration(impls["pytorch"]["ms"]) if "pytorch" in impls else "-",
                "%.2f" % (min(theirs) / ours["ms"]) if theirs else "-",
            )
        )
    return "\n".join(lines)


def conv_cells(result):
    """The rows of benchmarks.conv by (layer, batch, direction), and in each by (implementation, precision)."""
    cells = {}
    for row in result["rows"]:
        key = row["impl"] + (" bc01" if row["impl"] == "convnet_ops" and row["layout"] == "bc01" else "")
        cells.setdefault((row["layer"], row["batch"], row["direction"]), {})[key, row["precision"]] = row
    return cells


def our_precisions(cells):
    """{precision: the heading of its TFLOP/s}, of ours that a result has everywhere: older ones lack the last."""
    headings = {"float32": "TFLOP/s", "tf32": "with TF32", "float16": "with float16"}
    return {
        precision: heading
        for precision, heading in headings.items()
        if all(("convnet_ops", precision) in row for row in cells.values())
    }


def directions(rows, column, key="tflops", form="%.1f"):
    """A figure of the rows of the three directions, in one cell of a table."""
    return " / ".join(form % row[column][key] for row in rows)


def markdown(result):
    """The Markdown table of benchmarks.conv: TFLOP/s by layer and direction, and the ratios to cuDNN."""
    cells = conv_cells(result)
    columns = [
        ("convnet_ops", "float32"),
        ("cudnn", "float32"),
        ("theano_corrmm", "float32"),
        ("convnet_ops", "tf32"),
        ("cudnn", "tf32"),
    ]
    lines = [
        provenance(result),
        "",
        "TFLOP/s, forward / gradient of the images / gradient of the filters; ratio: ours to cuDNN's; errors: our "
        "largest, and cuDNN's. A copy moves %.0f GB/s, cuBLAS's float32 matrix product reaches %.1f TFLOP/s."
        % (result["copy_gb_s"], result["sgemm_tflops"]),
        "",
        "| layer | convnet_ops | cuDNN | ratio | GpuCorrMM | errors | TF32: convnet_ops | cuDNN | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for layer, batch in dict.fromkeys(key[:2] for key in cells):
        rows = [cells[layer, batch, direction] for direction in DIRECTIONS]
        ours, cudnn, corrmm, ours_tf32, cudnn_tf32 = (directions(rows, column, form="%.3g") for column in columns)
        ratios = [
            " / ".join("%.2f" % (row["cudnn", p]["ms"] / row["convnet_ops", p]["ms"]) for row in rows)
            for p in ("float32", "tf32")
        ]
        errors = " and ".join(
            "%.0e" % max(row[impl, "float32"]["rel_err"] for row in rows) for impl in ("convnet_ops", "cudnn")
        )
        lines.append(
            "| %s |" % " | ".join([layer, ours, cudnn, ratios[0], corrmm, errors, ours_tf32, cudnn_tf32, ratios[1]])
        )
    means = [geometric_mean(row[column]["tflops"] for row in cells.values()) for column in columns]
    lines.append(
        "| geometric mean | %.1f | %.1f | %.2f | %.1f | | %.1f | %.1f | %.2f |"
        % (means[0], means[1], means[0] / means[1], means[2], means[3], means[4], means[3] / means[4])
    )
    return "\n".join(lines)


def ours_markdown(result):
    """The Markdown table of benchmarks.conv --ours-only: TFLOP/s, the kernels chosen, errors and workspaces."""
    cells = conv_cells(result)
    precisions = our_precisions(cells)
    lines = [
        provenance(result),
        "",
        "Forward / gradient of the images / gradient of the filters; kernels, errors and workspaces: of float32.",
        "",
        "| layer | batch | %s | kernels | errors | workspace, MB |" % " | ".join(precisions.values()),
        "|---|---|%s---|---|---|" % ("---|" * len(precisions)),
    ]
    for layer, batch in dict.fromkeys(key[:2] for key in cells):
        rows = [cells[layer, batch, direction] for direction in DIRECTIONS]
        columns = [directions(rows, ("convnet_ops", precision)) for precision in precisions]
        columns += [
            directions(rows, ("convnet_ops", "float32"), key, form)
            for key, form in (("variant", "%s"), ("rel_err", "%.1e"), ("workspace_mb", "%.0f"))
        ]
        lines.append("| %s | %d | %s |" % (layer, batch, " | ".join(columns)))
    means = [
        geometric_mean(row["convnet_ops", precision]["tflops"] for row in cells.values())
        for precision in precisions
    ]
    lines.append("| geometric mean | | %s | | | |" % " | ".join("%.1f" % mean for mean in means))
    return "\n".join(lines)


def layers_markdown(result):
    """The Markdown table of benchmarks.conv by layer and batch: our TFLOP/s, and the peers' times over ours."""
    cells = conv_cells(result)
    precisions = our_precisions(cells)
    # Heading, theirs, and ours that it is compared with; without cuDNN in the result, without it in the table.
    peers = [
        ("GpuCorrMM's time over ours", ("theano_corrmm", "float32"), ("convnet_ops", "float32")),
        ("the same in bc01", ("theano_corrmm", "float32"), ("convnet_ops bc01", "float32")),
        ("cuDNN's time over ours", ("cudnn", "float32"), ("convnet_ops", "float32")),
        ("the same with TF32", ("cudnn", "tf32"), ("convnet_ops", "tf32")),
    ]
    peers = [peer for peer in peers if all(peer[1] in row for row in cells.values())]
    headings = list(precisions.values()) + [heading for heading, _, _ in peers]
    lines = [
        provenance(result),
        "",
        "Forward / gradient of the images / gradient of the filters.",
        "",
        "| layer | batch | %s |" % " | ".join(headings),
        "|---|---|%s" % ("---|" * len(headings)),
    ]
    for layer, batch in dict.fromkeys(key[:2] for key in cells):
        rows = [cells[layer, batch, d] for d in DIRECTIONS if (layer, batch, d) in cells]
        columns = [directions(rows, ("convnet_ops", precision)) for precision in precisions]
        columns += [
            " / ".join("%.2f" % (row[theirs]["ms"] / row[ours]["ms"]) for row in rows) for _, theirs, ours in peers
        ]
        lines.append("| %s | %d | %s |" % (layer, batch, " | ".join(columns)))
    return "\n".join(lines)


def odd_batches_markdown(result):
    """The Markdown table of benchmarks.conv with two batches: what an image costs more in the second, in percent."""
    cells = conv_cells(result)
    first, second = dict.fromkeys(batch for _, batch, _ in cells)
    precisions = our_precisions(cells)
    layers = [layer for layer in dict.fromkeys(key[0] for key in cells) if (layer, second, DIRECTIONS[-1]) in cells]

    def ratio(layer, direction, precision):
        ms = [cells[layer, batch, direction]["convnet_ops", precision]["ms"] / batch for batch in (first, second)]
        return ms[1] / ms[0]

    lines = [
        provenance(result),
        "",
        "What an image of %d costs more than one of %d, in percent: forward / gradient of the images / gradient of the "
        "filters." % (second, first),
        "",
        "| layer | microseconds at %d | %s |" % (first, " | ".join(precisions)),
        "|---|---|%s" % ("---|" * len(precisions)),
    ]
    for layer in layers:
        rows = [cells[layer, first, direction] for direction in DIRECTIONS]
        columns = [" / ".join("%.0f" % (1e3 * row["convnet_ops", "float32"]["ms"]) for row in rows)]
        columns += [
            " / ".join("%.0f" % (100 * (ratio(layer, direction, precision) - 1)) for direction in DIRECTIONS)
            for precision in precisions
        ]
        lines.append("| %s | %s |" % (layer, " | ".join(columns)))
    means = [
        "%.1f" % (100 * (geometric_mean(ratio(layer, way, precision) for layer in layers for way in DIRECTIONS) - 1))
        for precision in precisions
    ]
    lines.append("| geometric mean | | %s |" % " | ".join(means))
    return "\n".join(lines)


def networks_markdown(result):
    """The Markdown table of benchmarks.networks: the time of a training step, and what part of that is Theano's."""
    ways = list(dict.fromkeys(row["way"] for row in result["rows"]))
    lines = [
        provenance(result),
        "",
        "| network | batch | %s |" % " | ".join(ways),
        "|---|---|%s" % ("---|" * len(ways)),
    ]
    for network in dict.fromkeys(row["network"] for row in result["rows"]):
        rows = {row["way"]: row for row in result["rows"] if row["network"] == network}
        cells = ["%s (%.2f)" % (duration(rows[way]["ms"]), rows["theano"]["ms"] / rows[way]["ms"]) for way in ways]
        lines.append("| %s | %d | %s |" % (network, rows["theano"]["batch"], " | ".join(cells)))
    return "\n".join(lines)


def swapped_markdown(result):
    """The Markdown table of benchmarks.swapped: Theano's time over ours, by layer and batch."""
    cells = {(row["layer"], row["batch"], row["direction"]): row["ratio"] for row in result["rows"]}
    layers, batches, directions = (list(dict.fromkeys(column)) for column in zip(*cells))
    lines = [
        provenance(result),
        "",
        "Theano's time over ours: %s." % " / ".join(directions),
        "",
        "| layer | %s |" % " | ".join("batch %d" % batch for batch in batches),
        "|---|%s" % ("---|" * len(batches)),
    ]
    for layer in layers:
        ratios = [" / ".join("%.3g" % cells[layer, batch, way] for way in directions) for batch in batches]
        lines.append("| %s | %s |" % (layer, " | ".join(ratios)))
    return "\n".join(lines)


MARKERS = {
    "table": markdown,
    "ours": ours_markdown,
    "batches": layers_markdown,
    "small-batches": layers_markdown,
    "odd-batches": odd_batches_markdown,
    "more-layers": layers_markdown,
    "memory": memory_markdown,
    "memory-cpu": memory_markdown,
    "networks": networks_markdown,
    "networks-cpu": networks_markdown,
    "swapped": swapped_markdown,
    "swapped-cpu": swapped_markdown,
}


def replace_table(text, name, table):
    """`text` with `table` between the markers of that name."""
    begin, end = "<!-- %s: begin -->" % name, "<!-- %s: end -->" % name
    before, rest = text.split(begin)
    return before + begin + "\n" + table + "\n" + end + rest.split(end)[1]


def main(arguments):
    with open(arguments[0], encoding="utf-8") as file:
        result = json.load(file)
    name = result.get("table", "memory" if "op" in result["rows"][0] else "table")
    target = arguments[2] if len(arguments) > 2 else name
    table = MARKERS.get(target, MARKERS[name])(result)
    if len(arguments) == 1:
        print(table)
        return
    with open(arguments[1], encoding="utf-8") as file:
        text = replace_table(file.read(), target, table)
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
