"""Theano's convolutions and pooling become our ops, and the layers between them follow into c01b.

One pass over the graph, from the inputs on. A convolution that our op computes faster is swapped: its images are
shuffled to c01b, its output back to bc01. That second shuffle then moves on, past every node that can as well work in
c01b (layouts.py), until it meets the first one of the next layer, where both vanish, or leaves the convolutions.
Pooling follows where its images, or its gradients, are in c01b anyway. `enable` switches the pass on.
"""

from collections import namedtuple

import numpy as np
import theano
from convnet_ops import nnet
from convnet_ops.opt import layouts
from convnet_ops.opt.lift import goes_to_gpu
from theano.compile import optdb
from theano.gof import Optimizer
from theano.gof.opt import copy_stack_trace
from theano.gof.toolbox import ReplaceValidate
from theano.tensor.elemwise import CAReduce, DimShuffle
from theano.tensor.nnet.conv import ConvOp

# What became of one of Theano's nodes: whether it was taken, and why not.
Choice = namedtuple("Choice", "node taken reason")


class SwapOptimizer(Optimizer):
    """The pass. It leaves the list of its choices on the graph, for report()."""

    def add_requirements(self, fgraph):
        fgraph.attach_feature(ReplaceValidate())

    def apply(self, fgraph):
        fgraph.convnet_ops_choices = choices = []
        nodes = fgraph.toposort()
        if not any(isinstance(node.op, nnet.CONV_OPS) for node in nodes):
            choices += [Choice(str(node.op), False, _NO_CONVOLUTION) for node in nodes if _is_theanos(node)]
            return
        on_gpu = goes_to_gpu(fgraph)
        wanted = _wanted_in_c01b(fgraph, nodes, on_gpu)
        shuffles = {}

        def to_c01b(variable):
            if variable not in shuffles:
                shuffles[variable] = layouts.to_c01b(variable)
            return shuffles[variable]

        for node in nodes:
            outputs = None
            if _is_theanos(node):
                name = str(node.op)
                reason = reason_to_leave(node, on_gpu, wanted)
                if not reason:
                    outputs = [nnet.swap(node, to_c01b)]
                choices.append(Choice(name, not reason, reason))
            elif isinstance(node.op, (CAReduce, DimShuffle)):
                output = layouts.reduced(node)
                outputs = output and [node.outputs[0].type.filter_variable(output, allow_convert=True)]
            elif type(node.op) in layouts.MOVES and _moves(node, wanted):
                moved = layouts.MOVES[type(node.op)](node, to_c01b)
                outputs = moved and [
                    layouts.from_c01b(new, old) if old.ndim == 4 else new for new, old in zip(moved, node.outputs)
                ]
            if outputs:
                copy_stack_trace(node.outputs, outputs)
                fgraph.replace_all_validate(list(zip(node.outputs, outputs)), reason="convnet_ops_swap")


def reason_to_leave(node, on_gpu, wanted):
    """Why a node of Theano's stays, or ''."""
    if isinstance(node.op, ConvOp):
        return "the old op of theano.tensor.nnet.conv; theano.tensor.nnet.conv2d's is taken"
    try:
        nnet.swap(node)
    except nnet.Unsupported as reason:
        return str(reason)
    if on_gpu and node.outputs[0].dtype != "float32":
        return "our ops compute %s on the CPU only" % node.outputs[0].dtype
    if isinstance(node.op, nnet.POOL_OPS):
        return "" if _moves(node, wanted) else _NO_CONVOLUTION
    return slower(node.op, on_gpu)


def slower(op, on_gpu):
    """Why Theano's own convolution is the faster choice, or ''; what is not known of the shapes speaks for ours.

    Measured by benchmarks/swapped.py. On the GPU ours were faster from a batch of 8 on and mostly slower on less. On
    the CPU OpenBLAS multiplies large matrices faster than our op computes its sums, and small batches fill no vectors.
    """
    batch, least = op.imshp[0], 8 if on_gpu else 16
    if not on_gpu and not theano.config.blas.ldflags:
        return ""
    if batch is not None and int(batch) < least:
        return "its batch is %d; Theano's op is faster under %d on the %s" % (batch, least, "GPU" if on_gpu else "CPU")
    if not on_gpu and tuple(op.kshp[-2:]) == (1, 1):
        return "its filters are 1 x 1; with a BLAS Theano's op is faster on the CPU"
    weights = 0 if None in op.kshp else np.prod([int(size) for size in op.kshp])
    if not on_gpu and weights > CPU_WEIGHTS:
        return "it has %d weights; with a BLAS Theano's op is faster over %d on the CPU" % (weights, CPU_WEIGHTS)
    return ""


CPU_WEIGHTS = 1 << 17


_NO_CONVOLUTION = "no convolution beside it that keeps its images in c01b: it would need two shuffles of its own"


def _is_theanos(node):
    return isinstance(node.op, nnet.CONV_OPS + nnet.POOL_OPS + (ConvOp,))


def _moves(node, wanted):
    """Whether a node is to work in c01b: an input comes from there, and nothing large has to be shuffled for it.

    Where the output is wanted in c01b, large inputs are shuffled too: the output would be otherwise. So is pooling
    whose inputs are all in bc01.
    """
    arrays = [variable for variable in node.inputs if variable.ndim == 4]
    sources = [variable for variable in arrays if layouts.source(variable) is not None]
    needed = any(output in wanted for output in node.outputs)
    if isinstance(node.op, nnet.POOL_OPS):
        return bool(sources) or needed
    others = [variable for variable in arrays if variable not in sources and not layouts.is_small(variable)]
    return bool(sources) and (needed or not others)


def _wanted_in_c01b(fgraph, nodes, on_gpu):
    """The bc01 variables that a convolution, or something before one, will read in c01b."""
    wanted = set()
    for node in reversed(nodes):
        arrays = [variable for variable in node.inputs if variable.ndim == 4]
        if isinstance(node.op, nnet.CONV_OPS):
            # The filters are small, and come first in the gradient of the images.
            arrays = {1: arrays[:1], 2: arrays[1:], 3: arrays}[_CONV_KINDS[type(node.op)]]
            if not reason_to_leave(node, on_gpu, wanted):
                wanted.update(arrays)
        elif isinstance(node.op, DimShuffle) and tuple(node.op.new_order) == layouts.TO_C01B:
            wanted.update(arrays)
        elif isinstance(node.op, nnet.POOL_OPS) or type(node.op) in layouts.MOVES:
            if any(output in wanted for output in node.outputs):
                wanted.update(arrays)
    return wanted


# Which inputs are images or their gradients: the first, the second, both.
_CONV_KINDS = dict(zip(nnet.CONV_OPS, (1, 2, 3)))

NAME = "convnet_ops_swap"
# Before the ops move to the GPU (48.5), after everything that simplifies expressions: those would undo it.
optdb.register(NAME, SwapOptimizer(), 48.2, "convnet_ops")
_enabled = False


def enable():
    """Let every function compiled from now on use our ops for Theano's convolutions and pooling.

    Every theano.tensor.nnet.conv2d and gradient of one that our ops can take, and the pooling between them, in any
    model, on the GPU and the CPU. The layers between them work in c01b too. Theano's flag
    optimizer_including=convnet_ops does the same. `report` tells what was taken; `disable` undoes it.
    """
    global _enabled
    if not _enabled:
        optdb.add_tags(NAME, "fast_run", "fast_compile")
        _enabled = True


def disable():
    """Undo `enable`: functions compiled from now on keep Theano's ops. Those compiled before stay as they are."""
    global _enabled
    if _enabled:
        optdb.remove_tags(NAME, "fast_run", "fast_compile")
        _enabled = False
