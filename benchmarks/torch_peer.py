"""PyTorch's side of benchmarks.memory_ops and benchmarks.conv, in a process and an interpreter of its own.

Reads one JSON request a line and answers each with a line:

    {"device": "cuda" or "cpu", "threads": 2}      -> {"versions": {"torch": ...}}; comes first
    {"op": "MaxPool", "direction": "forward" or "gradient", "shape": [C, H, W, N], "window": 3, "stride": 2}
                                                   -> {"layouts": [...]}; makes the operands, in each layout
    {"conv": "fwd", "dimages" or "dfilters", "stride": 1, "pad": 2, "groups": 1, "folder": of images.npy, filters.npy,
     hid.npy, and of the right result under the direction's name, all in bc01}
                                                   -> {"layouts": ["nchw float32" ...], "rel_err": [...],
                                                       "workspace_mb": [...]}; loads them into each layout
    {"sgemm": 8192}                                -> {"tflops": ...}; of a float32 matrix product of that size
    {"repeat": one of the layouts}                 -> {"ms": ...}; milliseconds of one call
    {}                                             -> {}; frees the operands
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
ARRAYS = ("images", "filters", "hid")
REPEAT_MS = 10.0
# So few that the driver's queue holds them all while the GPU still waits.
MOST_CALLS = 200


def max_pool(x, request):
    return F.max_pool2d(x, request["window"], request["stride"], ceil_mode=True)


def avg_pool(x, request):
    return F.avg_pool2d(x, request["window"], request["stride"], ceil_mode=True, count_include_pad=False)


def cross_map_norm(x, request):
    # Of the mean over the window, so that alpha is 5 times that of the sum.
    return F.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=1)


OPS = {"MaxPool": max_pool, "AvgPool": avg_pool, "CrossMapNorm": cross_map_norm}


def build_call(request, device, layout):
    """A function without arguments that computes the output, or only the gradient, of random images."""
    channels, rows, cols, batch = request["shape"]
    op = OPS[request["op"]]
    x = torch.randn(batch, channels, rows, cols, device=device).contiguous(memory_format=LAYOUTS[layout])
    if request["direction"] == "forward":
        return lambda: op(x, request)
    with torch.enable_grad():
        x.requires_grad_()
        y = op(x, request)
    gradient = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, x, gradient, retain_graph=True)


def conv_call(direction, images, filters, hid, request):
    """A function without arguments that computes one direction of a convolution."""
    stride, pad = [request["stride"]] * 2, [request["pad"]] * 2
    if direction == "fwd":
        return lambda: F.conv2d(images, filters, None, stride, pad, groups=request["groups"])
    wanted = [direction == "dimages", direction == "dfilters", False]
    backward = torch.ops.aten.convolution_backward
    index = wanted.index(True)
    return lambda: backward(
        hid, images, filters, None, stride, pad, [1, 1], False, [0, 0], request["groups"], wanted
    )[index]


def with_tf32(allowed, call):
    def allowed_call():
        torch.backends.cudnn.allow_tf32 = allowed
        return call()

    return allowed_call


def relative_error(out, reference):
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def elapsed_cuda(call, calls):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    call()
    # The GPU waits until all calls are in its queue: the time Python takes to launch them does not count.
    torch.cuda._sleep(20000000)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls


def elapsed_cpu(call, calls):
    # As benchmarks.timing does: threads that slept wake up slowly.
    warm = time.perf_counter() + 0.03
    while time.perf_counter() < warm:
        call()
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    ms = 1e3 * (time.perf_counter() - begin) / calls
    # Idle OpenMP threads spin for a while, on the cores that the other process needs next.
    time.sleep(0.02)
    return ms


class Peer(object):
    def __init__(self):
        self.device = self.elapsed = None
        self.repeats = {}

    def start(self, request):
        self.device = request["device"]
        versions = {"torch": torch.__version__}
        if self.device == "cuda":
            versions["torch_device"] = torch.cuda.get_device_name()
            versions["cudnn"] = str(torch.backends.cudnn.version())
            self.elapsed = elapsed_cuda
        else:
            torch.set_num_threads(request["threads"])
            self.elapsed = elapsed_cpu
        return {"versions": versions}

    def build(self, request):
        for layout in LAYOUTS:
            call = build_call(request, self.device, layout)
            self.elapsed(call, 1)
            calls = int(REPEAT_MS / max(self.elapsed(call, 3), 0.01))
            self.repeats[layout] = call, min(max(calls, 1), MOST_CALLS)
        return {"layouts": list(self.repeats)}

    def build_conv(self, request):
        """Every layout with and without TF32, with cuDNN's fastest algorithm for each."""
        torch.backends.cudnn.benchmark = True
        direction = request["conv"]
        load = {name: torch.from_numpy(np.load("%s/%s.npy" % (request["folder"], name))).cuda() for name in ARRAYS}
        reference = torch.from_numpy(np.load("%s/%s.npy" % (request["folder"], direction))).cuda()
        errors, workspaces = [], []
        for layout in LAYOUTS:
            arrays = [load[name].contiguous(memory_format=LAYOUTS[layout]) for name in ARRAYS]
            for precision in ("float32", "tf32"):
                call = with_tf32(precision == "tf32", conv_call(direction, *arrays, request))
                # The first call tries the algorithms; its workspace is that of the largest.
                call()
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                out = call()
                torch.cuda.synchronize()
                workspaces.append((torch.cuda.max_memory_allocated() - before - 4 * out.numel()) / 2**20)
                errors.append(relative_error(out, reference))
                del out
                calls = int(REPEAT_MS / max(self.elapsed(call, 3), 0.01))
                self.repeats["%s %s" % (layout, precision)] = call, min(max(calls, 1), MOST_CALLS)
        return {"layouts": list(self.repeats), "rel_err": errors, "workspace_mb": workspaces}

    def sgemm(self, request):
        """TFLOP/s of a float32 matrix product."""
        torch.backends.cuda.matmul.allow_tf32 = False
        size = request["sgemm"]
        a, b = (torch.randn(size, size, device="cuda") for _ in range(2))
        torch.matmul(a, b)
        times = sorted(elapsed_cuda(lambda: torch.matmul(a, b), 5) for _ in range(5))
        return {"tflops": 2 * size**3 / times[2] / 1e9}

    def free(self):
        self.repeats = {}
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def answer(self, request):
        if "repeat" in request:
            return {"ms": self.elapsed(*self.repeats[request["repeat"]])}
        if "device" in request:
            return self.start(request)
        self.free()
        if "sgemm" in request:
            return self.sgemm(request)
        if "conv" in request:
            return self.build_conv(request)
        return self.build(request) if "op" in request else {}


def main():
    peer = Peer()
    with torch.no_grad():
        for line in sys.stdin:
            print(json.dumps(peer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
