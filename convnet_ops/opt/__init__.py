"""The graph rewrites. Importing this package registers them with Theano.

    swap.py    Theano's convolutions and pooling become our ops, after enable(); layouts.py: what follows them into c01b
    report.py  what was swapped in a function
    lift.py    the ops move to the GPU when Theano compiles for one; always on
    copies.py  what reads a shuffle between bc01 and c01b gets a fast copy; optimizer_excluding=convnet_ops_copies: off
    fuse.py    FilterActs takes the bias and the activation that follow it; optimizer_excluding=convnet_ops_fusion: off
"""

from convnet_ops.opt import copies, fuse, swap  # noqa: F401
from convnet_ops.opt.lift import GPU_TWINS
from convnet_ops.opt.report import report
from convnet_ops.opt.swap import disable, enable

__all__ = ["GPU_TWINS", "disable", "enable", "report"]
