"""PyTorch's process (torch_peer.py), as the benchmarks talk to it."""

import json
import os
import shlex
import subprocess

from benchmarks import environment


class TorchPeer(object):
    """The process of torch_peer.py."""

    def __init__(self, command, device, environ):
        environ = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        # What it frees it keeps for its next call, as Theano's functions keep their outputs.
        environ.update(MALLOC_MMAP_THRESHOLD_=str(1 << 32), MALLOC_TRIM_THRESHOLD_=str(1 << 34))
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_peer.py")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            shlex.split(command) + [script], stdin=pipe, stdout=pipe, env=environ, encoding="utf-8"
        )
        self.versions = self.ask(device=device, threads=environment.threads())["versions"]

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError("PyTorch's process failed at %s" % request) from error

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def timers(self, request):
        """{("pytorch", layout): function that times one repeat}."""
        layouts = self.ask(**request)["layouts"]
        return {("pytorch", layout): lambda layout=layout: self.ask(repeat=layout)["ms"] for layout in layouts}
