"""pylearn2.sandbox.cuda_convnet as it was imported in 2014, made of this library's ops. Importing this installs it.

So does convnet_ops.compat.theano, which this imports. A pylearn2 that is installed stays what it is.
"""

import importlib.util
import sys
import warnings

import convnet_ops
import theano
from convnet_ops import base_acts
from convnet_ops.compat import cuda, modules
from convnet_ops.compat import theano as theano_door


class UnimplementedError(Exception):
    """What pylearn2's wrappers raised for cases that they did not have. The ops here raise ValueError and TypeError."""


def check_cuda(feature_name="cuda-convnet", check_enabled=True):
    """Fail if Theano was told to use a GPU and has none. With device=cpu it passes: the ops run there too.

    Parameters
    ----------
    feature_name : str
        What needs it, for the error.
    check_enabled : bool
        False: it is enough that there is a GPU, in use or not.

    Raises
    ------
    RuntimeError
        There is no GPU, or Theano could not open it.
    """
    device = theano.config.device
    if device == "cpu":
        return
    if not cuda.cuda_available():
        raise RuntimeError(
            "%s: Theano's flag device is %r, but no GPU is found, or pygpu is not installed; "
            "device=cpu runs it on the CPU" % (feature_name, device)
        )
    if check_enabled and not cuda.cuda_enabled():
        raise RuntimeError(
            "%s: Theano's flag device is %r, but Theano could not open it and said why when it was imported; "
            "device=cpu runs it on the CPU" % (feature_name, device)
        )


def convnet_available():
    """Whether the ops can be compiled: Theano has a C++ compiler."""
    return bool(theano.config.cxx)


def max_pool_c01b(c01b, pool_shape, pool_stride, image_shape=None, start=0):
    """convnet_ops.max_pool_c01b with pylearn2's arguments, in its order.

    Parameters
    ----------
    c01b, pool_shape, pool_stride, start
        Those of convnet_ops.max_pool_c01b.
    image_shape
        Ignored, as it was in pylearn2.

    Returns
    -------
    (C, OH, OW, N) variable
    """
    return convnet_ops.max_pool_c01b(c01b, pool_shape, pool_stride, start)


def _ops(*names, **others):
    return dict({name: getattr(convnet_ops, name) for name in names}, **others)


_PACKAGE = "pylearn2.sandbox.cuda_convnet"
MODULES = {
    "pylearn2": {},
    "pylearn2.sandbox": {},
    _PACKAGE: {"check_cuda": check_cuda},
    _PACKAGE + ".base_acts": {"BaseActs": base_acts.BaseActs, "UnimplementedError": UnimplementedError},
    _PACKAGE + ".convnet_compile": {"convnet_available": convnet_available},
    _PACKAGE + ".filter_acts": _ops("FilterActs", "ImageActs", "WeightActs"),
    _PACKAGE + ".img_acts": _ops("FilterActs", "ImageActs", "WeightActs"),
    _PACKAGE + ".weight_acts": _ops("FilterActs", "ImageActs", "WeightActs"),
    _PACKAGE + ".pool": _ops("AvgPool", "MaxPool", "MaxPoolGrad", "MaxPoolRop", max_pool_c01b=max_pool_c01b),
    _PACKAGE + ".probabilistic_max_pooling": _ops("ProbMaxPool", "prob_max_pool_c01b"),
    _PACKAGE + ".response_norm": _ops("CrossMapNorm", "CrossMapNormUndo"),
    _PACKAGE + ".stochastic_pool": _ops(
        "StochasticMaxPool", "WeightedMaxPool", "stochastic_max_pool_c01b", "weighted_max_pool_c01b"
    ),
}


def installed_pylearn2():
    """Where a pylearn2 is that is not this module's, or None."""
    module = sys.modules.get("pylearn2")
    if modules.is_ours(module):
        return None
    if module is not None:
        return getattr(module, "__file__", None) or repr(module)
    spec = importlib.util.find_spec("pylearn2")
    # A folder without __init__.py, such as a checkout of pylearn2 beside the script, has no origin.
    return spec.origin if spec is not None else None


def install():
    """Put the modules of `MODULES`, and those of convnet_ops.compat.theano, into sys.modules.

    Warns
    -----
    UserWarning
        A pylearn2 is installed: then only those of convnet_ops.compat.theano.
    """
    theano_door.install()
    place = installed_pylearn2()
    if place is not None:
        warnings.warn(
            "convnet_ops.compat.pylearn2: pylearn2 is installed (%s) and is left as it is; its own cuda_convnet does "
            "not run on Theano %s. Import the ops from convnet_ops instead." % (place, theano.__version__),
            stacklevel=2,
        )
        return
    modules.install(MODULES)


def uninstall():
    """Undo `install`. What was imported from the modules keeps working."""
    if installed_pylearn2() is None:
        modules.uninstall(MODULES)
    theano_door.uninstall()


install()
