"""Clocks, and the comparison of results, that the benchmarks share."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Threads that slept wake up slowly.
WARM_SECONDS = 0.03


def relative_error(out, reference):
    """||out - reference|| / ||reference|| in float64, by threads: large layers have hundreds of megabytes."""

    def squares(i):
        exact = np.asarray(reference[i], dtype="float64")
        difference = out[i] - exact
        return np.vdot(difference, difference), np.vdot(exact, exact)

    assert out.shape == reference.shape, (out.shape, reference.shape)
    with ThreadPoolExecutor() as pool:
        of_difference, of_reference = np.sum(list(pool.map(squares, range(len(out)))), axis=0)
    return float(np.sqrt(of_difference / of_reference))


def time_functions(functions, repeats):
    """{key: median milliseconds of one call on the GPU}, interleaved."""
    return interleave({key: repeat(function, elapsed_cuda) for key, function in functions.items()}, repeats)


def interleave(timers, repeats):
    """{key: median milliseconds} of `repeats` rounds, in each of which every timer is called once."""
    times = {key: [] for key in timers}
    for _ in range(repeats):
        for key, timer in timers.items():
            times[key].append(timer())
    return {key: float(np.median(values)) for key, values in times.items()}


def repeat(function, elapsed, least_ms=20.0, most_calls=None):
    """A timer of one repeat of a Theano function: as many calls as swamp the clock, `most_calls` at most. Warms up."""
    function.fn(n_calls=3)
    calls = max(1, int(least_ms / max(elapsed(function, 3), 0.001)))
    return functools.partial(elapsed, function, calls if most_calls is None else min(calls, most_calls))


def elapsed_cuda(function, calls):
    """Milliseconds of one of `calls` calls, of the host or of the GPU, whichever takes longer.

    The events are on the default stream, which waits for gpuarray's.
    """
    from pycuda import driver

    function.fn()  # finds the caches as others left them
    begin, end = driver.Event(), driver.Event()
    begin.record()
    function.fn(n_calls=calls)
    end.record()
    end.synchronize()
    return begin.time_till(end) / calls


# So few calls that the driver's queue holds them while the GPU still waits; torch_peer.py has as many.
QUEUED_CALLS = 200
WAIT_NS = 12 * 10**6
WAIT = """
extern "C" __global__ void wait(unsigned long long ns) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  while (now - begin < ns);
}
"""


@functools.lru_cache(maxsize=None)
def wait_kernel():
    from pygpu.gpuarray import GpuKernel
    from theano.gpuarray.type import get_context

    return GpuKernel(WAIT, "wait", [np.uint64], context=get_context(None))


class QueuedTimer(object):
    """Milliseconds of the GPU for one of `calls` calls that waited in its queue when the clock started.

    As torch_peer.py times PyTorch. `host_ms` gets the host's time for a call, one for each repeat: a program that gives
    the GPU nothing else to do takes the longer of the two.
    """

    def __init__(self):
        self.host_ms = []

    def __call__(self, function, calls):
        from pycuda import driver

        function.fn()
        begin, end = driver.Event(), driver.Event()
        wait_kernel()(WAIT_NS, gs=1, ls=1)
        begin.record()
        host = time.perf_counter()
        function.fn(n_calls=calls)
        self.host_ms.append(1e3 * (time.perf_counter() - host) / calls)
        end.record()
        end.synchronize()
        return begin.time_till(end) / calls


def elapsed_cpu(function, calls):
    """Milliseconds of one of `calls` calls, after so many that all threads are awake and all pages mapped."""
    warm = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm:
        function.fn()
    begin = time.perf_counter()
    function.fn(n_calls=calls)
    return 1e3 * (time.perf_counter() - begin) / calls
