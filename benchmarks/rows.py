"""Times every row of the kernel tables on the layers of the benchmark: what the weights of the rows are set by.

    python -m benchmarks.rows RESULT.json [--layers lenet1 alex2 ...] [--repeats 5]

Prints, for every layer and direction, the rows from the fastest on, and marks the one that the host code chooses.
"""

import argparse
import json
import os
import sys

from convnet_ops.opt import GPU_TWINS  # noqa: E402

from benchmarks import conv, environment  # conv sets Theano's flags
from tests import problems  # noqa: E402
from tests.test_filter_acts import OPS  # noqa: E402

FAMILIES = {direction: GPU_TWINS[op].kernel_families[0] for direction, op in zip(conv.DIRECTIONS, OPS)}


def time_row(benchmark, direction, row, repeats):
    """Milliseconds of one row, or None if it does not support the layer; '' is the host code's choice."""
    name = conv.FAMILIES[direction]
    if row:
        os.environ["CONVNET_OPS_VARIANT"] = "%s=%s" % (name, row)
    try:
        functions = {row: benchmark.functions["convnet_ops", direction]}
        return conv.time_functions(functions, repeats)[row]
    except ValueError:
        return None
    finally:
        os.environ.pop("CONVNET_OPS_VARIANT", None)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--layers", nargs="+", default=[layer.name for layer in problems.LAYERS])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = []
    with environment.pycuda_on_theanos_context():
        for layer in problems.LAYERS:
            if layer.name not in options.layers:
                continue
            benchmark = conv.LayerBenchmark(layer, theanos=False)
            for direction in conv.DIRECTIONS:
                table = FAMILIES[direction].rows
                # All layers allow loads of 4 floats; the narrower rows are for others.
                widest = max(row.vec_m * row.vec_n for row in table)
                names = [row.name for row in table if row.vec_m * row.vec_n == widest]
                times = {name: time_row(benchmark, direction, name, options.repeats) for name in names}
                times = {name: ms for name, ms in times.items() if ms is not None}
                chosen = time_row(benchmark, direction, "", options.repeats)
                ranking = sorted(times, key=times.get)
                print(
                    "%-8s %-8s chosen %.3f ms (%.2f of the best): %s"
                    % (
                        layer.name,
                        direction,
                        chosen,
                        chosen / times[ranking[0]],
                        ", ".join("%s %.3f" % (name, times[name]) for name in ranking[:4]),
                    )
                )
                sys.stdout.flush()
                rows.append({"layer": layer.name, "direction": direction, "chosen_ms": chosen, "ms": times})
    with open(options.result, "w", encoding="utf-8") as result:
        json.dump(dict(environment.describe(), rows=rows), result, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
