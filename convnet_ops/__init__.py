"""Convolution and pooling ops for Theano, in cuda-convnet's c01b layout."""

from convnet_ops import theano_setup

theano_setup.prepare()

from convnet_ops import nnet, opt  # noqa: E402  (importing opt registers the graph rewrites)
from convnet_ops.filter_acts import FilterActs  # noqa: E402
from convnet_ops.fused_acts import FusedActsGrad, FusedFilterActs  # noqa: E402
from convnet_ops.img_acts import ImageActs  # noqa: E402
from convnet_ops.layout import ShuffleDims, bc01_to_c01b, c01b_to_bc01, gpu_contiguous  # noqa: E402
from convnet_ops.opt import disable, enable, report  # noqa: E402
from convnet_ops.pool import (  # noqa: E402
    AvgPool,
    AvgPoolGrad,
    MaxPool,
    MaxPoolGrad,
    MaxPoolRop,
    max_pool_c01b,
)
from convnet_ops.probabilistic_max_pooling import (  # noqa: E402
    ProbMaxPool,
    ProbMaxPoolGrad,
    prob_max_pool_c01b,
)
from convnet_ops.response_norm import CrossMapNorm, CrossMapNormUndo  # noqa: E402
from convnet_ops.stochastic_pool import (  # noqa: E402
    StochasticMaxPool,
    StochasticMaxPoolGrad,
    WeightedMaxPool,
    WeightedMaxPoolGrad,
    stochastic_max_pool_c01b,
    weighted_max_pool_c01b,
)
from convnet_ops.version import __version__  # noqa: E402
from convnet_ops.weight_acts import WeightActs  # noqa: E402

__all__ = [
    "AvgPool",
    "AvgPoolGrad",
    "CrossMapNorm",
    "CrossMapNormUndo",
    "FilterActs",
    "FusedActsGrad",
    "FusedFilterActs",
    "ImageActs",
    "MaxPool",
    "MaxPoolGrad",
    "MaxPoolRop",
    "ProbMaxPool",
    "ProbMaxPoolGrad",
    "ShuffleDims",
    "StochasticMaxPool",
    "StochasticMaxPoolGrad",
    "WeightActs",
    "WeightedMaxPool",
    "WeightedMaxPoolGrad",
    "__version__",
    "bc01_to_c01b",
    "c01b_to_bc01",
    "disable",
    "enable",
    "gpu_contiguous",
    "max_pool_c01b",
    "nnet",
    "opt",
    "prob_max_pool_c01b",
    "report",
    "stochastic_max_pool_c01b",
    "weighted_max_pool_c01b",
]
