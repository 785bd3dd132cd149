"""What elementwise expressions compute, found by evaluating them.

Theano has a dozen forms of a rectifier, and its rewrites make more of them. Instead of a list of forms, an expression
of one variable is evaluated at points, near and beyond all of its own constants too, and compared with what it may be.
"""

import numpy as np
from theano import scalar
from theano.gof import Constant
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet.sigm import ScalarSigmoid

# The ops that are evaluated.
_SCALAR_OPS = (
    scalar.Abs,
    scalar.Add,
    scalar.AND,
    scalar.Cast,
    scalar.Clip,
    scalar.Exp,
    scalar.Identity,
    scalar.Inv,
    scalar.Invert,
    scalar.LogicalComparison,
    scalar.Maximum,
    scalar.Minimum,
    scalar.Mul,
    scalar.Neg,
    scalar.OR,
    scalar.Pow,
    scalar.Second,
    scalar.Sgn,
    scalar.Sqr,
    scalar.Sqrt,
    scalar.Sub,
    scalar.Switch,
    scalar.Tanh,
    scalar.TrueDiv,
    ScalarSigmoid,
)

# float32 constants, as 0.55 and 0.45 of a leaky rectifier, are rounded by this share.
_ROUNDING = 1e-6


def is_elementwise(node):
    """Whether a client of a variable is a node that `evaluate` goes through."""
    return node != "output" and isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, _SCALAR_OPS)


def constant_value(variable):
    """The one value of a constant, or None."""
    if not isinstance(variable, Constant):
        return None
    data = np.asarray(variable.data)
    if data.size == 0 or data.dtype.kind not in "biuf" or not (data == data.flat[0]).all():
        return None
    # NumPy's float, since Python's raises an exception where NumPy's gives infinity.
    return np.float64(data.flat[0]) if data.dtype.kind == "f" else data.flat[0].item()


class Functions(object):
    """All variables that are computed from one variable and constants, elementwise.

    Attributes
    ----------
    points : list of float
        The values of the variable.
    values : dict
        The values of each function at these points; the variable itself is one of them.
    """

    def __init__(self, variable):
        found, constants = [variable], []
        known = {variable}
        for argument in found:
            for node, _ in argument.clients:
                if not is_elementwise(node) or node.outputs[0] in known:
                    continue
                numbers = [constant_value(i) for i in node.inputs if i not in known]
                if None not in numbers:
                    constants += numbers
                    known.add(node.outputs[0])
                    found.append(node.outputs[0])
        self.points = _points(constants)
        self.values = {variable: self.points}
        for function in found[1:]:
            values = self.evaluate(function)
            if values is not None:
                self.values[function] = values

    def evaluate(self, variable, given=None):
        """The values of an expression of functions, constants and the variables of `given`, {variable: number}.

        None where it has other variables in it too.
        """
        known = dict(self.values)
        for other, number in (given or {}).items():
            known[other] = [np.float64(number)] * len(self.points)
        with np.errstate(all="ignore"):
            return self._evaluate(variable, known, 12)

    def _evaluate(self, variable, known, depth):
        if variable not in known:
            # Until it is known: a graph that comes back to it many times must not go through it as often.
            known[variable] = None
            number = constant_value(variable)
            if number is not None:
                known[variable] = [number] * len(self.points)
            elif depth > 0 and variable.owner is not None and is_elementwise(variable.owner):
                arguments = []
                for argument in variable.owner.inputs:
                    arguments.append(self._evaluate(argument, known, depth - 1))
                    if arguments[-1] is None:
                        return None
                known[variable] = [variable.owner.op.scalar_op.impl(*values) for values in zip(*arguments)]
        return known[variable]

    def product(self, variable, others):
        """(powers, values of f) where `variable` is f times the product of the others, to powers up to 2 and -2.

        None where it is not: then it may depend on the others in any way, as a clipped gradient does.
        """

        def evaluate(numbers):
            return np.array(self.evaluate(variable, dict(zip(others, numbers))), "float64")

        if not others or self.evaluate(variable, dict.fromkeys(others, 1.0)) is None:
            return None
        factor = evaluate([1.0] * len(others))
        powers = []
        for i in range(len(others)):
            doubled = evaluate([2.0 if j == i else 1.0 for j in range(len(others))])
            fitting = [power for power in (1, -1, 2, -2) if _close(doubled, 2.0**power * factor)]
            if len(fitting) != 1:
                return None
            powers += fitting
        for size in (1.0, 1e10, 1e-10, 1e30):
            numbers = [size * (1.5 + i) * (-1) ** (i + 1) for i in range(len(others))]
            if not _close(evaluate(numbers), np.prod([n**p for n, p in zip(numbers, powers)]) * factor):
                return None
        return powers, factor

    def rectifier(self, values):
        """(factor above zero, factor below it) if the values are those of a rectifier, or None."""
        points, values = np.array(self.points), np.array(values, "float64")
        if (values[points == 0] != 0).any():
            return None
        above = one_number(values[points > 0] / points[points > 0])
        below = one_number(values[points < 0] / points[points < 0])
        return None if above is None or below is None else (above, below)

    def step(self, values):
        """(value above zero, below it, at it) if there are no others, or None."""
        points, values = np.array(self.points), np.array(values, "float64")
        numbers = tuple(one_number(values[chosen]) for chosen in (points > 0, points < 0, points == 0))
        return None if None in numbers else numbers

    def proportional(self, values, wanted):
        """c if the values are c times the wanted ones, but for rounding, or None."""
        values, wanted = np.array(values, "float64"), np.array([wanted(point) for point in self.points])
        largest = np.argmax(np.abs(wanted))
        scale = values[largest] / wanted[largest]
        close = np.abs(values - scale * wanted) <= _ROUNDING * abs(scale) * np.maximum(np.abs(wanted), 1e-3)
        return float(scale) if close.all() else None


def one_number(values):
    """The first of some values, if they are all the same but for rounding, else None."""
    return float(values[0]) if _close(values, values[0]) else None


def _close(values, wanted):
    return np.allclose(values, wanted, _ROUNDING, 0)


def _points(constants):
    sizes = [1e-30, 1e-6, 1e-3, 0.1, 0.5, 1.0, 1.7, 3.0, 10.0, 30.0, 1e4, 1e20]
    for constant in {abs(float(constant)) for constant in constants}:
        if 0 < constant < float("inf"):
            sizes += [constant * share for share in (0.5, 1 - 1e-5, 1.0, 1 + 1e-5, 2.0)] + [1 / constant]
    return [np.float64(point) for point in [0.0, -0.0] + sizes + [-size for size in sizes]]
