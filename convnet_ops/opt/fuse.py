"""Graph rewrite: a bias and an activation after FilterActs become part of it, and their gradients one pass.

    activation(FilterActs(x, w) + b)                     FusedFilterActs(x, w, b), here called acts
    gz = g * activation'(FilterActs(x, w) + b)           FusedActsGrad(acts, g)[0]
    gz.sum(axis=(1, 2, 3))                               FusedActsGrad(acts, g)[1]

It runs on host graphs, before the ops move to the GPU. It replaces nothing unless FilterActs itself goes: where
something else reads the sum with the bias, as the derivative of an activation that is not known here, the graph stays
as it is. optimizer_excluding=convnet_ops_fusion turns it off.
"""

import numpy as np
import theano.tensor as T
from convnet_ops.filter_acts import FilterActs
from convnet_ops.fused_acts import FusedActsGrad, FusedFilterActs
from convnet_ops.opt.elementwise import Functions, is_elementwise
from convnet_ops.opt.lift import goes_to_gpu
from theano.compile import optdb
from theano.gof import InconsistencyError, MergeOptimizer, Optimizer
from theano.gof.opt import copy_stack_trace
from theano.gof.toolbox import ReplaceValidate
from theano.tensor.elemwise import DimShuffle, Elemwise, Sum

# Nodes between the activation's derivative and the gradient that all of them make together.
_LONGEST_CLIMB = 6


class FuseActivations(Optimizer):
    """Puts FusedFilterActs and FusedActsGrad in place of what they compute.

    On the CPU only when asked to: there LeNet and AlexNet trained 3 to 7 % slower with them, on the GPU 60 and 11 %
    faster (benchmarks/networks.py).
    """

    def __init__(self, on_cpu):
        super().__init__()
        self.on_cpu = on_cpu

    def add_requirements(self, fgraph):
        fgraph.attach_feature(ReplaceValidate())

    def apply(self, fgraph):
        if not self.on_cpu and not goes_to_gpu(fgraph):
            return
        if not any(type(node.op) is FilterActs for node in fgraph.apply_nodes):
            return
        # The gradient must read the same variables as the activation.
        MergeOptimizer().optimize(fgraph)
        for node in fgraph.toposort():
            if type(node.op) is FilterActs:
                fuse(fgraph, node)


def fuse(fgraph, conv):
    """Fuse what follows a FilterActs node, if it can be; returns whether it was."""
    found = _bias_addition(conv)
    if found is None:
        return False
    biased, bias = found
    functions = Functions(biased)
    for options, scales in _activations(functions):
        if _replace(fgraph, conv, bias, functions, options, scales):
            return True
    # An Elemwise that reads the sum adds the bias in its own pass.
    if all(client != "output" and isinstance(client.op, Elemwise) for client, _ in biased.clients):
        return False
    return _replace(fgraph, conv, bias, functions, {"activation": "linear"}, {biased: 1.0})


def _bias_addition(conv):
    """(sum, bias as a vector) if the output is read by nothing but the addition of a bias, else None."""
    (out,) = conv.outputs
    if len(out.clients) != 1:
        return None
    node = out.clients[0][0]
    if not is_elementwise(node) or not isinstance(node.op.scalar_op, T.scal.Add) or len(node.inputs) != 2:
        return None
    (addend,) = [i for i in node.inputs if i is not out] or [out]
    if addend.broadcastable != (out.broadcastable[0], True, True, True) or addend.dtype != out.dtype:
        return None
    shuffle = addend.owner
    if shuffle is not None and isinstance(shuffle.op, DimShuffle) and shuffle.inputs[0].ndim == 1:
        return node.outputs[0], shuffle.inputs[0]
    return node.outputs[0], addend.dimshuffle(0)


def _activations(functions):
    """[(options of FusedFilterActs, {variable: scale})]: the variables that are such an activation times a number."""
    found = []
    for variable, values in functions.values.items():
        activation = _activation(functions, values)
        if activation is not None:
            scale, options = activation
            same = [scales for known, scales in found if known == options]
            if not same:
                same = [{}]
                found.append((options, same[0]))
            same[0][variable] = scale
    return found


def _activation(functions, values):
    for activation, wanted in (("tanh", np.tanh), ("sigmoid", _sigmoid)):
        scale = functions.proportional(values, wanted)
        if scale is not None:
            return scale, {"activation": activation}
    factors = functions.rectifier(values)
    if factors is None or factors[0] == 0 or factors[1] / factors[0] < 0 or _is_one(factors[1] / factors[0]):
        return None
    return factors[0], _rectifier(factors[1] / factors[0])


def _derivative(functions, activation, factor):
    """(scale, options of FusedActsGrad) if the factor is scale times a derivative of the activation, else None."""
    if activation in ("tanh", "sigmoid"):
        wanted = {"tanh": lambda x: 1 - np.tanh(x) ** 2, "sigmoid": lambda x: _sigmoid(x) * _sigmoid(-x)}[activation]
        scale = functions.proportional(factor, wanted)
        return None if scale is None else (scale, {"activation": activation})
    step = functions.step(factor)
    # A factor that is the same everywhere is none of the activation's.
    if step is None or step[0] == 0 or step[1] / step[0] < 0 or _is_one(step[1] / step[0]):
        return None
    above, below, at_zero = step
    return above, dict(_rectifier(below / above), at_zero=at_zero / above)


def _rectifier(slope):
    return {"activation": "leaky_relu", "slope": slope} if slope > 0 else {"activation": "relu"}


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def _is_one(number):
    return abs(number - 1) < 1e-6


def _replace(fgraph, conv, bias, functions, options, scales):
    """Replace an activation and its gradients, if FilterActs' own node then goes."""
    gradients = list(_gradients(functions, options["activation"])) if options["activation"] != "linear" else []
    at_zero = {gradient[2].get("at_zero", 0.0) for gradient in gradients}
    op = FusedFilterActs(**dict(conv.op._props_dict(), **options), at_zero=at_zero.pop() if len(at_zero) == 1 else 0.0)
    acts = op(*(conv.inputs + [bias]))
    copy_stack_trace(conv.outputs[0], acts)
    replacements = [
        (variable, _scaled(acts, scale)) for variable, scale in scales.items() if variable.type == acts.type
    ]
    for root, gradient, derivative in gradients:
        if gradient.dtype != acts.dtype:
            continue
        if gradient.broadcastable != acts.broadcastable:
            gradient = T.second(acts, gradient)
        outputs = FusedActsGrad(**derivative)(acts, gradient, return_list=True)
        copy_stack_trace(root, outputs)
        if outputs[0].type == root.type:
            sums = [client.outputs[0] for client, _ in root.clients if _sums_a_channel(client)]
            replacements += [(variable, outputs[1]) for variable in sums if variable.type == outputs[1].type]
            replacements.append((root, outputs[0]))
    try:
        checkpoint = fgraph.replace_all_validate(replacements, reason="convnet_ops_fusion")
    except InconsistencyError:
        return False
    if conv in fgraph.apply_nodes:
        fgraph.revert(checkpoint)
        return False
    return True


def _scaled(variable, scale):
    return variable if _is_one(scale) else T.mul(T.constant(scale, dtype=variable.dtype), variable)


def _sums_a_channel(client):
    return client != "output" and isinstance(client.op, Sum) and tuple(sorted(client.op.axis or ())) == (1, 2, 3)


def _gradients(functions, activation):
    """(variable, gradient, options): each variable that is FusedActsGrad, with these options, of a gradient."""
    seen = set()
    for function in functions.values:
        for node, _ in function.clients:
            if is_elementwise(node) and node.outputs[0] not in functions.values and node not in seen:
                seen.add(node)
                found = _gradient(functions, activation, node)
                if found is not None and found[0] not in seen:
                    seen.add(found[0])
                    yield found


def _gradient(functions, activation, node):
    """The gradient that an Elemwise node is a part of: the last variable that is one, if it can be, without a scale."""
    best = None
    for root in _climb(node):
        for others in _leaves(functions, root):
            product = functions.product(root, others)
            derivative = None if product is None else _derivative(functions, activation, product[1])
            if derivative is not None:
                scale, options = derivative
                if _is_one(scale) or best is None:
                    best = root, _scaled(_product(others, product[0]), scale), options
                break
    return best


def _product(variables, powers):
    above = [variable for variable, power in zip(variables, powers) for _ in range(power)]
    below = [variable for variable, power in zip(variables, powers) for _ in range(-power)]
    if not below:
        return above[0] if len(above) == 1 else T.mul(*above)
    return T.true_div(T.mul(*above) if above else 1, T.mul(*below))


def _climb(node):
    """The node's output, and those of the Elemwise nodes that follow it as the only readers."""
    for _ in range(_LONGEST_CLIMB):
        (out,) = node.outputs
        yield out
        if len(out.clients) != 1 or not is_elementwise(out.clients[0][0]):
            return
        node = out.clients[0][0]


def _leaves(functions, root):
    """Sets of variables whose product with a function `root` may be; single variables first, the nearest first."""
    near = [root]
    for variable in near:
        if variable.owner is not None and is_elementwise(variable.owner) and len(near) < 30:
            near += [i for i in variable.owner.inputs if i not in near and functions.evaluate(i) is None]
    for variable in near[1:]:
        yield [variable]
    for depth in range(1, _LONGEST_CLIMB):
        leaves = _leaves_at(functions, root, depth)
        if 1 < len(leaves) < 7:
            yield list(leaves)


def _leaves_at(functions, variable, depth):
    """{variable: None} of what is `depth` Elemwise nodes away, or nearer and not from an Elemwise."""
    if functions.evaluate(variable) is not None:
        return {}
    if depth == 0 or variable.owner is None or not is_elementwise(variable.owner):
        return {variable: None}
    leaves = {}
    for argument in variable.owner.inputs:
        leaves.update(_leaves_at(functions, argument, depth - 1))
    return leaves


optdb.register("fuse_activations", FuseActivations(on_cpu=False), 48.3, "fast_run", "convnet_ops_fusion")
optdb.register(
    "fuse_activations_on_cpu", FuseActivations(on_cpu=True), 48.31, "convnet_ops_cpu_fusion", "convnet_ops_fusion"
)
