"""The graph rewrites. Importing this package registers them with Theano.

    lift.py    the ops move to the GPU when Theano compiles for one; always on
"""

from convnet_ops.opt.lift import GPU_TWINS

__all__ = ["GPU_TWINS"]
