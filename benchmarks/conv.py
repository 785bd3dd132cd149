"""Times FilterActs and its two gradients beside Theano's GpuCorrMM and cuDNN (through PyTorch), on the GPU.

    python -m benchmarks.conv RESULT.json [--layers lenet1 alex2 ...] [--batches 1 16 ...] [--torch-python PYTHON]

Everything runs interleaved, on the same random data, each library in its own layout: ours in c01b with all
precisions and, shuffles included, in bc01; GpuCorrMM in bc01; cuDNN in nchw and channels_last, with and without TF32,
its fastest algorithms (benchmark=True). A figure is the median over the repeats, timed with CUDA events after a
warm-up; each repeat is long enough to swamp the clock. When the clock starts, the calls wait in the GPU's queue: what
is timed is the GPU. host_ms is what the host takes to put there one call of ours or of GpuCorrMM; where a repeat has
more kernels than the queue has places, as GpuCorrMM's, it includes waiting for one. Results are checked first: the
plain kernel, which sums in double precision, against NumPy's float64 on a sample of the outputs, then everything
against the plain kernel. PyTorch, for which Theano's Python may be too old, runs in a process of its own, in turn with
this one (torch_peer.py).

FLOPs are counted as 2 * N * F * C * k * k * OH * OW with OH = floor((H + 2 * pad - k) / stride) + 1 for all libraries.
FilterActs takes the ceil, so on alex1 it computes 56 x 56 outputs where the others compute 55 x 55.

Needs PyCUDA (pip install '.[gpu]').
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks import environment, memory_ops
from benchmarks.peer import TorchPeer
from benchmarks.timing import QUEUED_CALLS, QueuedTimer, interleave, relative_error, repeat
from tests import problems

DIRECTIONS = ("fwd", "dimages", "dfilters")
FAMILIES = dict(zip(DIRECTIONS, ("filter_acts", "img_acts", "weight_acts")))
FLAGS = "device=cuda,floatX=float32,dnn.enabled=False,gpuarray.preallocate=0"
LAYERS = {layer.name: layer for layer in problems.LAYERS + problems.MORE_LAYERS}
REPEAT_MS = 8.0


class LayerBenchmark(object):
    """One layer's arrays on the GPU and its functions: {(implementation, precision, layout, direction): function}."""

    def __init__(self, layer, theanos=True, bc01=True):
        self.layer = layer
        rng = np.random.default_rng()
        k = layer.filter_size
        self.floor = (layer.size + 2 * layer.pad - k) // layer.stride + 1
        ceil = -(-(layer.size + 2 * layer.pad - k) // layer.stride) + 1
        channels = layer.channels // layer.groups
        self.flops = 2.0 * layer.batch * layer.filters * channels * (k * self.floor) ** 2
        shape = (layer.channels, layer.size, layer.size, layer.batch)
        self.images = rng.standard_normal(shape, dtype="float32")
        self.filters = rng.standard_normal((channels, k, k, layer.filters), dtype="float32")
        self.hid = rng.standard_normal((layer.filters, ceil, ceil, layer.batch), dtype="float32")
        # Zero where the floor has no output, so that all libraries compute the same gradients.
        self.hid[:, self.floor :] = 0
        self.hid[:, :, self.floor :] = 0
        self.outputs, self.functions = {}, {}
        self.build_ours()
        if bc01:
            self.build_bc01("convnet_ops")
        if theanos:
            self.build_bc01("theano_corrmm")

    def build_ours(self):
        import theano
        from convnet_ops import FilterActs, ImageActs, WeightActs

        images, filters, hid = (theano.shared(array) for array in (self.images, self.filters, self.hid))
        size, taps = self.images.shape[1:3], self.filters.shape[1:3]
        for precision in ("float32", "tf32", "float16"):
            options = dict(pad=self.layer.pad, stride=self.layer.stride, groups=self.layer.groups, precision=precision)
            expressions = (
                FilterActs(**options)(images, filters),
                ImageActs(**options)(hid, filters, size),
                WeightActs(**options)(images, hid, taps)[0],
            )
            for direction, expression in zip(DIRECTIONS, expressions):
                self.add(("convnet_ops", precision, "c01b", direction), expression)

    def build_bc01(self, implementation):
        import theano
        from convnet_ops import nnet
        from theano.tensor.nnet import abstract_conv

        arrays = self.images, self.filters, self.hid[:, : self.floor, : self.floor]
        images, filters, hid = (theano.shared(as_bc01(array)) for array in arrays)
        pad, stride = (self.layer.pad,) * 2, (self.layer.stride,) * 2
        size, taps = self.images.shape[1:3], self.filters.shape[1:3]
        images_shape = (self.layer.batch, self.layer.channels) + size
        filters_shape = (self.layer.filters, self.filters.shape[0]) + taps
        options = dict(border_mode=pad, subsample=stride, filter_flip=False, num_groups=self.layer.groups)
        if implementation == "convnet_ops":
            expressions = (
                nnet.conv2d(images, filters, images_shape, filters_shape, **options),
                nnet.conv2d_grad_wrt_inputs(hid, filters, images_shape, filters_shape, **options),
                nnet.conv2d_grad_wrt_weights(images, hid, filters_shape, images_shape, **options),
            )
        else:
            expressions = (
                abstract_conv.AbstractConv2d(**options)(images, filters),
                abstract_conv.AbstractConv2d_gradInputs(**options)(filters, hid, size),
                abstract_conv.AbstractConv2d_gradWeights(**options)(images, hid, taps),
            )
        for direction, expression in zip(DIRECTIONS, expressions):
            self.add((implementation, "float32", "bc01", direction), expression)

    def add(self, key, output):
        import theano

        target = theano.shared(np.zeros((1, 1, 1, 1), "float32"))
        function = theano.function([], updates=[(target, output)])
        ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
        assert wanted_op(key[0], key[3]) in ops, "%s compiled to %s" % (key, ops)
        self.outputs[key] = target
        self.functions[key] = function

    def result(self, key):
        """A function's output, in c01b, into memory that held NaN, and what the op said of its choice."""
        target = self.outputs[key]
        self.functions[key]()
        poisoned = target.get_value(borrow=True, return_internal_type=True)
        poisoned[...] = np.nan
        with printed_choices() as text:
            self.functions[key]()
        value = target.get_value()
        return value if key[2] == "c01b" else value.transpose(1, 2, 3, 0), text.getvalue()

    def plain_result(self, direction):
        os.environ["CONVNET_OPS_VARIANT"] = FAMILIES[direction] + "=plain"
        try:
            return self.result(("convnet_ops", "float32", "c01b", direction))[0]
        finally:
            del os.environ["CONVNET_OPS_VARIANT"]

    def check_plain(self, direction, plain, samples=30):
        """Compare the plain kernel with NumPy's float64 at random outputs."""
        rng = np.random.RandomState()
        layer = self.layer
        pad, stride, k = layer.pad, layer.stride, layer.filter_size
        channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
        padded = np.pad(self.images, ((0, 0), (pad, pad + stride), (pad, pad + stride), (0, 0)))
        rows = self.hid.shape[1]
        exact, found = [], []
        for _ in range(samples):
            a, b, c, d = (rng.randint(size) for size in plain.shape)
            if direction == "fwd":
                first = a // filters * channels
                window = padded[first : first + channels, b * stride : b * stride + k, c * stride : c * stride + k, d]
                value = np.sum(window.astype("float64") * self.filters[..., a])
            elif direction == "dfilters":
                channel = d // filters * channels + a
                seen = padded[channel, b : b + rows * stride : stride, c : c + rows * stride : stride][:rows, :rows]
                value = np.sum(seen.astype("float64") * self.hid[d])
            else:
                value = 0.0
                group = slice(a // channels * filters, (a // channels + 1) * filters)
                for r in range(k):
                    for s in range(k):
                        y, x = b + pad - r, c + pad - s
                        if y % stride == 0 and x % stride == 0 and 0 <= y < rows * stride and 0 <= x < rows * stride:
                            hid = self.hid[group, y // stride, x // stride, d].astype("float64")
                            value += np.sum(hid * self.filters[a % channels, r, s, group])
            exact.append(value)
            found.append(plain[a, b, c, d])
        error = relative_error(np.array(found), np.array(exact))
        assert error < 5e-7, "the plain kernel of %s is off by %g on %s" % (direction, error, layer.name)

    def describe(self, direction, plain):
        """{key: what a row says of its function: relative error, variant, workspace}."""
        found = {}
        for key in [key for key in self.functions if key[3] == direction]:
            value, text = self.result(key)
            reference = plain[:, : self.floor, : self.floor] if direction == "fwd" else plain
            if value.shape == plain.shape:
                reference = plain
            elif direction == "fwd" and value.shape != reference.shape:
                raise AssertionError("%s gives %s, not %s" % (key, value.shape, reference.shape))
            form = FAMILIES[direction] + r"(_columns|_f16)?: .* row (\S+), splits (\d+), workspace (\d+)"
            choice = re.search(form, text)
            found[key] = {"rel_err": relative_error(value, reference), "variant": None, "workspace_mb": None}
            if choice:
                way = "columns_" if choice.group(1) == "_columns" else ""
                variant = "%s%s/%s" % (way, choice.group(2), choice.group(3))
                found[key].update(variant=variant, workspace_mb=int(choice.group(4)) / 2**20)
            elif key[0] == "theano_corrmm":
                # Its columns: one image's, unfolded.
                columns = self.filters[..., 0].size * self.layer.groups * self.floor**2
                found[key].update(workspace_mb=4 * columns / 2**20)
        return found


def as_bc01(array):
    """The array in bc01 and contiguous; by threads, as relative_error."""
    result = np.empty((array.shape[3],) + array.shape[:3], array.dtype)

    def copy(channel):
        result[:, channel] = array[channel].transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(copy, range(len(array))))
    return result


def wanted_op(implementation, direction):
    """The op that must be in a compiled graph."""
    import convnet_ops
    from theano.gpuarray import blas

    index = DIRECTIONS.index(direction)
    if implementation == "convnet_ops":
        return convnet_ops.opt.GPU_TWINS[(convnet_ops.FilterActs, convnet_ops.ImageActs, convnet_ops.WeightActs)[index]]
    return (blas.GpuCorrMM, blas.GpuCorrMM_gradInputs, blas.GpuCorrMM_gradWeights)[index]


@contextlib.contextmanager
def printed_choices():
    """What the ops print of their choices, in a StringIO."""
    text = io.StringIO()
    os.environ["CONVNET_OPS_PRINT_CONFIG"] = "1"
    try:
        with contextlib.redirect_stderr(text):
            yield text
    finally:
        del os.environ["CONVNET_OPS_PRINT_CONFIG"]


def torch_timers(torch, benchmark, direction, plain):
    """Timers of cuDNN in every layout and precision, and what their rows say: both by key."""
    layer = benchmark.layer
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        hid = benchmark.hid[:, : benchmark.floor, : benchmark.floor]
        reference = plain[:, : benchmark.floor, : benchmark.floor] if direction == "fwd" else plain
        arrays = {"images": benchmark.images, "filters": benchmark.filters, "hid": hid, direction: reference}
        for name, array in arrays.items():
            np.save(os.path.join(folder, name + ".npy"), as_bc01(array))
        request = dict(conv=direction, stride=layer.stride, pad=layer.pad, groups=layer.groups, folder=folder)
        answer = torch.ask(**request)
    timers, described = {}, {}
    for name, error, workspace in zip(answer["layouts"], answer["rel_err"], answer["workspace_mb"]):
        layout, precision = name.split()
        key = ("cudnn", precision, layout, direction)
        timers[key] = lambda name=name: torch.ask(repeat=name)["ms"]
        described[key] = {"rel_err": error, "variant": None, "workspace_mb": workspace}
    return timers, described


def measure(layer, torch, options):
    """The rows of a layer; of cuDNN's layouts, the faster."""
    benchmark = LayerBenchmark(layer, theanos=not options.ours_only, bc01=not options.ours_only)
    rows = []
    for direction in DIRECTIONS:
        plain = benchmark.plain_result(direction)
        benchmark.check_plain(direction, plain)
        described = benchmark.describe(direction, plain)
        clocks = {key: QueuedTimer() for key in described}
        timers = {
            key: repeat(benchmark.functions[key], clock, REPEAT_MS, QUEUED_CALLS) for key, clock in clocks.items()
        }
        if torch is not None:
            torchs, more = torch_timers(torch, benchmark, direction, plain)
            timers.update(torchs)
            described.update(more)
        times = interleave(timers, options.repeats)
        if torch is not None:
            torch.ask()
        for key, ms in times.items():
            implementation, precision, layout, _ = key
            others = [other for other in times if other[:2] == key[:2]]
            if implementation == "cudnn" and ms > min(times[other] for other in others):
                continue
            row = {
                "layer": layer.name,
                "batch": layer.batch,
                "direction": direction,
                "impl": implementation,
                "precision": precision,
                "layout": layout,
                "ms": ms,
                "host_ms": float(np.median(clocks[key].host_ms[-options.repeats :])) if key in clocks else None,
                "tflops": benchmark.flops / ms / 1e9,
            }
            rows.append(dict(row, **described[key]))
    return rows


def print_rows(layer, rows):
    for direction in DIRECTIONS:
        cells = ["%-18s %4d %-8s" % (layer.name, layer.batch, direction)]
        for row in rows:
            if row["direction"] == direction:
                form = "%(impl)s %(precision)s %(layout)s %(ms).3f ms %(tflops).1f (%(rel_err).0e) %(variant)s"
                cells.append(form % row)
        print(" | ".join(cells), flush=True)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file to write")
    defaults = [layer.name for layer in problems.LAYERS]
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=defaults)
    parser.add_argument("--batches", nargs="+", type=int, help="instead of each layer's own")
    parser.add_argument("--torch-python", metavar="COMMAND", help="a Python that has PyTorch: adds cuDNN")
    parser.add_argument("--ours-only", action="store_true", help="neither GpuCorrMM nor bc01")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--table", default="table", help="which table of benchmarks.table the result is for")
    options = parser.parse_args(arguments)
    environ = dict(os.environ)
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [FLAGS, environ.get("THEANO_FLAGS")]))
    torch = TorchPeer(options.torch_python, "cuda", environ) if options.torch_python else None
    import convnet_ops  # noqa: F401  (prepares Theano, which opens the GPU)

    with environment.pycuda_on_theanos_context():
        run(options, torch)
    if torch is not None:
        torch.close()


def run(options, torch):
    result = dict(environment.describe(), repeats=options.repeats, copy_gb_s=memory_ops.copy_rate_cuda(options.repeats))
    if torch is not None:
        result["versions"].update(torch.versions)
        result["sgemm_tflops"] = torch.ask(sgemm=8192)["tflops"]
    result.update(table=options.table, rows=[])
    for name in options.layers:
        for batch in options.batches or [LAYERS[name].batch]:
            layer = LAYERS[name]._replace(batch=batch)
            rows = measure(layer, torch, options)
            result["rows"] += rows
            print_rows(layer, rows)
            with open(options.result, "w", encoding="utf-8") as file:
                json.dump(result, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
