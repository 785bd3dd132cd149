"""Whole networks in training: in bc01 with Theano's ops, the same after enable(), and written by hand in c01b.

    python -m benchmarks.networks RESULT.json [--device cuda|cpu] [--networks NAME ...]

A step is forward, backward and the update of the parameters, on data that is on the device. First all ways must give
the same cost for several steps from the same parameters, but for rounding, which grows from step to step.
"""

import argparse
import contextlib
import json
import os
import sys

import numpy as np

from benchmarks import environment, timing

# The user's flags come after these.
FLAGS = {"cuda": "floatX=float32,dnn.enabled=False,gpuarray.preallocate=0", "cpu": "floatX=float32,openmp=True"}
# name: channels, size, classes, {device: batch}, layers, dense units;
# a layer: filters, filter size, stride, pad, pool size, pool stride
NETWORKS = {
    "LeNet": (1, 28, 10, {"cuda": 500, "cpu": 500}, [(32, 5, 1, 0, 2, 2), (64, 5, 1, 0, 2, 2)], [500]),
    # Krizhevsky's one-tower net (One weird trick, 2014). On images of 223 all sizes are the same by both rules.
    "AlexNet": (
        3,
        223,
        1000,
        {"cuda": 128, "cpu": 16},
        [
            (64, 11, 4, 2, 3, 2),
            (192, 5, 1, 2, 3, 2),
            (384, 3, 1, 1, 0, 0),
            (256, 3, 1, 1, 0, 0),
            (256, 3, 1, 1, 3, 2),
        ],
        [4096, 4096],
    ),
}
STEPS = 4


class Network(object):
    """A network's numbers, from which every way of writing it starts."""

    def __init__(self, name, device):
        self.channels, self.size, self.classes, batches, self.layers, units = NETWORKS[name]
        self.name, self.batch = name, batches[device]
        rng = np.random.default_rng()
        self.images = rng.random((self.batch, self.channels, self.size, self.size), dtype="float32")
        self.labels = rng.integers(0, self.classes, self.batch).astype("int32")
        channels, size, self.filters, self.dense = self.channels, self.size, [], []
        for count, taps, stride, pad, ds, pool_stride in self.layers:
            scale = np.sqrt(2 / (channels * taps * taps))
            shape = (count, channels, taps, taps)
            self.filters.append((scale * rng.standard_normal(shape)).astype("float32"))
            channels, size = count, (size + 2 * pad - taps) // stride + 1
            size = (size - ds) // pool_stride + 1 if ds else size
        sizes = [channels * size * size] + units + [self.classes]
        for inputs, outputs in zip(sizes, sizes[1:]):
            scale = np.sqrt(2 / inputs)
            self.dense.append((scale * rng.standard_normal((inputs, outputs))).astype("float32"))

    def build(self, in_c01b, mode):
        """The compiled training step; it takes nothing and gives the cost."""
        import theano
        import theano.tensor as T

        convolutions = self.c01b if in_c01b else self.bc01
        images, filters = self.images, self.filters
        if in_c01b:
            images = np.ascontiguousarray(images.transpose(1, 2, 3, 0))
            filters = [np.ascontiguousarray(w[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)) for w in filters]
        x, y = theano.shared(images), theano.shared(self.labels)
        weights = [theano.shared(w) for w in filters]
        biases = [theano.shared(np.zeros(layer[0], "float32")) for layer in self.layers]
        out = convolutions(x, weights, biases)
        parameters = weights + biases
        for index, value in enumerate(self.dense):
            w, b = theano.shared(value), theano.shared(np.zeros(value.shape[1], "float32"))
            parameters += [w, b]
            out = T.dot(out, w) + b
            if index + 1 < len(self.dense):
                out = T.nnet.relu(out)
        cost = T.nnet.categorical_crossentropy(T.nnet.softmax(out), y).mean()
        gradients = T.grad(cost, parameters)
        updates = [(p, p - np.float32(1e-3) * g) for p, g in zip(parameters, gradients)]
        return theano.function([], cost, updates=updates, mode=mode)

    def bc01(self, x, weights, biases):
        import theano.tensor as T
        from theano.tensor.nnet.abstract_conv import get_conv_output_shape
        from theano.tensor.signal.pool import Pool, pool_2d

        # With the shapes, as Lasagne gives them.
        shape = self.images.shape
        for w, b, value, (_, _, stride, pad, ds, pool_stride) in zip(weights, biases, self.filters, self.layers):
            stride, pad = (stride, stride), (pad, pad)
            x = T.nnet.conv2d(x, w, shape, value.shape, border_mode=pad, subsample=stride)
            shape = get_conv_output_shape(shape, value.shape, pad, stride)
            x = T.nnet.relu(x + b.dimshuffle("x", 0, "x", "x"))
            if ds:
                x = pool_2d(x, (ds, ds), stride=(pool_stride, pool_stride), ignore_border=True)
                shape = Pool.out_shape(shape, (ds, ds), True, (pool_stride, pool_stride))
        return x.flatten(2)

    def c01b(self, x, weights, biases):
        import theano.tensor as T
        from convnet_ops import FilterActs, MaxPool, c01b_to_bc01

        for w, b, (_, _, stride, pad, ds, pool_stride) in zip(weights, biases, self.layers):
            x = FilterActs(pad=pad, stride=stride)(x, w)
            x = T.nnet.relu(x + b.dimshuffle(0, "x", "x", "x"))
            if ds:
                x = MaxPool(ds, pool_stride)(x)
        return c01b_to_bc01(x).flatten(2)


def variants(network, on_gpu):
    """{way: compiled training step}."""
    from theano.compile.mode import Mode

    mode = Mode(linker="cvm", optimizer="fast_run")
    mode = mode.including("gpuarray") if on_gpu else mode.excluding("gpuarray")
    enabled = mode.including("convnet_ops")
    return {
        "theano": network.build(False, mode),
        "enabled": network.build(False, enabled),
        "enabled, without fusion": network.build(False, enabled.excluding("convnet_ops_fusion")),
        "enabled, without ShuffleDims": network.build(False, enabled.excluding("convnet_ops_copies")),
        "c01b by hand": network.build(True, mode),
    }


def run(options):
    import convnet_ops

    on_gpu = options.device == "cuda"
    elapsed = timing.elapsed_cuda if on_gpu else timing.elapsed_cpu
    result = environment.describe(options.device)
    result.update(table="networks" if on_gpu else "networks-cpu", repeats=options.repeats, rows=[])
    for name in options.networks:
        network = Network(name, options.device)
        functions = variants(network, on_gpu)
        costs = {way: [float(function()) for _ in range(STEPS)] for way, function in functions.items()}
        print(name)
        convnet_ops.report(functions["enabled"])
        timers = {way: timing.repeat(function, elapsed) for way, function in functions.items()}
        for way, ms in timing.interleave(timers, options.repeats).items():
            error = max(abs(one / other - 1) for one, other in zip(costs[way], costs["theano"]))
            row = dict(network=name, batch=network.batch, way=way, ms=ms, costs=costs[way], rel_difference=error)
            result["rows"].append(row)
            print("%-8s %-30s %9.3f ms, costs differ by %.1e" % (name, way, ms, error), flush=True)
            if not error < 1e-3:
                raise ArithmeticError("%s, %s: costs %s, Theano's are %s" % (name, way, costs[way], costs["theano"]))
        with open(options.result, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--device", choices=sorted(FLAGS), default="cuda")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args(arguments)
    flags = [FLAGS[options.device], os.environ.get("THEANO_FLAGS"), "device=" + options.device]
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, flags))
    import convnet_ops  # noqa: F401  (prepares Theano, which opens the GPU)

    with environment.pycuda_on_theanos_context() if options.device == "cuda" else contextlib.nullcontext():
        run(options)


if __name__ == "__main__":
    main(sys.argv[1:])
