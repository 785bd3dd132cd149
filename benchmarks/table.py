"""Makes the table of benchmarks/README.md from a result of benchmarks.conv.

python -m benchmarks.table RESULT.json [> TABLE.md]
"""

import json
import math
import sys

DIRECTIONS = ("fwd", "dimages", "dfilters")


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(math.log(value) for value in values) / len(values))


def markdown(result):
    """The Markdown table of a result: TFLOP/s by layer and direction, and the ratios."""
    cells = {(row["layer"], row["direction"], row["impl"]): row for row in result["rows"]}
    layers = list(dict.fromkeys(row["layer"] for row in result["rows"]))
    lines = [
        "%s, driver %s, CUDA %s, Theano %s, %s, commit %s."
        % (
            result["device"],
            result["driver"],
            result["versions"]["cuda"],
            result["versions"]["theano"],
            result["date"],
            result["commit"][:12],
        ),
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


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def replace_table(text, table):
    """`text` with `table` between its markers."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]


def main(arguments):
    with open(arguments[0], encoding="utf-8") as file:
        table = markdown(json.load(file))
    if len(arguments) == 1:
        print(table)
        return
    with open(arguments[1], encoding="utf-8") as file:
        text = file.read()
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(replace_table(text, table))


if __name__ == "__main__":
    main(sys.argv[1:])
