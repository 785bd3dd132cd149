"""The derivative along a direction beside the gradient, for the tests of all ops."""

import numpy as np
import theano
import theano.tensor as T
from theano.compile.mode import Mode

from tests.processors import GPU_CONTEXT, gpu_or_skip

CPU_MODE = Mode(linker="cvm", optimizer="fast_run").excluding("gpuarray")


def check_direction(name, function, values, device, dtype):
    """R_op is the transpose of the gradient: <J v, u> = <v, J' u>, for each input alone and for all of them."""
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
    for chosen in [[i] for i in range(len(values))] + [range(len(values))][: len(values) - 1]:
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
