"""Times FilterActs and its two gradients beside Theano's GpuCorrMM, on the GPU.

    python -m benchmarks.conv RESULT.json [--layers lenet1 alex2 ...] [--repeats 15]

Both libraries run in one process, interleaved, on random data, each in its own layout (c01b, bc01). A figure is the
median over the repeats, timed with CUDA events after a warm-up; each repeat is long enough to swamp the clock. Results
are checked first: the plain kernel, which sums in double precision, against NumPy's float64 on a sample of the outputs,
then everything against the plain kernel.

FLOPs are counted as 2 * N * F * C * k * k * OH * OW with OH = floor((H + 2 * pad - k) / stride) + 1 for both libraries.
FilterActs takes the ceil, so on alex1 it computes 56 x 56 outputs where GpuCorrMM computes 55 x 55.

Needs PyCUDA (pip install '.[gpu]').
"""

import argparse
import json
import os
import sys

os.environ["THEANO_FLAGS"] = "device=cuda,floatX=float32,dnn.enabled=False," + os.environ.get("THEANO_FLAGS", "")

import convnet_ops  # noqa: E402
import numpy as np  # noqa: E402
import theano  # noqa: E402
from convnet_ops import FilterActs, ImageActs, WeightActs  # noqa: E402
from theano.gpuarray.blas import GpuCorrMM, GpuCorrMM_gradInputs, GpuCorrMM_gradWeights  # noqa: E402
from theano.tensor.nnet.abstract_conv import (  # noqa: E402
    AbstractConv2d,
    AbstractConv2d_gradInputs,
    AbstractConv2d_gradWeights,
)

from benchmarks import environment  # noqa: E402
from benchmarks.timing import relative_error, time_functions  # noqa: E402
from tests import problems  # noqa: E402

DIRECTIONS = ("fwd", "dimages", "dfilters")
OURS = {
    direction: convnet_ops.opt.GPU_TWINS[op]
    for direction, op in zip(DIRECTIONS, (convnet_ops.FilterActs, convnet_ops.ImageActs, convnet_ops.WeightActs))
}
THEANOS = dict(zip(DIRECTIONS, (GpuCorrMM, GpuCorrMM_gradInputs, GpuCorrMM_gradWeights)))
FAMILIES = dict(zip(DIRECTIONS, ("filter_acts", "img_acts", "weight_acts")))


class LayerBenchmark(object):
    """One layer's arrays on the GPU and its functions: {(implementation, direction): function}."""

    def __init__(self, layer, theanos=True):
        self.layer = layer
        rng = np.random.RandomState()
        k = layer.filter_size
        floor = (layer.size + 2 * layer.pad - k) // layer.stride + 1
        ceil = -(-(layer.size + 2 * layer.pad - k) // layer.stride) + 1
        self.flops = 2.0 * layer.batch * layer.filters * layer.channels * k * k * floor * floor
        self.images = rng.standard_normal((layer.channels, layer.size, layer.size, layer.batch)).astype("float32")
        self.filters = rng.standard_normal((layer.channels, k, k, layer.filters)).astype("float32")
        hid = rng.standard_normal((layer.filters, ceil, ceil, layer.batch)).astype("float32")
        # Zero where GpuCorrMM has no output, so that both libraries compute the same gradients.
        hid[:, floor:] = 0
        hid[:, :, floor:] = 0
        self.hid = hid
        self.floor = floor
        self.outputs, self.functions = {}, {}
        self.build_ours()
        if theanos:
            self.build_theanos()

    def build_ours(self):
        images, filters, hid = (theano.shared(array) for array in (self.images, self.filters, self.hid))
        options = dict(pad=self.layer.pad, stride=self.layer.stride, partial_sum=1)
        size, taps = self.images.shape[1:3], self.filters.shape[1:3]
        self.add("convnet_ops", "fwd", FilterActs(**options)(images, filters), OURS)
        self.add("convnet_ops", "dimages", ImageActs(**options)(hid, filters, size), OURS)
        self.add("convnet_ops", "dfilters", WeightActs(**options)(images, hid, taps)[0], OURS)

    def build_theanos(self):
        images = theano.shared(np.ascontiguousarray(self.images.transpose(3, 0, 1, 2)))
        filters = theano.shared(np.ascontiguousarray(self.filters.transpose(3, 0, 1, 2)))
        hid = self.hid[:, : self.floor, : self.floor].transpose(3, 0, 1, 2)
        hid = theano.shared(np.ascontiguousarray(hid))
        options = dict(
            border_mode=(self.layer.pad, self.layer.pad),
            subsample=(self.layer.stride, self.layer.stride),
            filter_flip=False,
        )
        size, taps = self.images.shape[1:3], self.filters.shape[1:3]
        self.add("theano_corrmm", "fwd", AbstractConv2d(**options)(images, filters), THEANOS)
        self.add("theano_corrmm", "dimages", AbstractConv2d_gradInputs(**options)(filters, hid, size), THEANOS)
        self.add("theano_corrmm", "dfilters", AbstractConv2d_gradWeights(**options)(images, hid, taps), THEANOS)

    def add(self, implementation, direction, output, wanted):
        target = theano.shared(np.zeros((1, 1, 1, 1), "float32"))
        function = theano.function([], updates=[(target, output)])
        ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
        assert wanted[direction] in ops, "%s %s compiled to %s" % (implementation, direction, ops)
        self.outputs[implementation, direction] = target
        self.functions[implementation, direction] = function

    def result(self, implementation, direction):
        """A function's output, in c01b, into memory that held NaN."""
        target = self.outputs[implementation, direction]
        self.functions[implementation, direction]()
        poisoned = target.get_value(borrow=True, return_internal_type=True)
        poisoned[...] = np.nan
        self.functions[implementation, direction]()
        value = target.get_value()
        return value if implementation == "convnet_ops" else value.transpose(1, 2, 3, 0)

    def plain_result(self, direction):
        os.environ["CONVNET_OPS_VARIANT"] = FAMILIES[direction] + "=plain"
        try:
            return self.result("convnet_ops", direction)
        finally:
            del os.environ["CONVNET_OPS_VARIANT"]

    def check_plain(self, direction, plain, samples=30):
        """Compare the plain kernel with NumPy's float64 at random outputs."""
        rng = np.random.RandomState()
        pad, stride, k = self.layer.pad, self.layer.stride, self.layer.filter_size
        padded = np.pad(self.images, ((0, 0), (pad, pad + stride), (pad, pad + stride), (0, 0)))
        rows = self.hid.shape[1]
        exact, found = [], []
        for _ in range(samples):
            a, b, c, d = (rng.randint(size) for size in plain.shape)
            if direction == "fwd":
                window = padded[:, b * stride : b * stride + k, c * stride : c * stride + k, d]
                value = np.sum(window.astype("float64") * self.filters[..., a])
            elif direction == "dfilters":
                seen = padded[a, b : b + rows * stride : stride, c : c + rows * stride : stride][:rows, :rows]
                value = np.sum(seen.astype("float64") * self.hid[d])
            else:
                value = 0.0
                for r in range(k):
                    for s in range(k):
                        y, x = b + pad - r, c + pad - s
                        if y % stride == 0 and x % stride == 0 and 0 <= y < rows * stride and 0 <= x < rows * stride:
                            hid = self.hid[:, y // stride, x // stride, d].astype("float64")
                            value += np.sum(hid * self.filters[a, r, s])
            exact.append(value)
            found.append(plain[a, b, c, d])
        error = relative_error(np.array(found), np.array(exact))
        assert error < 5e-7, "the plain kernel of %s is off by %g on %s" % (direction, error, self.layer.name)

    def errors(self):
        """{(implementation, direction): relative error against the plain kernel}."""
        errors = {}
        for direction in DIRECTIONS:
            plain = self.plain_result(direction)
            self.check_plain(direction, plain)
            for implementation in ("convnet_ops", "theano_corrmm"):
                value = self.result(implementation, direction)
                errors[implementation, direction] = relative_error(
                    value,
                    plain[:, : self.floor, : self.floor]
                    if direction == "fwd" and value.shape != plain.shape
                    else plain,
                )
        return errors


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--layers", nargs="+", default=[layer.name for layer in problems.LAYERS])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    with environment.pycuda_on_theanos_context():
        run(options)


def run(options):
    rows = []
    for layer in problems.LAYERS:
        if layer.name not in options.layers:
            continue
        benchmark = LayerBenchmark(layer)
        errors = benchmark.errors()
        times = time_functions(benchmark.functions, options.repeats)
        for (implementation, direction), ms in times.items():
            rows.append(
                {
                    "layer": layer.name,
                    "batch": layer.batch,
                    "direction": direction,
                    "impl": implementation,
                    "precision": "float32",
                    "layout": "c01b" if implementation == "convnet_ops" else "bc01",
                    "ms": ms,
                    "tflops": benchmark.flops / ms / 1e9,
                    "rel_err": errors[implementation, direction],
                }
            )
        for direction in DIRECTIONS:
            ours, theirs = times["convnet_ops", direction], times["theano_corrmm", direction]
            print(
                "%-8s %-8s %8.3f ms %6.1f TFLOP/s   GpuCorrMM %8.3f ms %6.1f TFLOP/s   ratio %6.2f   errors %.1e %.1e"
                % (
                    layer.name,
                    direction,
                    ours,
                    benchmark.flops / ours / 1e9,
                    theirs,
                    benchmark.flops / theirs / 1e9,
                    theirs / ours,
                    errors["convnet_ops", direction],
                    errors["theano_corrmm", direction],
                )
            )
            sys.stdout.flush()
        with open(options.result, "w", encoding="utf-8") as result:
            json.dump(dict(environment.describe(), rows=rows), result, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
