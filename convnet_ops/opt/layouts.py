"""How ops of Theano's on bc01 arrays compute the same on c01b arrays: what a shuffle passes through.

`MOVES` maps a class of ops to a function of (node, to_c01b) that gives the node's outputs in c01b, computed from inputs
in c01b; None if this node cannot be moved. `reduced` is for ops whose outputs have fewer dimensions.
"""

import numpy as np
import theano.tensor as T
from convnet_ops.layout import c01b_to_bc01
from theano.compile.ops import Rebroadcast
from theano.gof import Constant
from theano.tensor.basic import Alloc, Join, Split
from theano.tensor.elemwise import CAReduce, CAReduceDtype, DimShuffle, Elemwise
from theano.tensor.nnet import bn
from theano.tensor.opt import Assert
from theano.tensor.subtensor import IncSubtensor, Subtensor, get_idx_list

# Axis i of a c01b array is axis TO_C01B[i] of the bc01 array, and the other way around.
TO_C01B = (1, 2, 3, 0)
TO_BC01 = (3, 0, 1, 2)


def source(variable):
    """The c01b variable whose shuffle `variable` is, or None."""
    owner = variable.owner
    if owner is not None and isinstance(owner.op, DimShuffle) and tuple(owner.op.new_order) == TO_BC01:
        return owner.inputs[0]
    return None


def to_c01b(variable):
    """A bc01 variable in c01b, without a shuffle where none is needed."""
    owner = variable.owner
    if isinstance(variable, Constant):
        return T.constant(np.ascontiguousarray(variable.data.transpose(TO_C01B)), dtype=variable.dtype)
    if owner is not None and isinstance(owner.op, DimShuffle):
        return shuffled(variable, TO_C01B)
    if owner is not None and isinstance(owner.op, Alloc) and owner.inputs[0].ndim == 0:
        return T.alloc(owner.inputs[0], *[owner.inputs[1 + axis] for axis in TO_C01B])
    return variable.dimshuffle(TO_C01B)


def shuffled(variable, order):
    """`variable`, a DimShuffle's output, in another order: one DimShuffle, or none."""
    inner, inner_order = variable.owner.inputs[0], variable.owner.op.new_order
    order = tuple(axis if axis == "x" else inner_order[axis] for axis in order)
    if order == tuple(range(inner.ndim)):
        return inner
    return DimShuffle(inner.broadcastable, order)(inner)


def is_small(variable):
    """Whether a 4-D variable costs next to nothing to shuffle: a number, a bias, one image."""
    owner = variable.owner
    return any(variable.broadcastable) or isinstance(variable, Constant) or (
        owner is not None and isinstance(owner.op, Alloc) and owner.inputs[0].ndim == 0
    )


def _elemwise(node, to_c01b):
    if node.op.inplace_pattern:
        return None
    return Elemwise(node.op.scalar_op)(*map(to_c01b, node.inputs), return_list=True)


def _join(node, to_c01b):
    axis = node.inputs[0]
    if not isinstance(axis, Constant):
        return None
    return [T.join(TO_BC01[int(axis.data)], *map(to_c01b, node.inputs[1:]))]


def _split(node, to_c01b):
    images, axis, sizes = node.inputs
    if not isinstance(axis, Constant):
        return None
    return Split(node.op.len_splits)(to_c01b(images), TO_BC01[int(axis.data)], sizes, return_list=True)


def _slices(node, inputs):
    """The index of a (Inc)Subtensor node in c01b; None if it takes out single rows, columns, channels or images."""
    index = list(get_idx_list(inputs, node.op.idx_list))
    index += [slice(None)] * (4 - len(index))
    if not all(isinstance(entry, slice) for entry in index):
        return None
    return tuple(index[axis] for axis in TO_C01B)


def _subtensor(node, to_c01b):
    index = _slices(node, node.inputs)
    return None if index is None else [to_c01b(node.inputs[0])[index]]


def _inc_subtensor(node, to_c01b):
    images, values = node.inputs[:2]
    index = _slices(node, [images] + node.inputs[2:])
    if index is None or node.op.inplace or values.ndim not in (0, 4):
        return None
    replace = T.set_subtensor if node.op.set_instead_of_inc else T.inc_subtensor
    return [replace(to_c01b(images)[index], to_c01b(values) if values.ndim == 4 else values)]


def _first_input(node, to_c01b):
    """Ops that give their first input, such as Assert."""
    return [node.op(to_c01b(node.inputs[0]), *node.inputs[1:])]


def _rebroadcast(node, to_c01b):
    axes = {TO_BC01[axis]: value for axis, value in node.op.axis.items()}
    return [Rebroadcast(*axes.items())(to_c01b(node.inputs[0]))]


def _batch_norm(node, to_c01b):
    props = dict(node.op._props_dict(), axes=tuple(sorted(TO_BC01[axis] for axis in node.op.axes)))
    inputs = [to_c01b(variable) if variable.ndim == 4 else variable for variable in node.inputs]
    return type(node.op)(**props)(*inputs, return_list=True)


MOVES = {
    Elemwise: _elemwise,
    Join: _join,
    Split: _split,
    Subtensor: _subtensor,
    IncSubtensor: _inc_subtensor,
    Assert: _first_input,
    Rebroadcast: _rebroadcast,
    bn.AbstractBatchNormTrain: _batch_norm,
    bn.AbstractBatchNormTrainGrad: _batch_norm,
    bn.AbstractBatchNormInference: _batch_norm,
}


def reduced(node):
    """The output of a reduction (or of another DimShuffle) of a shuffled variable, without that shuffle; or None."""
    op, images = node.op, node.inputs[0]
    if source(images) is None:
        return None
    if isinstance(op, DimShuffle):
        return shuffled(images, op.new_order)
    axes = tuple(range(4)) if op.axis is None else op.axis
    moved = sorted(TO_BC01[axis] for axis in axes)
    if isinstance(op, CAReduceDtype):
        out = type(op)(axis=moved, dtype=op.dtype, acc_dtype=op.acc_dtype)(source(images))
    elif type(op) is CAReduce:
        out = CAReduce(op.scalar_op, axis=moved)(source(images))
    else:
        return None
    kept = [axis for axis in TO_C01B if axis not in axes]
    return out.dimshuffle([kept.index(axis) for axis in sorted(kept)]) if len(kept) > 1 else out


def from_c01b(variable, wanted):
    """A c01b variable in bc01, of the type that is wanted."""
    return wanted.type.filter_variable(c01b_to_bc01(variable), allow_convert=True)
