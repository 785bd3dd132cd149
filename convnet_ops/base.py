"""What the ops share: C sources and their digest, argument checks, and the GPU twin of an op."""

import os
import re

import theano
import theano.tensor as T
from convnet_ops import kernels
from theano import Apply
from theano.gof import COp
from theano.gof.op import OpenMPOp
from theano.gpuarray.basic_ops import GpuKernelBase, gpuarray_helper_inc_dir
from theano.gpuarray.type import GpuArrayType, gpu_context_type
from theano.gradient import DisconnectedType
from theano.tensor import TensorType, as_tensor_variable

C_CODE_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "c_code")

_INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)


class ConvnetOp(COp):
    """An op whose CPU code is one function of one file in c_code/.

    A subclass sets `c_file` and `c_function` and lists its constructor's arguments in `__props__`; by these names it is
    pickled too.
    """

    c_file = None
    # Sources before it, which several ops have.
    shared_c_files = ()
    c_function = None

    def __init__(self):
        files = [os.path.join(C_CODE_DIR, name) for name in self.c_files()]
        super().__init__(files, "APPLY_SPECIFIC(%s)" % self.c_function)

    def c_files(self):
        """The names of its sources in c_code/, in order."""
        return self.shared_c_files + (self.c_file,)

    def __reduce__(self):
        # Built anew, so that an op from an old pickle runs the C code of today.
        return _rebuild, (type(self), self._props_dict())

    def make_node(self, *inputs, **options):
        inputs = self.convert_inputs(*inputs, **options)
        types = [TensorType(*pair) for pair in zip(self.output_dtypes(inputs), self.output_broadcasts(inputs))]
        return Apply(self, inputs, [output() for output in types])

    def convert_inputs(self, *inputs, **options):
        """The arguments of the op's call as a list of host variables, checked."""
        raise NotImplementedError

    def output_broadcasts(self, inputs):
        """The broadcastable pattern of each output."""
        raise NotImplementedError

    def output_dtypes(self, inputs):
        """The dtype of each output: that of the first input."""
        return [inputs[0].dtype] * len(self.output_broadcasts(inputs))

    def c_headers(self):
        return []

    def c_header_dirs(self):
        return [C_CODE_DIR]

    def c_compile_args(self):
        # As a BLAS does, the ops use the cores that OMP_NUM_THREADS allows, whatever config.openmp says.
        return ["-fopenmp"] if _compiler_has_openmp() else []

    def c_code_cache_version(self):
        # COp's default is Python's salted hash: it would recompile in every process.
        return (source_digest(self.c_files()), self.params_type.c_code_cache_version())

    def as_arrays(self, **values):
        """Each value as a symbolic 4-D array on the host.

        Raises
        ------
        TypeError
            A value is not 4-D, not float32 or float64, or not of the first one's dtype.
        """
        variables = []
        for argument, value in values.items():
            variable = as_tensor_variable(value)
            if variable.dtype not in ("float32", "float64"):
                raise TypeError(
                    "%s: %s is %s; it must be float32 (or float64, which stays on the CPU)"
                    % (type(self).__name__, argument, variable.dtype)
                )
            if variable.ndim != 4:
                raise TypeError(
                    "%s: %s has %d dimensions; it must have 4" % (type(self).__name__, argument, variable.ndim)
                )
            if variables and variable.dtype != variables[0].dtype:
                raise TypeError(
                    "%s: %s is %s; it must be %s, as %s is"
                    % (type(self).__name__, argument, variable.dtype, variables[0].dtype, next(iter(values)))
                )
            variables.append(variable)
        return variables

    def as_size(self, argument, value):
        """`value`, (rows, columns) as a vector or as a pair of ints or scalars, as an int64 vector; or TypeError."""
        variable = as_tensor_variable(value)
        if variable.ndim != 1 or not variable.dtype.startswith(("int", "uint")):
            raise TypeError(
                "%s: %s is %r; it must be two integers (rows, columns)" % (type(self).__name__, argument, value)
            )
        return variable.astype("int64")


class FirstOutputOp(ConvnetOp):
    """An op whose call gives its first output; with return_list=True, as in all of Theano, the list of all of them."""

    def __call__(self, *inputs, return_list=False, **options):
        outputs = super().__call__(*inputs, return_list=True, **options)
        return outputs if return_list else outputs[0]


class ExpressedOp(ConvnetOp):
    """An op whose higher derivatives are those of an expression in other ops: it has an R_op, and `expression_L_op`.

    A subclass that is a gradient itself uses `expression_L_op` as its L_op; another one gives itself an op for that.
    """

    def expression(self, *inputs):
        """What the op computes, its list of outputs, in terms of other ops."""
        raise NotImplementedError

    def expression_L_op(self, inputs, outputs, output_gradients):
        connected = [i for i, g in enumerate(output_gradients) if not isinstance(g.type, DisconnectedType)]

        # The gradient of one number, not T.Lop: to that an output that another one is computed from is a constant.
        def derive(free, results):
            products = [(results[i] * output_gradients[i]).sum() for i in connected]
            return T.grad(sum(products[1:], products[0]), free, disconnected_inputs="ignore")

        gradients = self._derived(inputs, derive)
        return [like(variable, gradient) for variable, gradient in zip(inputs, gradients)]

    def R_op(self, inputs, eval_points):
        known = [i for i, point in enumerate(eval_points) if point is not None]
        if not known:
            return [None] * len(self.output_broadcasts(inputs))
        points = [eval_points[i] for i in known]
        directions = self._derived(inputs, lambda free, outputs: T.Rop(outputs, [free[i] for i in known], points))
        return [like(output, direction) for output, direction in zip(self.make_node(*inputs).outputs, directions)]

    def _derived(self, inputs, derive):
        # In terms of new variables, since an input may be computed from another one, as acts from images: a derivative
        # of this op must not go on through that.
        free = [variable.type() for variable in inputs]
        return theano.clone(derive(free, self.expression(*free)), replace=dict(zip(free, inputs)))


class GpuOp(GpuKernelBase):
    """Mixin that turns a ConvnetOp into its GPU twin: the same props and graph logic, other C code.

    A twin is `class GpuX(GpuOp, X)`, made by the lifter in opt/lift.py. It sets `c_file`, `params_type` (by
    `gpu_params`) and `kernel_families`, whose variants are compiled at their first launch, not when a function is
    built.
    """

    kernel_families = ()

    def make_node(self, *inputs):
        arrays = [variable for variable in inputs if isinstance(variable.type, GpuArrayType)]
        context_name = arrays[0].type.context_name
        types = [
            GpuArrayType(dtype, broadcast, context_name=context_name)
            for dtype, broadcast in zip(self.output_dtypes(inputs), self.output_broadcasts(inputs))
        ]
        return Apply(self, list(inputs), [output() for output in types])

    def get_params(self, node):
        return self.params_type.get_params(self, context=node.inputs[0].type.context)

    def c_headers(self):
        return ["gpuarray_api.h", "gpuarray_helper.h", "numpy_compat.h", "gpu_launch.h"]

    def c_header_dirs(self):
        import pygpu

        return [C_CODE_DIR, gpuarray_helper_inc_dir(), pygpu.get_include()]

    def c_compile_args(self):
        return []

    def c_code_cache_version(self):
        digests = tuple(family.digest() for family in self.kernel_families)
        return (source_digest(self.c_files() + ("gpu_launch.h",)), self.params_type.c_code_cache_version()) + digests

    def c_code_cache_version_apply(self, node):
        return (self.c_code_cache_version(), self.kernel_version(node))

    def gpu_kernels(self, node, name):
        # All that GpuKernelBase generates per kernel is generated per family here.
        return []

    def c_support_code_apply(self, node, name):
        return ""

    def c_support_code_struct(self, node, name):
        structs = {family.struct: family.struct_code() for family in self.kernel_families}
        families = [family.c_code() for family in self.kernel_families]
        return "\n".join(list(structs.values()) + families + [COp.c_support_code_struct(self, node, name)])

    def c_init_code_struct(self, node, name, sub):
        return "\n".join(family.c_init_code() for family in self.kernel_families)

    def c_cleanup_code_struct(self, node, name):
        return "\n".join(family.c_cleanup_code() for family in self.kernel_families)


def gpu_params(params_type):
    """The params of a GPU twin: those of the op, and the context that it runs on."""
    return params_type.extended(context=gpu_context_type)


def like(variable, gradient):
    """`gradient` on the device and with the broadcastable pattern of `variable`, as Theano's grad wants it."""
    return variable.type.filter_variable(gradient)


def source_digest(names):
    """sha256 of files of c_code/ and of the headers there that they include, directly or not."""
    texts = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in texts and os.path.exists(os.path.join(C_CODE_DIR, name)):
            with open(os.path.join(C_CODE_DIR, name), encoding="utf-8") as source:
                texts[name] = source.read()
            pending += _INCLUDE.findall(texts[name])
    return kernels.text_digest(*[texts[name] for name in sorted(texts)])


def _rebuild(op_class, props):
    return op_class(**props)


def _compiler_has_openmp():
    if OpenMPOp.gxx_support_openmp is None:
        OpenMPOp.gxx_support_openmp = OpenMPOp.test_gxx_support()
    return OpenMPOp.gxx_support_openmp
