"""From a row of a kernel table to CUDA source, and to the C++ that compiles and launches it.

A kernel file in cuda/ holds a template and the struct of its arguments; it names no variant. One `Row` is one variant:
`KernelFamily` generates its `extern "C"` wrapper, its launch bounds and its entry in the table that the host code
chooses from, all from the row, and reads the arguments' names and types out of the struct. Nothing here needs a GPU
or pygpu.
"""

import functools
import hashlib
import os
import re
from collections import namedtuple

_HERE = os.path.dirname(os.path.abspath(__file__))
# In an installed package cuda/ lies inside it, in a checkout beside it.
CUDA_DIR = next(
    path for path in (os.path.join(_HERE, "cuda"), os.path.join(_HERE, os.pardir, "cuda")) if os.path.isdir(path)
)

_MEMBER = re.compile(r"^\s*(const (?:float|int) \*|(?:float|int) \*|float |int |unsigned |Divisor )(\w+);")

Argument = namedtuple("Argument", "kind name")

# One variant. tile_m and tile_n are what one block computes; vec_m and vec_n the floats of one load along m and n: the
# host code chooses such a row only where sizes and addresses allow it. weight says how fast the card multiplies when it
# is full of such blocks: TFLOP/s on an H200 (benchmarks/rows.py) where the row is one of a convolution; a row of weight
# 0 is launched only when asked for by name. window and stride, where not 0, are the only ones that a row computes: both
# known when it is compiled. capability is the least compute capability, times 10, of a row that needs tensor cores;
# tf32 is 1 if it rounds its operands to the 11 bits of TF32, or of halves, which the op must allow. depth is how many
# products of its sums a correlation multiplies at a time; a last step takes as long as the others.
Row = namedtuple(
    "Row",
    "name template threads blocks_per_sm tile_m tile_n vec_m vec_n weight window stride capability tf32 depth",
)
Row.__new__.__defaults__ = (1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1)


class KernelFamily(object):
    """The variants of one kernel: they share a template file, an argument struct and a purpose.

    Parameters
    ----------
    name : str
        What the host code calls it: it gets `<name>_launch`, `<name>_rows` and `<struct>`.
    files : list of str
        Files of cuda/ whose text, joined in this order, is the source. common.cuh is always first.
    struct : str
        The argument struct, defined in one of the files.
    rows : list of Row
    """

    def __init__(self, name, files, struct, rows):
        self.name = name
        self.files = ["common.cuh"] + files
        self.struct = struct
        self.rows = rows

    @property
    def source(self):
        """The joined text of the files, without any wrapper; compilers name the file and line of an error."""
        return "\n".join('#line 1 "%s"\n%s' % (name, _read(name)) for name in self.files)

    @property
    def arguments(self):
        """The members of the argument struct, in order, those of the struct that it is derived from first."""
        return self._members(self.struct)

    def _members(self, struct):
        base, body = re.search(r"struct %s(?: : (\w+))? \{(.*?)\n\};" % struct, self.source, re.DOTALL).groups()
        arguments = self._members(base) if base else []
        for line in body.splitlines():
            code = line.split("//")[0].strip()
            if code:
                kind, name = _MEMBER.match(code).groups()
                arguments.append(Argument(kind.strip(), name))
        return arguments

    def kernel_name(self, row):
        return "%s_%s" % (self.name, row.name)

    def wrapper(self, row):
        """The `extern "C"` kernel of a row: it packs its parameters into the struct and calls the template."""
        parameters, packing = [], []
        for kind, name in self.pointers():
            parameters += [kind + name, "size_t %s_offset" % name]
            packing.append("args.{0} = offset_pointer({0}, {0}_offset);".format(name))
        for _, name in self.numbers():
            packing.append("args.{0} = numbers.{0};".format(name))
        parameters.append("%sNumbers numbers" % self.struct)
        return (
            '\n#line 1 "wrapper"\n%s\nextern "C" __global__ void __launch_bounds__(%d, %d)\n'
            "%s(%s) {\n  %s args;\n  %s\n  %s(args);\n}\n"
            % (
                self.numbers_struct(),
                row.threads,
                row.blocks_per_sm,
                self.kernel_name(row),
                ", ".join(parameters),
                self.struct,
                "\n  ".join(packing),
                row.template,
            )
        )

    def cuda_text(self, row):
        """All that NVRTC gets for a row."""
        return self.source + self.wrapper(row)

    def pointers(self):
        """The arguments that are arrays."""
        return [argument for argument in self.arguments if argument.kind.endswith("*")]

    def numbers(self):
        """The other arguments."""
        return [argument for argument in self.arguments if not argument.kind.endswith("*")]

    def numbers_struct(self):
        """A struct of the numbers, of 4 bytes each, as C++ and as CUDA.

        A kernel takes it by value, since each parameter takes the host some time at every launch.
        """
        members = " ".join("%s %s;" % argument for argument in self.numbers())
        return "struct %sNumbers { %s };" % (self.struct, members)

    def digest(self):
        """sha256 of everything generated from this family."""
        return text_digest(self.struct_code(), self.c_code())

    def struct_code(self):
        """C++ of the argument struct, which families may share."""
        members = []
        for kind, name in self.arguments:
            kind = "DeviceArray" if kind.endswith("*") else kind
            members.append("  %s %s;" % (kind, name))
        return "struct %s {\n%s\n};\n%s\n" % (self.struct, "\n".join(members), self.numbers_struct())

    def c_code(self):
        """C++ members for the struct of the op's node, after struct_code(): the table of rows, and `<name>_launch`.

        `<name>_launch(row, grid, args, context)` compiles the row if it is its first launch, launches it, and returns
        0; or it sets a Python exception and returns -1.
        """
        types, pointers = [], []
        for _, name in self.pointers():
            types += ["GA_BUFFER", "GA_SIZE"]
            pointers += ["args->%s.data" % name, "&args->%s.offset" % name]
        table = [
            "{%s}"
            % ", ".join([c_string(row.name), c_string(self.kernel_name(row))] + [str(value) for value in row[2:]])
            for row in self.rows
        ]
        return _C_CODE % {
            "name": self.name,
            "struct": self.struct,
            "count": len(self.rows),
            "table": ",\n    ".join(table),
            "source": c_string(self.source),
            "wrappers": ",\n    ".join(c_string(self.wrapper(row)) for row in self.rows),
            # Of the last type libgpuarray looks at nothing but whether it is a buffer's; CUDA knows the size.
            "types": ", ".join(types + ["GA_INT"]),
            "argument_count": len(types) + 1,
            "numbers": ", ".join("args->" + name for _, name in self.numbers()),
            "pointers": ", ".join(pointers + ["&numbers"]),
        }

    def c_init_code(self):
        """C++ that runs when a node's struct is made."""
        return "memset(%s_kernels, 0, sizeof(%s_kernels));" % (self.name, self.name)

    def c_cleanup_code(self):
        """C++ that runs when it is freed."""
        return "for (int i = 0; i < %d; ++i) GpuKernel_clear(&%s_kernels[i]);" % (len(self.rows), self.name)


_C_CODE = """
// One kernel a row, on the context of this node; k is NULL until the first launch.
GpuKernel %(name)s_kernels[%(count)d];

static GpuRows %(name)s_rows() {
  static const GpuRow rows[] = {
    %(table)s
  };
  const GpuRows table = {"%(name)s", rows, %(count)d};
  return table;
}

int %(name)s_launch(int row, const size_t *grid, %(struct)s *args, PyGpuContextObject *context) {
  static const char *const source = %(source)s;
  static const char *const wrappers[] = {
    %(wrappers)s
  };
  static const int types[] = {%(types)s};
  %(struct)sNumbers numbers = {%(numbers)s};
  void *pointers[] = {%(pointers)s};
  const GpuRow &chosen = %(name)s_rows().rows[row];
  GpuKernel *kernel = &%(name)s_kernels[row];
  if (kernel->k == NULL &&
      compile_kernel(kernel, context, chosen.kernel_name, source, wrappers[row], %(argument_count)d, types) != 0)
    return -1;
  return launch_kernel(kernel, chosen.kernel_name, grid, chosen.threads, pointers);
}
"""


def c_string(text):
    """`text` as C string literals, one a line: the only place where kernel text is escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    lines = escaped.split("\n")
    return "\n".join('"%s\\n"' % line for line in lines[:-1]) + (
        '\n"%s"' % lines[-1] if lines[-1] or not lines[:-1] else ""
    )


def text_digest(*texts):
    """sha256, in hexadecimal, of some texts."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8")
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()


@functools.lru_cache(maxsize=None)
def _read(name):
    with open(os.path.join(CUDA_DIR, name), encoding="utf-8") as source:
        return source.read()
