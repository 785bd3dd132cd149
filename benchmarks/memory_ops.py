"""Times the ops that are bound by memory beside Theano's own, PyTorch's and a copy, on the GPU or the CPU.

    python -m benchmarks.memory_ops RESULT.json [--device cpu] [--torch-python PYTHON] [--ops MaxPool ...]

GB/s counts the fewest bytes that must move: every input and every output once; the copy, what it reads and writes.
Medians of interleaved repeats, after a warm-up, on random data, each library in its own layout (PyTorch in the better
of its two); a gradient is given what the forward pass has left. Our results and Theano's are checked against
reference.py in float64 on a slice, after the outputs were filled with NaN.

PyTorch, for which Theano's Python may be too old, runs in a process of its own, in turn with this one (torch_peer.py).
"""

import argparse
import contextlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks import environment, timing
from benchmarks.peer import TorchPeer

# (channels, size, batch, window, stride); odd batches and those of 100 are tails
_POOLS = {
    "cuda": [(64, 55, 128, 3, 2), (64, 55, 129, 3, 2), (32, 24, 500, 2, 2)],
    "cpu": [(64, 55, 32, 3, 2), (64, 55, 33, 3, 2), (32, 24, 125, 2, 2)],
}
SHAPES = {
    "MaxPool": {
        "cuda": _POOLS["cuda"] + [(192, 27, 128, 3, 2), (256, 13, 128, 3, 2), (64, 55, 100, 3, 2)],
        "cpu": _POOLS["cpu"] + [(192, 27, 32, 3, 2)],
    },
    "AvgPool": _POOLS,
    "StochasticMaxPool": _POOLS,
    "WeightedMaxPool": _POOLS,
    # (channels, size, batch, block)
    "ProbMaxPool": {
        "cuda": [(32, 24, 500, 2), (64, 56, 128, 2), (64, 56, 129, 2), (64, 54, 128, 3)],
        "cpu": [(32, 24, 125, 2), (64, 56, 32, 2), (64, 56, 33, 2), (64, 54, 32, 3)],
    },
    # (channels, size, batch)
    "ShuffleDims": {
        "cuda": [(64, 55, 128), (3, 224, 128), (384, 13, 128), (64, 55, 129), (192, 5, 64), (256, 6, 4096)],
        "cpu": [(64, 55, 32), (3, 224, 32), (64, 55, 33)],
    },
    "FusedActsGrad": {
        "cuda": [(64, 55, 128), (192, 27, 128), (384, 13, 128), (64, 55, 129)],
        "cpu": [(64, 55, 32), (192, 27, 32)],
    },
    "CrossMapNorm": {
        "cuda": [(64, 55, 128), (256, 27, 128), (64, 55, 100), (64, 55, 129)],
        "cpu": [(64, 55, 32), (256, 27, 32), (64, 55, 33)],
    },
}
# The user's flags come after these. gpuarray.preallocate: PyTorch's process shares the card.
FLAGS = {"cuda": "floatX=float32,dnn.enabled=False,gpuarray.preallocate=0", "cpu": "floatX=float32,openmp=True"}
REPEAT_MS = 10.0
COPY_BYTES = 1 << 28


def time_bench(bench, elapsed, repeats, torch):
    """{impl: (milliseconds, layout)}."""
    layouts = {"convnet_ops": "c01b", "theano": "bc01"}
    timers = {
        (impl, layouts[impl]): timing.repeat(function, elapsed, REPEAT_MS) for impl, function in bench.functions.items()
    }
    if torch is not None and bench.request:
        timers.update(torch.timers(bench.request))
    best = {}
    for (impl, layout), ms in timing.interleave(timers, repeats).items():
        best[impl] = min(best.get(impl, (ms, layout)), (ms, layout))
    if torch is not None:
        torch.ask()
    return best


def copy_rate_cuda(repeats):
    """GB/s of a device-to-device copy, read and write counted."""
    from pycuda import driver

    source, target = driver.mem_alloc(COPY_BYTES), driver.mem_alloc(COPY_BYTES)
    begin, end = driver.Event(), driver.Event()

    def copy():
        begin.record()
        for _ in range(10):
            driver.memcpy_dtod_async(target, source, COPY_BYTES)
        end.record()
        end.synchronize()
        return begin.time_till(end) / 10

    copy()
    ms = timing.interleave({"copy": copy}, repeats)["copy"]
    source.free()
    target.free()
    return 2 * COPY_BYTES / ms / 1e6


def copy_rate_cpu(repeats):
    """GB/s of a copy by all cores, read and write counted."""
    threads = environment.threads()
    sources, targets = ([np.full(COPY_BYTES // threads, value, "uint8") for _ in range(threads)] for value in (1, 2))
    with ThreadPoolExecutor(threads) as pool:

        def copy():
            begin = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            return 1e3 * (time.perf_counter() - begin)

        copy()
        return 2 * COPY_BYTES / timing.interleave({"copy": copy}, repeats)["copy"] / 1e6


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--device", choices=sorted(FLAGS), default="cuda")
    parser.add_argument("--torch-python", metavar="COMMAND", help="a Python that has PyTorch; without, no rows of its")
    parser.add_argument("--ops", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    # As they are before convnet_ops' import sets what suits Theano.
    environ = dict(os.environ)
    flags = [FLAGS[options.device], environ.get("THEANO_FLAGS"), "device=" + options.device]
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, flags))
    torch = TorchPeer(options.torch_python, options.device, environ) if options.torch_python else None
    import convnet_ops  # noqa: F401  (prepares Theano, which opens the GPU)

    with environment.pycuda_on_theanos_context() if options.device == "cuda" else contextlib.nullcontext():
        run(options, torch)
    if torch is not None:
        torch.close()


def run(options, torch):
    from benchmarks import memory_benches

    on_gpu = options.device == "cuda"
    elapsed = timing.elapsed_cuda if on_gpu else timing.elapsed_cpu
    result = environment.describe(options.device)
    result["versions"].update(torch.versions if torch else {})
    rate = copy_rate_cuda(options.repeats) if on_gpu else copy_rate_cpu(options.repeats)
    result.update(table="memory" if on_gpu else "memory-cpu", repeats=options.repeats, copy_gb_s=rate, rows=[])
    print("copy: %.1f GB/s" % rate)
    for op in options.ops:
        for shape in SHAPES[op][options.device]:
            for bench in memory_benches.BUILDERS[op](*shape):
                errors = bench.errors()
                for impl, (ms, layout) in time_bench(bench, elapsed, options.repeats, torch).items():
                    gb_s = bench.bytes / ms / 1e6
                    row = dict(op=bench.label, direction=bench.direction, shape=list(bench.shape), impl=impl)
                    row.update(layout=layout, ms=ms, gb_s=gb_s, share_of_copy=gb_s / rate, rel_err=errors.get(impl))
                    result["rows"].append(row)
                    form = (
                        "%(op)-21s %(direction)-9s %(shape)-19s %(impl)-11s %(layout)-13s %(ms)8.3f ms %(gb_s)6.1f GB/s"
                    )
                    print(form % row, "%(share_of_copy)5.2f of copy, error %(rel_err)s" % row, flush=True)
            with open(options.result, "w", encoding="utf-8") as file:
                json.dump(result, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
