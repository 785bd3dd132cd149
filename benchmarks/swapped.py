"""One convolution in bc01, as Theano computes it and after enable(), shuffles included: which is the faster choice.

    python -m benchmarks.swapped RESULT.json [--device cuda|cpu]

The layer stands alone: images, filters and results are in bc01, so that nothing of the shuffles vanishes.
"""

import argparse
import contextlib
import json
import os
import sys

import numpy as np

from benchmarks import environment, timing
from benchmarks.networks import FLAGS

# channels, size, filters, filter size, stride, pad
LAYERS = {
    "lenet1": (1, 28, 32, 5, 1, 0),
    "lenet2": (32, 12, 64, 5, 1, 0),
    "alex1": (3, 224, 64, 11, 4, 2),
    "alex2": (64, 27, 192, 5, 1, 2),
    "alex3": (192, 13, 384, 3, 1, 1),
    "vgg1_1": (3, 112, 64, 3, 1, 1),
    "vgg3_2": (128, 28, 128, 3, 1, 1),
    "1x1": (256, 14, 128, 1, 1, 0),
}
BATCHES = {"cuda": (1, 4, 8, 16, 64, 128), "cpu": (1, 4, 16, 64)}
DIRECTIONS = "forward", "forward and gradients"


def functions(layer, batch, direction, on_gpu):
    """{"theano" or "convnet_ops": compiled function}."""
    import theano
    import theano.tensor as T
    from theano.compile.mode import Mode

    channels, size, filters, taps, stride, pad = layer
    rng = np.random.default_rng()
    x = theano.shared(rng.standard_normal((batch, channels, size, size), dtype="float32"))
    w = theano.shared(rng.standard_normal((filters, channels, taps, taps), dtype="float32"))
    out = T.nnet.conv2d(x, w, border_mode=pad, subsample=(stride, stride))
    outputs = [out]
    if direction != "forward":
        rows = (size + 2 * pad - taps) // stride + 1
        g = theano.shared(rng.standard_normal((batch, filters, rows, rows), dtype="float32"))
        outputs += T.grad(None, [x, w], known_grads={out: g})
    if on_gpu:
        outputs = [output.transfer(None) for output in outputs]
    outputs = [theano.Out(output, borrow=True) for output in outputs]
    mode = Mode(linker="cvm_nogc", optimizer="fast_run")
    mode = mode.including("gpuarray") if on_gpu else mode.excluding("gpuarray")
    return {
        "theano": theano.function([], outputs, mode=mode),
        "convnet_ops": theano.function([], outputs, mode=mode.including("convnet_ops")),
    }


def run(options):
    on_gpu = options.device == "cuda"
    elapsed = timing.elapsed_cuda if on_gpu else timing.elapsed_cpu
    result = environment.describe(options.device)
    result.update(table="swapped" if on_gpu else "swapped-cpu", repeats=options.repeats, rows=[])
    for name, layer in LAYERS.items():
        for batch in BATCHES[options.device]:
            for direction in DIRECTIONS:
                ways = functions(layer, batch, direction, on_gpu)
                values = {way: [np.array(out) for out in function()] for way, function in ways.items()}
                error = max(
                    timing.relative_error(one, other) for one, other in zip(values["convnet_ops"], values["theano"])
                )
                if not error < 1e-5:
                    raise ArithmeticError("%s, batch %d, %s: results differ by %g" % (name, batch, direction, error))
                timers = {way: timing.repeat(function, elapsed, 5.0) for way, function in ways.items()}
                ms = timing.interleave(timers, options.repeats)
                row = dict(layer=name, batch=batch, direction=direction, ms=ms, ratio=ms["theano"] / ms["convnet_ops"])
                result["rows"].append(row)
                print("%(layer)-7s %(batch)4d  %(direction)-22s ratio %(ratio).2f" % row, ms, flush=True)
    with open(options.result, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    parser.add_argument("--device", choices=sorted(FLAGS), default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    flags = [FLAGS[options.device], os.environ.get("THEANO_FLAGS"), "device=" + options.device]
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, flags))
    import convnet_ops  # noqa: F401  (prepares Theano, which opens the GPU)

    with environment.pycuda_on_theanos_context() if options.device == "cuda" else contextlib.nullcontext():
        run(options)


if __name__ == "__main__":
    main(sys.argv[1:])
