"""The graph rewrites: ops move to the GPU with nothing left between them; and nothing is compiled twice."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import theano
import theano.tensor as T
from convnet_ops import FilterActs, ImageActs, MaxPool, gpu_contiguous, reference
from convnet_ops.opt import GPU_TWINS
from convnet_ops.opt.lift import CacheableHostFromGpu
from theano.compile.mode import Mode
from theano.gpuarray.basic_ops import GpuFromHost, HostFromGpu
from theano.gpuarray.type import GpuArrayType

from tests.comparison import assert_close
from tests.processors import DEVICES, GPU_CONTEXT, gpu_or_skip, to_gpu

TRANSFERS = (GpuFromHost, HostFromGpu, CacheableHostFromGpu)


def gpu_mode(optimizer="fast_run"):
    return Mode(linker="cvm", optimizer=optimizer).including("gpuarray")


def op_types(function):
    return [type(node.op) for node in function.maker.fgraph.toposort()]


def small_net(x, w, v):
    """Two layers, with what stands between convolutions in a net."""
    layer = MaxPool(2, 2)(T.tanh(FilterActs(pad=1, partial_sum=1)(x, w)))
    return MaxPool(3, 2)(T.nnet.relu(FilterActs(stride=2)(layer, gpu_contiguous(v))))


def data():
    """Random operands of small_net, where no two values are so near that pooling, or the rectifier, may take either."""
    rng = np.random.RandomState()
    shapes = (3, 16, 16, 4), (3, 3, 3, 8), (8, 3, 3, 12)
    while True:
        x, w, v = (rng.standard_normal(shape).astype("float32") * np.float32(0.3) for shape in shapes)
        first = np.tanh(reference.filter_acts(x.astype("float64"), w, pad=1))
        second = reference.filter_acts(reference.max_pool(first, 2, 2), v, stride=2)
        if min(least_gap(first, 2, 2), least_gap(second, 3, 2), abs(second).min()) > 1e-5:
            return [x, w, v]


def least_gap(values, ds, stride):
    """By how much the greatest value of a pooling window is above the second, at least."""
    rows, cols = (range(0, size - ds + stride, stride) for size in values.shape[1:3])
    windows = [values[:, y : y + ds, x : x + ds].reshape(len(values), -1, values.shape[3]) for y in rows for x in cols]
    ordered = [np.sort(window, axis=1) for window in windows if window.shape[1] > 1]
    return min((window[:, -1] - window[:, -2]).min() for window in ordered)


def test_no_transfer_between_lifted_ops():
    for optimizer in ("fast_run", "fast_compile"):
        yield check_no_transfers, optimizer


def check_no_transfers(optimizer):
    """Inputs on the host, everything else on the GPU: one transfer for each input and output, none between."""
    gpu_or_skip()
    x, w, v = T.ftensor4s("x", "w", "v")
    # The optimizer moves what has an input or an output there: with no default GPU, say so of the inputs.
    on_gpu = [variable.transfer(GPU_CONTEXT) for variable in (x, w, v)]
    cost = (small_net(*on_gpu) ** 2).sum(axis=(1, 2, 3))
    gradients = T.grad(cost.sum(), [x, w, v])
    function = theano.function([x, w, v], [cost] + gradients, mode=gpu_mode(optimizer))
    types = op_types(function)
    for op in (FilterActs, MaxPool):
        assert GPU_TWINS[op] in types and op not in types, types
    assert types.count(GpuFromHost) == 3, theano.printing.debugprint(function, file="str")
    assert types.count(CacheableHostFromGpu) == 4, theano.printing.debugprint(function, file="str")
    host = theano.function(
        [x, w, v], [(small_net(x, w, v) ** 2).sum(axis=(1, 2, 3))], mode=Mode("cvm", "fast_run").excluding("gpuarray")
    )
    values = data()
    assert_close(function(*values)[0], host(*values)[0].astype("float64"), 5000, "the net's cost")


def test_gpu_variables_are_taken_as_they_are():
    gpu_or_skip()
    x, w = (GpuArrayType("float32", (False,) * 4, context_name=GPU_CONTEXT)(name) for name in "xw")
    out = FilterActs()(x, w)
    gradients = T.grad((out**2).sum(), [x, w])
    assert all(isinstance(g.type, GpuArrayType) for g in gradients)
    function = theano.function([x, w], [out.transfer(GPU_CONTEXT)] + gradients, mode=gpu_mode())
    types = op_types(function)
    assert not any(transfer in types for transfer in TRANSFERS), types
    assert GPU_TWINS[FilterActs] in types and GPU_TWINS[ImageActs] in types
    images, filters, _ = data()
    assert function(to_gpu(images), to_gpu(filters))[1].shape == images.shape


def test_shared_variables_train_on_the_gpu():
    """A training step on shared variables on the GPU moves nothing but its cost."""
    gpu_or_skip()
    images, filters, more = data()
    x, w, v = (theano.shared(array, target=GPU_CONTEXT) for array in (images, filters, more))
    cost = (small_net(x, w, v) ** 2).mean()
    step = theano.function([], cost, updates=[(p, p - 0.1 * T.grad(cost, p)) for p in (w, v)], mode=gpu_mode())
    types = op_types(step)
    assert types.count(CacheableHostFromGpu) == 1, types
    # Theano may compute the mean's divisor on either side; no array of images or filters crosses.
    crossing = [
        node for node in step.maker.fgraph.apply_nodes if isinstance(node.op, TRANSFERS) and node.inputs[0].ndim == 4
    ]
    assert not crossing, crossing
    costs = [float(step()) for _ in range(5)]
    assert costs[-1] < costs[0], costs


def test_float64_stays_on_the_host():
    gpu_or_skip()
    x, w = (theano.shared(array.astype("float64"), target=GPU_CONTEXT) for array in data()[:2])
    function = theano.function([], FilterActs()(x, w), mode=gpu_mode())
    assert FilterActs in op_types(function) and GPU_TWINS[FilterActs] not in op_types(function)
    assert function().dtype == "float64"


def test_results_of_both_devices_agree():
    gpu_or_skip()
    values = data()
    results = []
    for target, mode in ((GPU_CONTEXT, gpu_mode()), ("cpu", Mode("cvm", "fast_run").excluding("gpuarray"))):
        variables = [theano.shared(value, target=target) for value in values]
        out = small_net(*variables)
        results.append(
            theano.function(
                [], [out.transfer("cpu")] + [g.transfer("cpu") for g in T.grad(out.sum(), variables)], mode=mode
            )()
        )
    for gpu, cpu in zip(*results):
        # Two float32 results, each within its own rounding.
        assert_close(gpu, cpu.astype("float64"), 10000, "GPU against CPU")


COUNT_COMPILATIONS = """
import sys
import convnet_ops, theano, theano.tensor as T, numpy as np
from convnet_ops import FilterActs, MaxPool
import theano.gof.cmodule as cmodule
compilations = []
compile_str = cmodule.GCC_compiler.compile_str
def counting(module_name, *arguments, **options):
    compilations.append(module_name)
    return compile_str(module_name, *arguments, **options)
cmodule.GCC_compiler.compile_str = staticmethod(counting)
x = theano.shared(np.ones((3, 9, 9, 4), "float32"))
w = theano.shared(np.ones((3, 3, 3, 8), "float32"))
out = MaxPool(3, 2)(FilterActs(pad=1)(x, w))
# Its own output as the gradient: no constant, since Theano compiles the DimShuffle of a constant in every process.
f = theano.function([], [out] + T.grad(None, [x, w], known_grads={out: out}))
assert [np.asarray(value).shape for value in f()] == [(8, 4, 4, 4), (3, 9, 9, 4), (3, 3, 3, 8)]
print(len(compilations))
"""


def test_second_process_compiles_nothing():
    for device in DEVICES:
        yield check_second_process, device


def check_second_process(device):
    """Neither g++ nor NVRTC runs again: all modules and kernels come from the caches on disk."""
    if device == "gpu":
        gpu_or_skip()
    with tempfile.TemporaryDirectory() as folder:
        first, kernels = run_and_count(device, folder)
        assert first > 0
        again, kernels_after = run_and_count(device, folder)
        assert again == 0, "%d modules were compiled again" % again
        assert kernels == kernels_after, set(kernels_after) - set(kernels)
        if device == "gpu":
            # Of each of our kernels one binary, written once.
            assert len(kernels) >= 6, kernels


def run_and_count(device, folder):
    """How many modules a process compiled, and {file: time of writing} of libgpuarray's compiled kernels after it."""
    flags = "device=%s,floatX=float32,dnn.enabled=False,gpuarray.preallocate=0,base_compiledir=%s" % (
        "cuda" if device == "gpu" else "cpu",
        folder,
    )
    environment = {name: value for name, value in os.environ.items() if name != "THEANO_GPU_IS_ALREADY_ACTIVE"}
    environment.update(THEANO_FLAGS=flags, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    answer = subprocess.run(
        [sys.executable, "-c", COUNT_COMPILATIONS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr.decode()
    written = {}
    for path, _, names in os.walk(folder):
        if "gpuarray_kernels" in path:
            written.update({os.path.join(path, name): os.stat(os.path.join(path, name)).st_mtime_ns for name in names})
    return int(answer.stdout.decode().split()[-1]), written
