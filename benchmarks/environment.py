"""What a result must say of the machine and the software it was measured with."""

import contextlib
import datetime
import os
import subprocess
import sys


@contextlib.contextmanager
def pycuda_on_theanos_context():
    """PyCUDA on the context that Theano opened, which is the device's primary one."""
    from pycuda import driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    try:
        yield
    finally:
        context.pop()


def describe(device="cuda"):
    """{"device", "driver", "date", "commit", "versions"} of this run; on the CPU "threads" in place of "driver"."""
    import convnet_ops
    import numpy
    import theano

    description = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": {
            "convnet_ops": convnet_ops.__version__,
            "theano": theano.__version__,
            "numpy": numpy.__version__,
            "python": "%d.%d.%d" % sys.version_info[:3],
        },
    }
    if device == "cpu":
        description.update(device=processor(), threads=threads())
    else:
        from pycuda import driver
        from theano.gpuarray.type import get_context

        description.update(device=get_context(None).devname.strip(), driver=driver_version())
        description["versions"]["cuda"] = "%d.%d" % divmod(driver.get_driver_version() // 10, 100)
    return description


def threads():
    """How many threads OpenMP uses here."""
    return int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0] or len(os.sched_getaffinity(0)))


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else "unknown"


def commit():
    """The commit of the checkout; CONVNET_OPS_COMMIT says it where there is no git."""
    if "CONVNET_OPS_COMMIT" in os.environ:
        return os.environ["CONVNET_OPS_COMMIT"]
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return answer.stdout.decode().strip() or "unknown"


def driver_version():
    with open("/proc/driver/nvidia/version", encoding="utf-8") as version:
        words = version.readline().split()
    return next(word for word in words if word[0].isdigit() and "." in word)
