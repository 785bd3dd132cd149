"""Where a test case runs: the CPU, or the GPU with any row of a kernel table; outputs are poisoned first."""

import os
import unittest

import convnet_ops  # noqa: F401  (prepares Theano)
import numpy as np
import theano
from convnet_ops.opt import GPU_TWINS
from theano.compile.mode import Mode
from theano.gpuarray.type import GpuArrayType, _context_reg, get_context

from tests import DEVICE, REASON

GPU_CONTEXT = "convnet_ops_tests"

# Of tests that run on both. CONVNET_OPS_DEVICES=gpu leaves the CPU out, where another run of the tests has it.
DEVICES = os.environ.get("CONVNET_OPS_DEVICES", "cpu,gpu").split(",")
if not set(DEVICES) <= {"cpu", "gpu"}:
    raise ValueError("CONVNET_OPS_DEVICES is %s; valid are cpu, gpu and cpu,gpu" % ",".join(DEVICES))

# The families of which CONVNET_OPS_VARIANT=tiles=... names a row.
TILES = ("tile_operands", "tile_gradient_operands")


class Processor(object):
    """The CPU, or the GPU with the row that `variant` names (as CONVNET_OPS_VARIANT does); '' lets the op choose."""

    def __init__(self, device, variant=""):
        self.device = device
        self.variant = variant

    def __repr__(self):
        return self.device + (" " + self.variant if self.variant else "")

    def run(self, op, *arrays, allowed=True):
        """What `op` computes from NumPy arrays: a list of NumPy arrays.

        It runs twice, the second time into the same memory after that was filled with NaN (integers: with a number that
        no op gives), and both results must be the same bits. Where the row is not `allowed` by the arrays' sizes, the
        op must refuse it; the results are then those of the row that it chooses.
        """
        if not allowed:
            try:
                self.run(op, *arrays)
            except ValueError as error:
                assert row_of(op, self).name in str(error), error
            else:
                raise AssertionError("%s ran row %s" % (op, row_of(op, self).name))
            return Processor(self.device).run(op, *arrays)
        function, gpu = compiled(op, self.device, arrays)
        values = [to_gpu(array) if gpu and array.ndim == 4 else array for array in arrays]
        previous = os.environ.pop("CONVNET_OPS_VARIANT", None)
        try:
            if self.variant:
                os.environ["CONVNET_OPS_VARIANT"] = self.variant
            outputs = function(*values)
            first = [np.array(output) for output in outputs]
            for output in outputs:
                output[...] = np.nan if output.dtype.kind == "f" else -12345
            again = function(*values)
        finally:
            os.environ.pop("CONVNET_OPS_VARIANT", None)
            if previous is not None:
                os.environ["CONVNET_OPS_VARIANT"] = previous
        for output, repeated in zip(outputs, again):
            assert output is repeated, "%s: the output was not written into the memory of the last one" % op
        results = [np.array(output) for output in again]
        for one, other in zip(first, results):
            # As bytes, so that a NaN that the op computed equals itself and one left from the poison is seen.
            assert one.tobytes() == other.tobytes(), "%s on %r: two runs differ" % (op, self)
        return results


def cpu():
    return Processor("cpu")


def gpu(op, all_rows, number=0):
    """The GPU with the row that `op` chooses, its plain kernel (for TF32 with `all_rows` only) and, with `all_rows`,
    every other row of its precision, Winograd's tiles, for every fourth `number` one size of Fourier transforms with
    one row of its products, and, for ImageActs, one tile by columns. For an op of precision 'float16': one row of
    halves; its others are those of 'tf32'.

    Which ones of these the number decides: they are the same code but for a size. The small transforms come more often,
    since an emulated device takes seconds for a large one.
    """
    families = GPU_TWINS[type(op)].kernel_families
    if getattr(op, "float16", False):
        halves = next(family for family in families if family.name == families[0].name + "_f16")
        return [Processor("gpu", "%s=%s" % (halves.name, halves.rows[number % len(halves.rows)].name))]
    tf32 = getattr(op, "tf32", False)
    # The plain kernel knows no precision.
    names = [""] if tf32 and not all_rows else ["", "%s=plain" % families[0].name]
    if all_rows:
        rows = [row for row in families[0].rows if row.name != "plain" and bool(row.tf32) == tf32]
        tiles = [row for family in families if family.name in TILES for row in family.rows]
        # Slow checks take a quarter of a convolution's rows a problem: of four adjacent tiles one, with both its loads.
        if tiles and os.environ.get("CONVNET_OPS_TIERS") == "quick":
            rows = [row for i, row in enumerate(rows) if i // 2 % 4 == number % 4]
        names += ["%s=%s" % (families[0].name, row.name) for row in rows]
        sizes = [row for row in tiles if row.window == 0]
        products = [family for family in families if family.name in ("fft_products", "fft_gradient_products")]
        names += ["tiles=%s" % row.name for row in tiles if row.window != 0]
        for family in products if number % 4 == 2 * tf32 else []:
            size = sizes[(0, 1, 2, 0, 1, 3, 4)[number // 4 % 7]]
            rows = [row for row in family.rows if bool(row.tf32) == tf32]
            row = rows[number // 4 % len(rows)]
            names.append("tiles=%s,%s=%s" % (size.name, family.name, row.name))
        products = [row for family in families if family.name == "img_acts_columns" for row in family.rows]
        shapes = sorted({(row.tile_m, row.tile_n) for row in products})
        names += [
            "img_acts_columns=%s" % row.name
            for row in products
            if bool(row.tf32) == tf32 and (row.tile_m, row.tile_n) == shapes[number % len(shapes)]
        ]
    return [Processor("gpu", name) for name in names]


def row_of(op, processor):
    """The row that a processor forces, or None."""
    families = GPU_TWINS[type(op)].kernel_families
    wanted, _, name = processor.variant.split(",")[0].partition("=")
    wanted = TILES if wanted == "tiles" else (wanted,)
    return next((row for family in families if family.name in wanted for row in family.rows if row.name == name), None)


def row_allows(op, processor, size, window=0, stride=0):
    """Whether the row that a processor forces takes arrays of `size` adjacent values, with that window and stride."""
    row = row_of(op, processor)
    if row is None:
        return True
    return size % row.vec_n == 0 and row.window in (0, window) and row.stride in (0, stride)


def gpu_or_skip():
    """Skips the test that calls it where there is no GPU; with CONVNET_OPS_REQUIRE_GPU=1 that is an error."""
    reason = gpu_missing()
    if reason:
        if os.environ.get("CONVNET_OPS_REQUIRE_GPU") == "1":
            raise RuntimeError("CONVNET_OPS_REQUIRE_GPU is 1, but %s" % reason)
        raise unittest.SkipTest(reason)


def gpu_missing():
    """Why there is no GPU to test on, or ''."""
    if not DEVICE.startswith("cuda"):
        return "Theano's device is %s (%s)" % (DEVICE, REASON)
    # The default context under a name, which graphs can tell from None.
    _context_reg.setdefault(GPU_CONTEXT, get_context(None))
    return ""


def to_gpu(array):
    import pygpu

    return pygpu.gpuarray.array(array, copy=True, order="C", context=get_context(GPU_CONTEXT))


_compiled = {}


def compiled(op, device, arrays):
    """The compiled function of an op, and whether it is on the GPU. Outputs keep their memory between calls."""
    key = (op, device, tuple((array.dtype, array.ndim) for array in arrays))
    if key not in _compiled:
        on_gpu = device == "gpu"
        inputs = [variable_for(array, on_gpu) for array in arrays]
        outputs = op(*inputs, return_list=True)
        if on_gpu:
            outputs = [output.transfer(GPU_CONTEXT) for output in outputs]
        mode = Mode(linker="cvm_nogc", optimizer="fast_run")
        function = theano.function(
            inputs,
            [theano.Out(output, borrow=True) for output in outputs],
            mode=mode.including("gpuarray") if on_gpu else mode.excluding("gpuarray"),
        )
        wanted = GPU_TWINS[type(op)] if on_gpu else type(op)
        nodes = function.maker.fgraph.apply_nodes
        assert any(type(node.op) is wanted for node in nodes), "no %s in the compiled graph" % wanted.__name__
        _compiled[key] = (function, on_gpu)
    return _compiled[key]


def variable_for(array, on_gpu):
    if on_gpu and array.ndim == 4:
        return GpuArrayType(array.dtype.name, (False,) * 4, context_name=GPU_CONTEXT)()
    return theano.tensor.TensorType(array.dtype.name, (False,) * array.ndim)()
