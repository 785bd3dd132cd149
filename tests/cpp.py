"""Builds small C++ programs from the headers of c_code/, so that tests reach them without Theano or a GPU."""

import os
import subprocess
import tempfile

from convnet_ops.base import C_CODE_DIR


def run_program(includes, body, arguments=(), environment=None):
    """The standard output of a program whose main() is `body`; `includes` are headers of c_code/."""
    text = "".join('#include "%s"\n' % name for name in includes)
    text += "#include <cstdio>\n#include <cstdlib>\nint main(int argc, char **argv) {\n%s\nreturn 0;\n}\n" % body
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "main.cpp"), os.path.join(folder, "main")
        with open(source, "w", encoding="utf-8") as target:
            target.write(text)
        subprocess.run(["g++", "-std=c++14", "-O1", "-I", C_CODE_DIR, "-o", program, source], check=True)
        answer = subprocess.run(
            [program] + [str(argument) for argument in arguments],
            stdout=subprocess.PIPE,
            check=True,
            env=dict(os.environ, **(environment or {})),
        )
    return answer.stdout.decode()
