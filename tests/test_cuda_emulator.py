"""The emulated CUDA device: it computes what a card computes, and it finds faults that a card lets pass.

Each case is one kernel, launched in a process of its own. None needs a GPU; where there is one they run the same.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

import lenet
import mnist
import numpy as np
import theano
import theano.tensor as T

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_emulator")
EXAMPLE = os.path.join(os.path.dirname(FOLDER), os.pardir, "examples", "lenet.py")

try:
    import pygpu  # noqa: F401
except ImportError as error:
    NO_PYGPU = str(error)
else:
    NO_PYGPU = ""


def emulated(mode, *command, **environment):
    """Run a command on the emulated device, in one of its modes ('' for none)."""
    if NO_PYGPU:
        raise unittest.SkipTest("needs pygpu: " + NO_PYGPU)
    return run_here([os.path.join(FOLDER, "run")] + ([mode] if mode else []) + list(command), **environment)


def run_here(command, **environment):
    """Run a command without what these tests' own process was told of Theano and of a device."""
    left_out = ("THEANO_FLAGS", "THEANO_GPU_IS_ALREADY_ACTIVE", "LD_PRELOAD", "CUDA_EMULATOR_CHECK")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(kept, **environment),
    )


def launch(source, arrays, block, mode="", environment=None, **request):
    """Launch a kernel named f: its arrays afterwards or its error, and what was written to standard error."""
    # pygpu gives a kernel the start of an array's allocation.
    request = dict({"source": source, "name": "f", "arrays": arrays, "block": block, "grid": [1]}, **request)
    run = emulated(mode, sys.executable, os.path.join(FOLDER, "launch.py"), json.dumps(request), **environment or {})
    if run.returncode != 0:
        return {"status": run.returncode}, run.stderr
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


def kernel(body, arguments="float *a"):
    return '#line 1 "fault.cu"\nextern "C" __global__ void f(%s) {\n%s\n}\n' % (arguments, body)


def assert_words(text, *words):
    for word in words:
        assert word in text, "%r is not in: %s" % (word, text)


# ---- planted faults


def test_read_out_of_bounds():
    source = kernel("  a[threadIdx.x] = a[threadIdx.x + 1];")
    answer, said = launch(source, [[1, 2, 3, 4]], [4], "address")
    assert answer.get("status"), answer
    assert_words(said, "heap-buffer-overflow", "READ of size 4", "fault.cu:2")
    assert_words(said, "emulated CUDA: in kernel f, block (0, 0, 0), thread (3, 0, 0)")
    # Within bounds it is silent.
    answer, said = launch(kernel("  a[threadIdx.x] = a[3 - threadIdx.x] + 1;"), [[1, 1, 1, 1]], [4], "address")
    assert answer == {"arrays": [[2, 2, 3, 3]]}, (answer, said)


def test_write_out_of_bounds():
    source = kernel("  a[threadIdx.x * 2] = 1;")
    answer, said = launch(source, [[1, 2, 3, 4]], [3], "address")
    assert answer.get("status"), answer
    assert_words(said, "heap-buffer-overflow", "WRITE of size 4", "fault.cu:2", "thread (2, 0, 0)")
    # Without the sanitizer, the guards beside each allocation tell.
    answer, _ = launch(source, [[1, 2, 3, 4]], [3])
    assert_words(answer["error"], "kernel f wrote past the end of an allocation of 16 bytes")
    answer, _ = launch(kernel("  a[(int)threadIdx.x - 1] = 1;"), [[1, 2]], [1])
    assert_words(answer["error"], "kernel f wrote before the start of an allocation of 8 bytes")


def test_shared_memory_out_of_bounds():
    source = kernel("  __shared__ float s[4];\n  s[threadIdx.x] = 0;\n  a[0] = s[0];")
    answer, said = launch(source, [[1]], [5], "address")
    assert answer.get("status"), answer
    assert_words(said, "use-after-poison", "WRITE of size 4", "fault.cu:3", "thread (4, 0, 0)")


EXCHANGE = """  __shared__ float s[64];
  s[threadIdx.x] = a[threadIdx.x];
  %s
  a[threadIdx.x] = s[63 - threadIdx.x];"""


def test_missing_syncthreads():
    values = list(range(64))
    answer, _ = launch(kernel(EXCHANGE % ""), [values], [64], "race")
    assert_words(answer["error"], "kernel f, block (0, 0, 0), thread (32, 0, 0): a race in shared memory")
    assert_words(answer["error"], "a write at fault.cu:3, and a read of thread number 31 at fault.cu:5")
    for mode in ("", "race", "address"):
        answer, said = launch(kernel(EXCHANGE % "__syncthreads();"), [values], [64], mode)
        assert answer == {"arrays": [values[::-1]]}, (answer, said)


def test_missing_syncthreads_before_the_next_round():
    source = kernel(
        """  __shared__ float s[2];
  for (int i = 0; i < 2; ++i) {
    s[threadIdx.x] = a[threadIdx.x] + i;
    __syncthreads();
    a[threadIdx.x] = s[1 - threadIdx.x];
    %s
  }"""
    )
    answer, _ = launch(source % "", [[1, 2]], [2], "race")
    assert_words(answer["error"], "a race in shared memory", "fault.cu:4", "fault.cu:6")
    answer, _ = launch(source % "__syncthreads();", [[1, 2]], [2], "race")
    assert answer == {"arrays": [[2, 3]]}, answer


def test_warp_barriers_order_a_warp_and_no_more():
    source = kernel(
        """  __shared__ float s[64];
  s[threadIdx.x] = a[threadIdx.x];
  __syncwarp();
  a[threadIdx.x] = s[threadIdx.x ^ %d];"""
    )
    values = list(range(64))
    answer, _ = launch(source % 5, [values], [64], "race")
    assert answer == {"arrays": [[i ^ 5 for i in values]]}, answer
    answer, _ = launch(source % 32, [values], [64], "race")
    assert_words(answer["error"], "a race in shared memory")


def test_divergent_barrier():
    answer, _ = launch(kernel("  if (threadIdx.x != 2)\n    __syncthreads();\n  a[0] = 1;"), [[1]], [4])
    assert_words(answer["error"], "kernel f, block (0, 0, 0): thread (0, 0, 0) waits at the barrier fault.cu:3")
    assert_words(answer["error"], "has ended")
    body = "  if (threadIdx.x == 0)\n    __syncthreads();\n  else\n    __syncthreads();"
    answer, _ = launch(kernel(body), [[1]], [4])
    assert_words(answer["error"], "waits at the barrier fault.cu:3, but thread (3, 0, 0) waits at fault.cu:5")
    answer, _ = launch(kernel("  if (threadIdx.x < 16) __syncwarp();"), [[1]], [32])
    assert_words(answer["error"], "waits at the warp barrier fault.cu:2")


def test_uninitialised_read():
    # An array that nobody wrote, and a shared one.
    answer, _ = launch(
        kernel("  a[threadIdx.x] = 2 * b[threadIdx.x];", "float *a, const float *b"), [[1, 2], [None, 2]], [2]
    )
    assert all(math.isnan(value) for value in answer["arrays"][0]), answer
    answer, _ = launch(kernel("  __shared__ float s[2];\n  a[threadIdx.x] = s[threadIdx.x];"), [[1, 2]], [2])
    assert all(math.isnan(value) for value in answer["arrays"][0]), answer


def test_sizes_of_a_launch():
    source = kernel("  a[0] = 1;")
    for grid, block, words in (
        ([1, 65536], [1, 1], "a grid of 1 x 65536 x 1 blocks; from 1 to 2147483647 x 65535 x 65535 are valid"),
        ([1, 1, 65536], [1, 1, 1], "a grid of 1 x 1 x 65536 blocks"),
        ([1], [1025], "a block of 1025 x 1 x 1 threads; the kernel allows 1024"),
        ([1, 1, 1], [1, 1, 65], "a block of 1 x 1 x 65 threads"),
    ):
        answer, _ = launch(source, [[0]], block, grid=grid)
        assert_words(answer["error"], words)
    bounded = source.replace("void f", "void __launch_bounds__(2 * 32, 2) f")
    answer, _ = launch(bounded, [[0]], [65])
    assert_words(answer["error"], "a block of 65 x 1 x 1 threads; the kernel allows 64")
    answer, _ = launch(bounded, [[0]], [64])
    assert answer == {"arrays": [[1]]}, answer


def test_shared_memory_has_an_end():
    source = kernel(
        "  __shared__ float s[%d];\n  extern __shared__ float rest[];\n  a[0] = (s[0] = 1) + (rest[0] = 2);"
    )
    answer, _ = launch(source % 12000, [[0]], [1], shared=1152)
    assert answer == {"arrays": [[3]]}, answer
    answer, _ = launch(source % 12000, [[0]], [1], shared=1156)
    assert_words(answer["error"], "49156 bytes; a block gets 49152")


def test_wrong_argument_count():
    source = kernel("  a[0] = b[0] + c[0];", "float *a, float *b, float *c")
    for mode in ("", "address"):
        answer, _ = launch(source, [[1], [2], [3]], [1], mode, declared=2)
        assert_words(answer["error"], "kernel f takes 3 arguments; it was given 2")
    answer, _ = launch(source, [[1], [2], [3]], [1])
    assert answer == {"arrays": [[5], [2], [3]]}, answer


ASYNC = """  __shared__ float s[4];
  emulator_copy_async(&s[threadIdx.x], &a[threadIdx.x], 4, threadIdx.x != 1);
  emulator_commit_copies();
  %s
  a[threadIdx.x] = s[%s];"""


def test_asynchronous_copies_arrive_at_the_wait():
    values = [1, 2, 3, 4]
    answer, _ = launch(
        kernel(ASYNC % ("emulator_wait_for_copies(0); __syncthreads();", "3 - threadIdx.x")), [values], [4], "race"
    )
    assert answer == {"arrays": [[4, 3, 0, 1]]}, answer
    # One batch may still be under way: this one.
    answer, _ = launch(
        kernel(ASYNC % ("emulator_wait_for_copies(1); __syncthreads();", "3 - threadIdx.x")), [values], [4]
    )
    assert all(math.isnan(value) for value in answer["arrays"][0]), answer
    answer, _ = launch(kernel(ASYNC % ("emulator_wait_for_copies(1);", "threadIdx.x")), [values], [4], "race")
    assert_words(answer["error"], "an asynchronous copy that nobody waited for")
    answer, _ = launch(kernel(ASYNC % ("emulator_wait_for_copies(0);", "3 - threadIdx.x")), [values], [4], "race")
    assert_words(answer["error"], "a race in shared memory")


def test_leaks_are_reported():
    source = kernel("  a[0] = 1;")
    report = {"CUDA_EMULATOR_REPORT_LEAKS": "1"}
    answer, said = launch(source, [[0] * 100], [1], environment=report, keep=True)
    assert_words(said, "1 allocations, 400 bytes of device memory, were never freed")
    answer, said = launch(source, [[0] * 100], [1], environment=report)
    assert "never freed" not in said, said


def test_a_trap_ends_the_kernel():
    answer, _ = launch(kernel("  if (blockIdx.x == 3) __trap();\n  a[blockIdx.x] = 1;"), [[0] * 5], [1], grid=[5])
    assert_words(answer["error"], "kernel f, block (3, 0, 0), thread (0, 0, 0): a trap at fault.cu:2")


def test_compile_errors_come_back():
    answer, _ = launch(kernel("  a[0] = nothing_of_this_name;"), [[0]], [1])
    assert_words(answer["error"], "fault.cu:2", "nothing_of_this_name")


# ---- what a card computes


def test_indices_of_a_launch():
    source = kernel(
        """  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  a[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 100 + thread;"""
    )
    answer, _ = launch(source, [[0] * (24 * 30)], [2, 3, 5], grid=[2, 3, 4])
    assert answer["arrays"] == [[block * 100 + thread for block in range(24) for thread in range(30)]], answer


def test_shuffles_votes_and_atomics():
    source = kernel(
        """  const unsigned all = 0xffffffffu;
  const int i = threadIdx.x;
  a[i] = __shfl_sync(all, a[i], 5);
  b[i] = __shfl_down_sync(all, b[i], 3, 8);
  c[i] = __shfl_xor_sync(all, c[i], 16) + __shfl_up_sync(all, (double)i, 1);
  d[i] = __popc(__ballot_sync(all, i % 3 == 0)) + 100 * __any_sync(all, i == 40) + 1000 * __all_sync(all, i < 32);
  atomicAdd(&e[0], (float)i);
  atomicMax((int *)&e[1], i);""",
        "float *a, float *b, float *c, float *d, float *e",
    )
    values = list(range(64))
    answer, said = launch(source, [values] * 4 + [[0, 0]], [64])
    a, b, c, d, e = answer["arrays"]
    assert a == [5] * 32 + [37] * 32
    assert b == [i + 3 if i % 8 < 5 else i for i in values]
    assert c == [(i ^ 16) + (i - 1 if i % 32 else i) for i in values]
    assert d == [11 + 1000] * 32 + [11 - 0 + 100] * 32 or d == [11 + 1000] * 32 + [10 + 100] * 32, d
    assert e[0] == sum(values) and np.array(e[1:], "float32").view("int32")[0] == 63, e


def test_half_precision_conversions():
    source = '#include "cluda.h"\n' + kernel(
        "  const ga_half half = ga_float2half(a[threadIdx.x]);\n  a[threadIdx.x] = ga_half2float(half);\n"
        "  b[threadIdx.x] = (float)half.data;",
        "float *a, float *b",
    )
    rng = np.random.RandomState()
    values = np.concatenate(
        [
            rng.standard_normal(200) * 10.0 ** rng.uniform(-9, 6, 200),
            [0.0, -0.0, 65504, 65519.9, 65520, 1e9, -1e9, 2.0**-24, 2.0**-25, 2.0**-14, 1 + 2.0**-11, 1 + 3 * 2.0**-11],
        ]
    ).astype("float32")
    answer, said = launch(source, [values.tolist(), [0] * len(values)], [len(values)])
    with np.errstate(over="ignore"):
        halves = values.astype("float16")
    assert answer["arrays"][0] == halves.astype("float32").tolist(), said
    assert answer["arrays"][1] == halves.view("uint16").astype("float32").tolist()


def test_compute_capability():
    source = kernel("#if __CUDA_ARCH__ >= 800\n  a[0] = 8;\n#else\n  a[0] = 7;\n#endif")
    for capability, wanted in (("7.5", 7), ("8.0", 8), ("9.0", 8)):
        answer, _ = launch(source, [[0]], [1], environment={"CUDA_EMULATOR_COMPUTE_CAPABILITY": capability})
        assert answer == {"arrays": [[wanted]]}, (capability, answer)


def test_blocks_on_several_host_threads():
    # Each has its own shared memory.
    source = kernel(
        "  __shared__ float s;\n  if (threadIdx.x == 0) s = blockIdx.x;\n  __syncthreads();\n"
        "  a[blockIdx.x * blockDim.x + threadIdx.x] = s;"
    )
    for threads in ("1", "4", "64"):
        answer, _ = launch(source, [[0] * 512], [8], grid=[64], environment={"CUDA_EMULATOR_THREADS": threads})
        assert answer["arrays"] == [[i // 8 for i in range(512)]], answer


# ---- the whole stack


def test_lenet_trains_on_it():
    """The example on the emulated GPU reaches the parameters, and so the loss, that it reaches on the CPU."""
    options = ["--epochs", "1", "--limit", "160", "--batch-size", "32", "--no-pictures"]
    digits, losses, parameters = mnist.load().train, [], []
    with tempfile.TemporaryDirectory() as folder:
        for device in ("cuda", "cpu"):
            output = os.path.join(folder, device)
            command = [sys.executable, EXAMPLE, "--device", device, "--output", output] + options
            # Compiling Theano's modules would take longer than training.
            flags = {"THEANO_FLAGS": "gcc.cxxflags=-O0 -g0,cxx=" + theano.config.cxx}
            run = emulated("", *command, **flags) if device == "cuda" else run_here(command, **flags)
            assert run.returncode == 0, (run.returncode, run.stdout, run.stderr)
            assert_words(run.stdout, "Device: " + device, "Optimization complete.")
            assert ("Emulated CUDA device" in run.stderr) == (device == "cuda"), run.stderr
            with np.load(os.path.join(output, "parameters.npz")) as saved:
                parameters.append({name: saved[name] for name in saved.files})
            net = lenet.LeNet(parameters[-1], "convnet_ops")
            cost = T.nnet.categorical_crossentropy(net.probabilities, T.ivector("labels")).mean()
            loss = theano.function(
                [net.images] + [v for v in theano.gof.graph.inputs([cost]) if v.name == "labels"], cost
            )
            losses.append(float(loss(digits.images[:160], digits.labels[:160])))
    first, second = parameters
    for name in first:
        assert np.abs(first[name] - second[name]).max() < 1e-4 * np.abs(second[name]).max(), name
    assert abs(losses[0] - losses[1]) < 1e-5 * losses[1] and losses[0] < 2.2, losses
