"""Graph rewrite: where something reads a shuffle between bc01 and c01b, ShuffleDims copies it.

A dimshuffle is a view. What reads it then goes through memory across the order of the elements, or makes a copy of its
own that does. ShuffleDims is one fast copy, for all that read it:

    contiguous(x.dimshuffle(1, 2, 3, 0))                          ShuffleDims('c01b')(x)
    FilterActs(..., w.dimshuffle(1, 2, 3, 0)[:, ::-1, ::-1, :])   FilterActs(..., ShuffleDims('c01b', flip=True)(w))

It runs after the ops have moved to the GPU, on graphs that have one of our ops. What only views a shuffle, or leaves
the function as it is, needs no copy. optimizer_excluding=convnet_ops_copies turns it off.
"""

from convnet_ops.base import ConvnetOp
from convnet_ops.layout import ORDERS, ShuffleDims
from convnet_ops.opt.lift import GPU_TWINS
from theano.compile import optdb
from theano.compile.ops import OutputGuard, Rebroadcast, Shape, Shape_i, SpecifyShape, ViewOp
from theano.gof import InconsistencyError, Optimizer
from theano.gof.opt import copy_stack_trace
from theano.gof.toolbox import ReplaceValidate
from theano.gpuarray.basic_ops import GpuAlloc, GpuContiguous
from theano.gpuarray.subtensor import GpuSubtensor
from theano.gpuarray.type import GpuArrayType
from theano.scan_module.scan_utils import equal_computations
from theano.tensor import NotScalarConstantError, Reshape, ScalarFromTensor, TensorFromScalar, get_scalar_constant_value
from theano.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.opt import Assert, MakeVector
from theano.tensor.subtensor import IncSubtensor, Subtensor

# They do not read their input's elements. Their GPU forms are subclasses.
_VIEWS = (Assert, DimShuffle, OutputGuard, Rebroadcast, Shape, Shape_i, SpecifyShape, Subtensor, ViewOp)

# Rows and columns in each layout.
_IMAGE_AXES = {"c01b": (1, 2), "bc01": (2, 3)}


class CopyShuffles(Optimizer):
    """Puts ShuffleDims in place of the dimshuffles, flipped or not, that something reads."""

    def add_requirements(self, fgraph):
        fgraph.attach_feature(ReplaceValidate())

    def apply(self, fgraph):
        if not any(isinstance(node.op, ConvnetOp) for node in fgraph.apply_nodes):
            return
        for node in fgraph.toposort():
            if isinstance(node.op, IncSubtensor):
                simplify_flip_gradient(fgraph, node)
        for node in fgraph.toposort():
            if isinstance(node.op, (DimShuffle, Subtensor)) and node in fgraph.apply_nodes:
                copy_shuffle(fgraph, node.outputs[0])


def simplify_flip_gradient(fgraph, node):
    """Replace zeros[:, ::-1, ::-1, :] += g, Theano's gradient of a flip, by the flip of g; returns whether it was."""
    zeros, gradient = node.inputs[:2]
    if node.op.set_instead_of_inc or _flipped_axes(node) is None or not _is_zero(zeros):
        return False
    flip = (GpuSubtensor if isinstance(zeros.type, GpuArrayType) else Subtensor)(node.op.idx_list)
    flipped = flip(gradient, *node.inputs[2:])
    # A gradient that is broadcast has another type.
    if flipped.type != node.outputs[0].type:
        return False
    copy_stack_trace(node.outputs[0], flipped)
    fgraph.replace_validate(node.outputs[0], flipped, reason="convnet_ops_copies")
    return True


def copy_shuffle(fgraph, variable):
    """Replace a variable by a ShuffleDims, if it is a shuffle that something reads; returns whether it was."""
    found = _shuffle(variable)
    if found is None:
        return False
    source, to, flip = found
    on_gpu = isinstance(source.type, GpuArrayType)
    if source.dtype != "float32" and (on_gpu or source.dtype != "float64"):
        return False
    if not flip and _same_order(source, to):
        return False
    # Whoever takes a flipped output would get an array that runs backwards through memory.
    backwards = on_gpu and flip and any(client == "output" for client, _ in variable.clients)
    if not backwards and not any(_reads(fgraph, client, variable, to) for client, _ in variable.clients):
        return False
    copy = (GPU_TWINS[ShuffleDims] if on_gpu else ShuffleDims)(to, flip)(source)
    if copy.type != variable.type:
        return False
    copy_stack_trace(variable, copy)
    replaced = [variable]
    for old in replaced:
        # The copy is contiguous.
        replaced += [client.outputs[0] for client, _ in old.clients if _is_contiguous_op(client)]
    try:
        fgraph.replace_all_validate([(old, copy) for old in replaced], reason="convnet_ops_copies")
    except InconsistencyError:
        return False
    return True


def _shuffle(variable):
    """(source, to, flip) if the variable is ShuffleDims(to, flip) of a 4-D source, else None."""
    flip = False
    node = variable.owner
    axes = _flipped_axes(node)
    if axes is not None:
        node = node.inputs[0].owner
    to = _direction(node)
    if to is None or axes not in (None, _IMAGE_AXES[to]):
        return None
    flip = (axes is not None) != (isinstance(node.op, ShuffleDims) and node.op.flip)
    (source,) = node.inputs
    if _flipped_axes(source.owner) == _IMAGE_AXES["bc01" if to == "c01b" else "c01b"]:
        source, flip = source.owner.inputs[0], not flip
    return source, to, flip


def _direction(node):
    """The layout that a node shuffles to, or None."""
    if node is None:
        return None
    if isinstance(node.op, ShuffleDims):
        return node.op.to
    if isinstance(node.op, DimShuffle) and node.inputs[0].ndim == 4:
        return next((to for to, order in ORDERS.items() if tuple(node.op.new_order) == order), None)
    return None


def _flipped_axes(node):
    """The axes that a node reverses if it does nothing else, or None; of an IncSubtensor those of its index."""
    if node is None or not isinstance(node.op, (Subtensor, IncSubtensor)):
        return None
    numbers = node.inputs[2 if isinstance(node.op, IncSubtensor) else 1 :]
    try:
        index = Subtensor(node.op.idx_list).get_constant_idx(node.inputs[:1] + numbers)
    except NotScalarConstantError:
        return None
    if any(part not in (slice(None), slice(None, None, 1), slice(None, None, -1)) for part in index):
        return None
    return tuple(axis for axis, part in enumerate(index) if part.step == -1) or None


def _is_zero(variable):
    if variable.owner is not None and isinstance(variable.owner.op, GpuAlloc):
        return variable.owner.op.memset_0
    try:
        return get_scalar_constant_value(variable) == 0
    except NotScalarConstantError:
        return False


def _same_order(source, to):
    """Whether a shuffle leaves the elements where they are in memory: one image, or images of one pixel and channel."""
    images = source.broadcastable[0 if to == "c01b" else 3]
    return images or all(source.broadcastable[1:] if to == "c01b" else source.broadcastable[:3])


def _is_contiguous_op(client):
    return client != "output" and isinstance(client.op, (CpuContiguous, GpuContiguous))


def _reads(fgraph, client, variable, to):
    """Whether a client is better off with a copy of the shuffle than with a view."""
    if client == "output" or isinstance(client.op, _VIEWS):
        return False
    if isinstance(client.op, Reshape):
        return not _reshape_is_a_view(fgraph, client, variable, to)
    # The time on a view over that of a copy and of the op on it, on 2 cores, with 370,000 to 9,000,000 floats:
    # rectifiers and products 1.1 to 7; tanh, which takes far longer than a copy, 0.95 to 1.07; sums over some axes 0.3
    # to 2.6, most of them 0.6 to 0.8; sums over all and maxima 0.8 to 3.4, median 1.1.
    if isinstance(client.op, CAReduce) and not isinstance(variable.type, GpuArrayType):
        return False
    return True


def _reshape_is_a_view(fgraph, reshape, variable, to):
    """Whether a reshape to a matrix, with a row (bc01) or a column (c01b) an image, can be one of a shuffle's view.

    So images become the input of a dense layer, and its matrix product takes matrices in either order.
    """
    shape = reshape.inputs[1].owner
    if reshape.op.ndim != 2 or shape is None or not isinstance(shape.op, MakeVector):
        return False
    if not hasattr(fgraph, "shape_feature"):
        return False
    axis, side = (0, 0) if to == "bc01" else (3, 1)
    sizes = [shape.inputs[side], fgraph.shape_feature.get_shape(variable, axis)]
    return equal_computations(*([_integer(size)] for size in sizes))


def _integer(size):
    """A size without casts and changes between scalars and 0-D arrays."""
    while size.owner is not None and (
        isinstance(size.owner.op, (ScalarFromTensor, TensorFromScalar))
        or isinstance(size.owner.op, Elemwise)
        and str(size.owner.op.scalar_op).startswith("Cast")
    ):
        size = size.owner.inputs[0]
    return size


optdb.register("copy_shuffles", CopyShuffles(), 48.7, "fast_run", "convnet_ops_copies")
