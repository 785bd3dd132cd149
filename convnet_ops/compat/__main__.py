"""python -m convnet_ops.compat SCRIPT [ARGS]: run a script of 2014 with the doors open."""

import argparse
import os
import runpy
import sys


def main(arguments=None):
    """Open the doors and run a script as Python would.

    Parameters
    ----------
    arguments : list of str, optional
        The script and its arguments; by default those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m convnet_ops.compat",
        description="Run a Python script that was written for Theano and pylearn2 of 2014: what it imports from "
        "pylearn2.sandbox.cuda_convnet, theano.sandbox.cuda and theano.tensor.signal.downsample is convnet_ops'.",
    )
    parser.add_argument("script", metavar="SCRIPT", help="a file of Python 3")
    parser.add_argument("args", metavar="ARGS", nargs=argparse.REMAINDER, help="the script's own arguments")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.script):
        parser.error("SCRIPT is %r; there is no such file" % options.script)
    sys.argv = [options.script] + options.args
    # The current folder, which python -m puts there, gives way to the script's, unless Python was told to put none.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.path.dirname(os.path.realpath(options.script))
    # Now: a pylearn2 beside the script must be found.
    import convnet_ops.compat.pylearn2  # noqa: F401

    runpy.run_path(options.script, run_name="__main__")


if __name__ == "__main__":
    main()
