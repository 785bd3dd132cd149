"""The derivative along a direction beside the gradient, for the tests of all ops."""

import numpy as np
import theano
import theano.tensor as T
from theano.compile.mode import Mode

from tests.processors import DEVICES, GPU_CONTEXT, gpu_or_skip

# Where, and in what, directions are checked.
DEVICE_DTYPES = [pair for pair in (("cpu", "float64"), ("gpu", "float32")) if pair[0] in DEVICES]

CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")


def check_direction(name, function, values, device, dtype):
    """R_op is the transpose of the gradient: <J v, u> = <v, J' u>, for all inputs and, on the CPU, for each alone.

    (For each alone on the GPU too, Theano would compile two to four times as many kernels.)
    """
    if device == "gpu":
        gpu_or_skip()
    rng = np.random.RandomState()
    values = [value.astype(dtype) for value in values]
    variables = [T.tensor4(dtype=dtype) for _ in values]
    out = function(*variables)
    u = T.tensor4("u", dtype=dtype)
    gradients = T.grad((out * u).sum(), variables, disconnected_inputs="ignore")
    directions = [T.tensor4(dtype=dtype) for _ in values]
    products = []
    alone = [[i] for i in range(len(values))] if device == "cpu" and len(values) > 1 else []
    for chosen in alone + [range(len(values))]:
        forward = T.Rop(out, [variables[i] for i in chosen], [directions[i] for i in chosen])
        products += [(forward * u).sum(), sum((gradients[i] * directions[i]).sum() for i in chosen)]
    mode = CPU_MODE
    if device == "gpu":
        mode = Mode(linker="cvm", optimizer="fast_run").including("gpuarray")
        products = [product.transfer(GPU_CONTEXT).transfer("cpu") for product in products]
    compute = theano.function(variables + directions + [u], products, mode=mode, on_unused_input="ignore")
    shape = theano.function(variables, out.shape, mode=CPU_MODE, on_unused_input="ignore")(*values)
    tangents = [rng.standard_normal(value.shape).astype(dtype) for value in values]
    found = compute(*(values + tangents + [rng.standard_normal(shape).astype(dtype)]))
    limit = 1e-10 if dtype == "float64" else 1e-4
    for forward, backward in zip(found[::2], found[1::2]):
        assert abs(forward - backward) <= limit * max(1.0, abs(forward)), (
            name,
            device,
            float(forward),
            float(backward),
        )
