"""Makes a table of benchmarks/README.md from a result of benchmarks.conv or benchmarks.memory_ops.

python -m benchmarks.table RESULT.json [> TABLE.md]
"""

import json
import math
import sys

DIRECTIONS = ("fwd", "dimages", "dfilters")


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(math.log(value) for value in values) / len(values))


def provenance(result):
    return "%s, driver %s, CUDA %s, Theano %s, %s, commit %s." % (
        result["device"],
        result["driver"],
        result["versions"]["cuda"],
        result["versions"]["theano"],
        result["date"],
        result["commit"][:12],
    )


def memory_markdown(result):
    """The Markdown table of benchmarks.memory_ops: times, and shares of the rate of a copy."""
    cells = {(row["op"], row["direction"], tuple(row["shape"]), row["impl"]): row for row in result["rows"]}
    lines = [
        provenance(result),
        "",
        "A copy on the device moves %.0f GB/s, read and write counted." % result["copy_gb_s"],
        "",
        "| op | (C, H, W, N) | convnet_ops | GB/s | of the copy | error | Theano | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (op, direction, shape, impl), row in cells.items():
        if impl == "convnet_ops":
            theirs = cells[op, direction, shape, "theano"]["ms"]
            lines.append(
                "| %s, %s | %s | %.0f us | %.0f | %.0f %% | %.1e | %.0f us | %.2f |"
                % (
                    op,
                    direction,
                    shape,
                    1e3 * row["ms"],
                    row["gb_s"],
                    100 * row["share_of_copy"],
                    row["rel_err"],
                    1e3 * theirs,
                    theirs / row["ms"],
                )
            )
    return "\n".join(lines)


def markdown(result):
    """The Markdown table of benchmarks.conv: TFLOP/s by layer and direction, and the ratios."""
    cells = {(row["layer"], row["direction"], row["impl"]): row for row in result["rows"]}
    layers = list(dict.fromkeys(row["layer"] for row in result["rows"]))
    lines = [
        provenance(result),
        "",
        "TFLOP/s, forward / gradient of the images / gradient of the filters; error: the largest of the three.",
        "",
        "| layer | convnet_ops | GpuCorrMM | ratio | error | error of GpuCorrMM |",
        "|---|---|---|---|---|---|",
    ]

    def three(layer, impl, field, form):
        return " / ".join(form % cells[layer, direction, impl][field] for direction in DIRECTIONS)

    def ratio(layer, direction):
        return cells[layer, direction, "theano_corrmm"]["ms"] / cells[layer, direction, "convnet_ops"]["ms"]

    for layer in layers:
        errors = [
            max(cells[layer, d, impl]["rel_err"] for d in DIRECTIONS) for impl in ("convnet_ops", "theano_corrmm")
        ]
        lines.append(
            "| %s | %s | %s | %s | %.1e | %.1e |"
            % (
                layer,
                three(layer, "convnet_ops", "tflops", "%.1f"),
                three(layer, "theano_corrmm", "tflops", "%.2f"),
                " / ".join("%.3g" % ratio(layer, direction) for direction in DIRECTIONS),
                errors[0],
                errors[1],
            )
        )
    means = [
        geometric_mean(row["tflops"] for row in result["rows"] if row["impl"] == impl)
        for impl in ("convnet_ops", "theano_corrmm")
    ]
    lines.append("| geometric mean | %.1f | %.1f | %.1f | | |" % (means[0], means[1], means[0] / means[1]))
    return "\n".join(lines)


MARKERS = {"table": markdown, "memory": memory_markdown}


def replace_table(text, name, table):
    """`text` with `table` between the markers of that name."""
    begin, end = "<!-- %s: begin -->" % name, "<!-- %s: end -->" % name
    before, rest = text.split(begin)
    return before + begin + "\n" + table + "\n" + end + rest.split(end)[1]


def main(arguments):
    with open(arguments[0], encoding="utf-8") as file:
        result = json.load(file)
    name = "memory" if "op" in result["rows"][0] else "table"
    table = MARKERS[name](result)
    if len(arguments) == 1:
        print(table)
        return
    with open(arguments[1], encoding="utf-8") as file:
        text = file.read()
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(replace_table(text, name, table))


if __name__ == "__main__":
    main(sys.argv[1:])
