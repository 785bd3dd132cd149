"""PyTorch's side of benchmarks.memory_ops, in a process and an interpreter of its own: needs PyTorch and nothing else.

Reads one JSON request a line and answers each with a line:

    {"device": "cuda" or "cpu", "threads": 2}      -> {"versions": {"torch": ...}}; comes first
    {"op": "MaxPool", "direction": "forward" or "gradient", "shape": [C, H, W, N], "window": 3, "stride": 2}
                                                   -> {"layouts": [...]}; makes the operands, in each layout
    {"repeat": one of the layouts}                 -> {"ms": ...}; milliseconds of one call
    {}                                             -> {}; frees the operands
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
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
        return self.build(request) if "op" in request else {}


def main():
    peer = Peer()
    with torch.no_grad():
        for line in sys.stdin:
            print(json.dumps(peer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
