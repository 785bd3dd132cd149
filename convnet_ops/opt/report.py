"""report: what became of Theano's convolutions and pooling in a compiled function."""

import sys
from collections import Counter

from convnet_ops import nnet
from convnet_ops.base import ConvnetOp, GpuOp
from convnet_ops.filter_acts import FilterActs
from convnet_ops.fused_acts import FusedFilterActs
from convnet_ops.img_acts import ImageActs
from convnet_ops.layout import ShuffleDims
from convnet_ops.weight_acts import WeightActs
from theano.compile.function_module import Function
from theano.gpuarray import blas as gpu_blas
from theano.gpuarray import pool as gpu_pool
from theano.tensor.nnet import corr
from theano.tensor.nnet.conv import ConvOp

# What Theano's nodes are when they are not swapped.
_THEANOS = (
    nnet.CONV_OPS
    + nnet.POOL_OPS
    + (
        corr.BaseCorrMM,
        gpu_blas.BaseGpuCorrMM,
        gpu_pool.GpuPool,
        gpu_pool.GpuMaxPoolGrad,
        gpu_pool.GpuAveragePoolGrad,
        gpu_pool.GpuDownsampleFactorMaxGradGrad,
        gpu_pool.GpuMaxPoolRop,
        ConvOp,
    )
)


def report(function, file=None):
    """Print which convolution and pooling nodes of a compiled function were taken, which were left, and why.

    Parameters
    ----------
    function : theano.compile.function_module.Function
    file : file, optional
        Where to print; standard output if not given.

    Notes
    -----
    After the nodes of Theano's come the ops of this library that are in the graph now, then the shuffles between bc01
    and c01b that move data, each with what it reads; `filters` are those of filters and their gradients, which are
    small. Loops (scan) follow, indented, once they ran. Of a function that was compiled without `enable`, or is
    a copy of one, only what is in the graph is printed.

    Raises
    ------
    TypeError
        `function` is not a compiled function.
    """
    if not isinstance(function, Function):
        raise TypeError("report: function is %r; it must be what theano.function returns" % (function,))
    print("\n".join(_lines(function)), file=file or sys.stdout)


def _lines(function):
    fgraph = function.maker.fgraph
    nodes = fgraph.toposort()
    lines = []
    choices = getattr(fgraph, "convnet_ops_choices", None)
    if choices is None:
        lines.append("compiled without convnet_ops.enable(), or a copy of a function:")
        lines += ["  Theano's  %s" % node.op for node in nodes if isinstance(node.op, _THEANOS)]
    else:
        taken = sum(choice.taken for choice in choices)
        lines.append("%d of Theano's convolution and pooling nodes taken, %d left" % (taken, len(choices) - taken))
        lines += [
            "  taken  %s" % choice.node if choice.taken else "  left   %s: %s" % (choice.node, choice.reason)
            for choice in choices
        ]
    ours = Counter(str(node.op) for node in nodes if isinstance(node.op, (ConvnetOp, GpuOp)))
    lines += ["  ops    %d %s" % (count, name) for name, count in sorted(ours.items())]
    shuffles = [node for node in nodes if isinstance(node.op, ShuffleDims)]
    lines.append("%d shuffles between bc01 and c01b that move data" % len(shuffles))
    lines += ["  %s  %s of %s" % (_kind(node), node.op, node.inputs[0]) for node in shuffles]
    for node in nodes:
        inner = getattr(node.op, "fn", None)
        if isinstance(inner, Function):
            lines += ["inside %s:" % node.op] + ["  " + line for line in _lines(inner)]
    return lines


def _kind(node):
    """Whether a shuffle is one of filters (or their gradients) or of images."""
    owner = node.inputs[0].owner
    of_filters = node.op.flip or owner is not None and isinstance(owner.op, WeightActs)
    for client, index in node.outputs[0].clients:
        if client != "output" and index == 1 and isinstance(client.op, (FilterActs, FusedFilterActs, ImageActs)):
            of_filters = True
    return "filters" if of_filters else "images "
