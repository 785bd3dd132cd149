"""Times the ops that are bound by memory, on the GPU, beside Theano's own and a device-to-device copy.

    python -m benchmarks.memory_ops RESULT.json

GB/s counts the fewest bytes that must move: every input and every output once; the copy, what it reads and writes.
Medians, interleaved, timed with CUDA events after a warm-up, on random data; results are checked against reference.py
in float64 on a slice, after the outputs were filled with NaN.
"""

import argparse
import json
import sys

import convnet_ops  # noqa: F401  (prepares Theano)
import numpy as np
import theano
import theano.tensor as T
from convnet_ops import CrossMapNorm, CrossMapNormUndo, MaxPool, MaxPoolGrad, reference
from theano.compile.mode import Mode
from theano.tensor.signal.pool import pool_2d

from benchmarks import environment
from benchmarks.conv import relative_error, time_functions

# (channels, size, batch, window, stride); batch 100 and 129 are tails
POOLS = [(64, 55, 128, 3, 2), (192, 27, 128, 3, 2), (256, 13, 128, 3, 2), (32, 24, 500, 2, 2), (64, 55, 100, 3, 2)]
POOLS += [(64, 55, 129, 3, 2)]
# (channels, size, batch)
NORMS = [(64, 55, 128), (256, 27, 128), (64, 55, 100), (64, 55, 129)]
ALEXNET = (5, 1e-4, 0.75, False)


def shared(array):
    return theano.shared(array.astype("float32"))


def compiled(outputs):
    """A function without inputs, its outputs left on the GPU."""
    outputs = [theano.Out(output.transfer(None), borrow=True) for output in outputs]
    return theano.function([], outputs, mode=Mode(linker="cvm_nogc", optimizer="fast_run").including("gpuarray"))


class Bench(object):
    """The implementations of one op on one shape as {impl: function}, the bytes to move, its right result."""

    def __init__(self, op, direction, shape):
        self.op, self.direction, self.shape = op, direction, shape
        self.functions, self.bytes, self.wanted = {}, 0, None

    def error(self):
        """Of our outputs on the first 4 images, after they were filled with NaN."""
        function = self.functions["convnet_ops"]
        for output in function():
            output[...] = np.nan
        return max(relative_error(np.array(out[..., :4]), ref) for out, ref in zip(function(), self.wanted))


def pool_benches(channels, size, batch, window, stride):
    rng = np.random.RandomState()
    images = rng.standard_normal((channels, size, size, batch)).astype("float32")
    op = MaxPool(window, stride)
    x = shared(images)
    top = np.array(compiled([op(x)])()[0])
    gz = rng.standard_normal(top.shape).astype("float32")
    maxout, z = shared(top), shared(gz)
    few = slice(None), slice(None), slice(None), slice(0, 4)

    forward = Bench("MaxPool %d/%d" % (window, stride), "forward", images.shape)
    forward.bytes = images.nbytes + top.nbytes
    forward.functions["convnet_ops"] = compiled([op(x)])
    forward.wanted = [reference.max_pool(images[few], window, stride)]
    backward = Bench(forward.op, "gradient", images.shape)
    backward.bytes = 2 * images.nbytes + 2 * top.nbytes
    backward.functions["convnet_ops"] = compiled([MaxPoolGrad(window, stride)(x, maxout, z)])
    backward.wanted = [reference.max_pool_grad(images[few], top[few], gz[few], window, stride)]

    theirs = shared(np.ascontiguousarray(images.transpose(3, 0, 1, 2)))
    pooled = pool_2d(theirs, (window, window), stride=(stride, stride), ignore_border=True)
    forward.functions["theano"] = compiled([pooled])
    rows = forward.functions["theano"]()[0].shape[2]
    gradient = shared(np.ascontiguousarray(gz[:, :rows, :rows].transpose(3, 0, 1, 2)))
    backward.functions["theano"] = compiled([T.grad(None, theirs, known_grads={pooled: gradient})])
    return [forward, backward]


def lasagnes_norm(x, size, alpha, beta):
    """Normalisation as users of Theano write it, on bc01."""
    squares, half = T.sqr(x), size // 2
    batch, channels, rows, cols = x.shape
    padded = T.alloc(np.float32(0), batch, channels + 2 * half, rows, cols)
    padded = T.set_subtensor(padded[:, half : half + channels], squares)
    scale = sum(padded[:, i : i + channels] for i in range(size))
    return x / (1 + np.float32(alpha) * scale) ** np.float32(beta)


def norm_benches(channels, size, batch):
    rng = np.random.RandomState()
    images, dout = (rng.standard_normal((channels, size, size, batch)).astype("float32") for _ in range(2))
    # Values of a size that makes the denominators differ from 1.
    images *= 30
    x, g = shared(images), shared(dout)
    norm = CrossMapNorm(*ALEXNET)
    few = slice(None), slice(None), slice(None), slice(0, 4)
    acts, denoms = reference.cross_map_norm(images[few], *ALEXNET)

    forward = Bench("CrossMapNorm", "forward", images.shape)
    forward.bytes = 3 * images.nbytes
    forward.functions["convnet_ops"] = compiled(norm(x))
    forward.wanted = [acts, denoms]
    our_acts, our_denoms = (shared(np.array(value)) for value in forward.functions["convnet_ops"]())
    backward = Bench("CrossMapNorm", "Undo", images.shape)
    backward.bytes = 6 * images.nbytes
    backward.functions["convnet_ops"] = compiled(CrossMapNormUndo(*ALEXNET)(x, our_acts, our_denoms, g))
    backward.wanted = reference.cross_map_norm_undo(images[few], acts, denoms, dout[few], *ALEXNET)

    theirs = shared(np.ascontiguousarray(images.transpose(3, 0, 1, 2)))
    gradient = shared(np.ascontiguousarray(dout.transpose(3, 0, 1, 2)))
    output = lasagnes_norm(theirs, *ALEXNET[:3])
    forward.functions["theano"] = compiled([output])
    backward.functions["theano"] = compiled([T.grad(None, theirs, known_grads={output: gradient})])
    return [forward, backward]


def copy_rate(repeats):
    """GB/s of a device-to-device copy of 256 MB, read and write counted."""
    from pycuda import driver

    size = 1 << 28
    source, target = driver.mem_alloc(size), driver.mem_alloc(size)
    begin, end, times = driver.Event(), driver.Event(), []
    for _ in range(repeats + 3):
        begin.record()
        for _ in range(10):
            driver.memcpy_dtod_async(target, source, size)
        end.record()
        end.synchronize()
        times.append(begin.time_till(end) / 10)
    source.free()
    target.free()
    return 2 * size / np.median(times[3:]) / 1e6


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    with environment.pycuda_on_theanos_context():
        run(options)


def run(options):
    rate, rows = copy_rate(options.repeats), []
    print("copy: %.0f GB/s" % rate)
    for build, shapes in ((pool_benches, POOLS), (norm_benches, NORMS)):
        for shape in shapes:
            for bench in build(*shape):
                error = bench.error()
                for impl, ms in time_functions(bench.functions, options.repeats).items():
                    gb_s = bench.bytes / ms / 1e6
                    rows.append(
                        {
                            "op": bench.op,
                            "direction": bench.direction,
                            "shape": list(bench.shape),
                            "impl": impl,
                            "ms": ms,
                            "gb_s": gb_s,
                            "share_of_copy": gb_s / rate,
                            "rel_err": error if impl == "convnet_ops" else None,
                        }
                    )
                    print(
                        "%-13s %-9s %-18s %-12s %8.3f ms %6.0f GB/s %5.2f of copy, error %s"
                        % (bench.op, bench.direction, bench.shape, impl, ms, gb_s, gb_s / rate, rows[-1]["rel_err"])
                    )
                    sys.stdout.flush()
            with open(options.result, "w", encoding="utf-8") as result:
                json.dump(dict(environment.describe(), copy_gb_s=rate, rows=rows), result, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
