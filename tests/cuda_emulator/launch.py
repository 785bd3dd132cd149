"""Launches one kernel on the emulated device, by pygpu alone: `launch.py REQUEST`, both ways in JSON.

The request: source, name, arrays (a list of lists of floats; [null, size] for an array that is left as it was
allocated), grid, block, and optionally shared (bytes), declared (how many arguments the host declares), keep
(leave the arrays allocated at exit). The answer: arrays, or error.
"""

import ctypes
import json
import sys

import numpy as np
import pygpu
from pygpu.gpuarray import GpuArray, GpuArrayException, GpuKernel


def main():
    request = json.loads(sys.argv[1])
    context = pygpu.init("cuda0", max_cache_size=0)
    arrays = []
    for values in request["arrays"]:
        if values[0] is None:
            arrays.append(pygpu.empty((values[1],), dtype="float32", context=context))
        else:
            arrays.append(pygpu.array(np.array(values, "float32"), context=context))
    declared = request.get("declared", len(arrays))
    answer = {}
    try:
        kernel = GpuKernel(request["source"], request["name"], [GpuArray] * declared, context=context)
        kernel(*arrays[:declared], gs=request["grid"], ls=request["block"], shared=request.get("shared", 0))
        answer["arrays"] = [[float(value) for value in np.array(array)] for array in arrays]
    except GpuArrayException as error:
        answer["error"] = str(error)
    if request.get("keep"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(arrays[0]))
    print(json.dumps(answer))


main()
