"""Graph rewrites: the ops move to the GPU when Theano compiles for one.

Importing this module registers them, where pygpu is installed. They are Theano's own mechanism for its GPU ops: both
its optimizers (graph at a time, node at a time) know them, and no transfer is left between ops that moved.
"""

from convnet_ops import (
    filter_acts,
    fused_acts,
    img_acts,
    layout,
    pool,
    probabilistic_max_pooling,
    response_norm,
    stochastic_pool,
    weight_acts,
)
from convnet_ops.base import GpuOp
from convnet_ops.layout import Contiguous, ContiguousOnGpu
from theano.compile import optdb
from theano.gof import Optimizer, TopoOptimizer, local_optimizer
from theano.gof.opt import copy_stack_trace
from theano.gpuarray.basic_ops import HostFromGpu, as_gpuarray_variable
from theano.gpuarray.opt import op_lifter, register_opt, register_opt2
from theano.gpuarray.type import GpuArrayType, list_contexts


def gpu_twins(*modules):
    """{op: its GPU twin} of all ops of some modules."""
    twins = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, GpuOp) and value.__module__ == module.__name__
    ]
    # class GpuX(GpuOp, X)
    return {twin.__bases__[1]: twin for twin in twins}


GPU_TWINS = gpu_twins(
    filter_acts,
    img_acts,
    weight_acts,
    pool,
    stochastic_pool,
    probabilistic_max_pooling,
    response_norm,
    fused_acts,
    layout,
)


class MarkGpuGraph(Optimizer):
    """Notes on a graph that it goes to a GPU: it runs where Theano's rewrites for GPUs do, before them."""

    def apply(self, fgraph):
        fgraph.convnet_ops_to_gpu = bool(list_contexts())


def goes_to_gpu(fgraph):
    """Whether a graph will move to a GPU, for rewrites that pay on one of the processors."""
    return getattr(fgraph, "convnet_ops_to_gpu", False)


optdb.register("convnet_ops_mark_gpu", MarkGpuGraph(), 48.1, "fast_run", "fast_compile", "gpuarray")


@register_opt("fast_compile")
@op_lifter(list(GPU_TWINS))
@register_opt2(list(GPU_TWINS), "fast_compile")
def local_gpua_convnet_ops(op, context_name, inputs, outputs):
    """Replace an op by its GPU twin. float64 stays on the host: the kernels compute in float32."""
    if outputs[0].dtype != "float32":
        return None
    on_gpu = []
    for variable in inputs:
        if variable.ndim == 4:
            on_gpu.append(ContiguousOnGpu()(as_gpuarray_variable(variable, context_name)))
        else:
            # The sizes of the output are read by the host.
            on_gpu.append(variable.transfer("cpu") if isinstance(variable.type, GpuArrayType) else variable)
    return GPU_TWINS[type(op)](**op._props_dict())(*on_gpu, return_list=True)


@register_opt("fast_compile")
@op_lifter([Contiguous])
@register_opt2([Contiguous], "fast_compile")
def local_gpua_convnet_ops_contiguous(op, context_name, inputs, outputs):
    """Move gpu_contiguous to the GPU."""
    return ContiguousOnGpu()(as_gpuarray_variable(inputs[0], context_name))


class CacheableHostFromGpu(HostFromGpu):
    """Theano's HostFromGpu, compiled once for all processes: Theano caches no op whose `__props__` are empty."""

    __props__ = ("version",)
    version = 1


@local_optimizer([HostFromGpu])
def local_cacheable_host_from_gpu(node):
    """Swap a transfer for its cacheable form, after all rewrites that look for Theano's own."""
    if type(node.op) is not HostFromGpu:
        return False
    output = CacheableHostFromGpu()(node.inputs[0])
    copy_stack_trace(node.outputs[0], output)
    return [output]


optdb.register(
    "convnet_ops_cacheable_host_from_gpu",
    TopoOptimizer(local_cacheable_host_from_gpu),
    100,
    "fast_run",
    "fast_compile",
    "gpuarray",
)
