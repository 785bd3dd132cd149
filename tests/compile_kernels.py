"""Compiles every row of every kernel table by NVRTC, as libgpuarray does, for six kinds of cards.

A row is compiled for the cards that it is launched on.

It needs no GPU:

    python -m tests.compile_kernels [COMPUTE_CAPABILITY ...]

Where ptxas is found, it prints the registers, shared bytes and spills of each. Exits with 1 if anything does not
compile.
"""

import ctypes
import glob
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile

from convnet_ops.opt import GPU_TWINS

CAPABILITIES = ("75", "80", "86", "90", "100", "120")
PTXAS = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")


def nvrtc():
    """NVRTC from NVIDIA's package on PyPI, or from CUDA."""
    folders = [os.path.join(path, "nvidia") for path in sys.path]
    found = [
        name for folder in folders for name in glob.glob(os.path.join(folder, "**", "libnvrtc.so.*"), recursive=True)
    ]
    found += glob.glob("/usr/local/cuda/lib64/libnvrtc.so.*")
    if not found:
        sys.exit("compile_kernels: no NVRTC; pip install nvidia-cuda-nvrtc")
    # It opens this one by its bare name.
    for builtins in glob.glob(os.path.join(os.path.dirname(found[0]), "libnvrtc-builtins.so.*")):
        ctypes.CDLL(builtins, ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(found[0])


class Compiled(object):
    """What NVRTC makes of a source with the options that libgpuarray gives: ptx, or None, and its log."""

    def __init__(self, library, source, capability):
        program = ctypes.c_void_p()
        assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None) == 0
        options = (ctypes.c_char_p * 2)(b"-arch", b"compute_" + capability.encode())
        status = library.nvrtcCompileProgram(program, 2, options)
        self.log = self._text(library, program, "ProgramLog")
        self.ptx = self._text(library, program, "PTX") if status == 0 else None
        library.nvrtcDestroyProgram(ctypes.byref(program))

    @staticmethod
    def _text(library, program, what):
        size = ctypes.c_size_t()
        assert getattr(library, "nvrtcGet%sSize" % what)(program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(library, "nvrtcGet" + what)(program, text) == 0
        return text.value.decode()


def resources(ptx, capability):
    """What ptxas says: (registers, shared bytes, bytes spilled), or its error as text."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        run = subprocess.run(
            [PTXAS, "-v", "-arch", "sm_" + capability, "-o", os.devnull, file.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
    if run.returncode != 0:
        return run.stdout
    numbers = (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes spill stores")
    return tuple(int(match.group(1)) if match else 0 for match in (re.search(n, run.stdout) for n in numbers))


def compile_row(task):
    """One row for all cards: its name, a cell for each of them, and what failed."""
    name, source, least, capabilities = task
    library, cells, problems = nvrtc(), [], []
    for capability in capabilities:
        if int(capability) < least:
            cells.append("-")
            continue
        compiled = Compiled(library, source, capability)
        found = compiled.log if compiled.ptx is None else resources(compiled.ptx, capability) if PTXAS else "compiled"
        if compiled.ptx is None or isinstance(found, str) and PTXAS:
            problems.append("%s, compute_%s:\n%s" % (name, capability, found))
            found = "FAILED"
        cells.append(found if isinstance(found, str) else "%d / %d / %d" % found)
    return name, cells, problems


def main(capabilities):
    families = {family.name: family for twin in GPU_TWINS.values() for family in twin.kernel_families}
    tasks = [
        (family.kernel_name(row), family.cuda_text(row), row.capability, capabilities)
        for family in families.values()
        for row in family.rows
    ]
    print("registers / shared bytes / bytes spilled" if PTXAS else "no ptxas: nothing but whether it compiles")
    print("%-40s" % "kernel" + "".join("%-18s" % capability for capability in capabilities))
    failures = []
    with multiprocessing.Pool() as pool:
        for name, cells, problems in pool.imap(compile_row, tasks):
            print("%-40s" % name + "".join("%-18s" % cell for cell in cells), flush=True)
            failures += problems
    for problem in failures:
        print(problem, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or CAPABILITIES))
