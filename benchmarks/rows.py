"""Times every row of the kernel tables on the layers of the benchmark: what the weights of the rows are set by.

    python -m benchmarks.rows RESULT.json [--layers lenet1 alex2 ...] [--batches 1 16 ...] [--repeats 5] [--tiles]

With --tiles it times Winograd's tiles and those of Fourier transforms in their place, "none" being the direct kernels.
Prints, for every layer, precision and direction, the rows from the fastest on, and what the host code chose.
"""

import argparse
import json
import os
import sys

from benchmarks import conv, environment
from benchmarks.timing import QUEUED_CALLS, QueuedTimer, interleave, repeat
from tests import problems


def time_row(benchmark, key, family, row, repeats):
    """(milliseconds, row/splits) of one row, or None if it does not support the layer; '' is the host code's choice."""
    if row:
        os.environ["CONVNET_OPS_VARIANT"] = "%s=%s" % (family, row)
    try:
        with conv.printed_choices() as text:
            benchmark.functions[key]()
        ms = interleave({row: repeat(benchmark.functions[key], QueuedTimer(), 4, QUEUED_CALLS)}, repeats)[row]
        return ms, text.getvalue().split("row ")[1].split(", workspace")[0].replace(", splits ", "/")
    except ValueError:
        return None
    finally:
        os.environ.pop("CONVNET_OPS_VARIANT", None)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--layers", nargs="+", default=[layer.name for layer in problems.LAYERS])
    parser.add_argument("--batches", nargs="+", type=int, help="instead of each layer's own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiles", action="store_true", help="time tiles, not rows")
    options = parser.parse_args(arguments)
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [conv.FLAGS, os.environ.get("THEANO_FLAGS")]))
    import convnet_ops  # noqa: F401  (prepares Theano, which opens the GPU)

    with environment.pycuda_on_theanos_context():
        run(options)


def run(options):
    from convnet_ops import tiles

    rows = []
    for name in options.layers:
        for batch in options.batches or [conv.LAYERS[name].batch]:
            benchmark = conv.LayerBenchmark(conv.LAYERS[name]._replace(batch=batch), theanos=False, bc01=False)
            for key in benchmark.functions:
                family = "tiles" if options.tiles else conv.FAMILIES[key[3]]
                names = ["none"] + [row.name for row in tiles.OPERANDS.rows]
                if not options.tiles:
                    families = {table.name: table for table in conv.wanted_op(key[0], key[3]).kernel_families}
                    family += "_f16" if key[1] == "float16" else ""
                    names = [row.name for row in families[family].rows]
                    # Loads of single floats are for batches that nothing else takes.
                    names = [row for row in names if row != "plain" and (batch < 4 or not row.endswith("_n1"))]
                    if key[1] == "tf32":
                        names = [row for row in names if row.startswith("tf32")]
                timed = {row: time_row(benchmark, key, family, row, options.repeats) for row in names}
                timed = {row: found for row, found in timed.items() if found is not None}
                ms, chosen = time_row(benchmark, key, family, "", options.repeats)
                ranking = sorted(timed.values())
                print(
                    "%-10s %4d %-8s %-8s %6.1f TFLOP/s, chosen %s %.3f ms (%.2f of the best): %s"
                    % (
                        name,
                        batch,
                        key[1],
                        key[3],
                        benchmark.flops / ms / 1e9,
                        chosen,
                        ms,
                        ms / ranking[0][0],
                        ", ".join("%s %.3f" % (row, found) for found, row in ranking[:6]),
                    )
                )
                sys.stdout.flush()
                row = {"layer": name, "batch": batch, "precision": key[1], "direction": key[3], "chosen": chosen}
                rows.append(dict(row, chosen_ms=ms, ms={row: found[0] for row, found in timed.items()}))
    with open(options.result, "w", encoding="utf-8") as result:
        json.dump(dict(environment.describe(), rows=rows), result, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
