"""What happens before Theano is imported."""

import os
import subprocess
import sys
import tempfile
import unittest

from convnet_ops import theano_setup

SHOW_BLAS = "import convnet_ops, theano, os; print(theano.config.blas.ldflags, os.environ.get('THEANO_FLAGS'))"


def run_python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("THEANO", "OMP_", "GOMP_"))}
    clean["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    clean.update(environment)
    return subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean, check=False
    )


class Versions(unittest.TestCase):
    def test_supported(self):
        theano_setup.check_versions((3, 8), (1, 22))
        theano_setup.check_versions((3, 11), (1, 23))

    def test_unsupported_python(self):
        with self.assertRaisesRegex(
            ImportError, r"^convnet_ops runs on Python 3\.8 to 3\.11, .*; this is Python 3\.12\.$"
        ):
            theano_setup.check_versions((3, 12), (1, 23))

    def test_unsupported_numpy(self):
        for version in ((1, 21), (1, 24), (2, 0)):
            with self.assertRaisesRegex(ImportError, r"^convnet_ops runs on NumPy 1\.22 to 1\.23"):
                theano_setup.check_versions((3, 11), version)


class Blas(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.theanorc = os.path.join(folder.name, "theanorc")

    def write(self, text):
        with open(self.theanorc, "w", encoding="utf-8") as target:
            target.write(text)

    def test_configured_in_flags(self):
        self.assertTrue(theano_setup.blas_is_configured({"THEANO_FLAGS": "device=cpu, blas.ldflags=", "THEANORC": ""}))
        self.assertFalse(theano_setup.blas_is_configured({"THEANO_FLAGS": "device=cpu", "THEANORC": ""}))

    def test_configured_in_theanorc(self):
        self.write("[blas]\nldflags = -lblis\n")
        self.assertTrue(theano_setup.blas_is_configured({"THEANORC": self.theanorc}))
        self.write("[global]\ndevice = cpu\n")
        self.assertFalse(theano_setup.blas_is_configured({"THEANORC": self.theanorc}))

    def test_first_import_with_nothing_configured(self):
        answer = run_python(SHOW_BLAS, THEANORC=self.theanorc)
        self.assertEqual(answer.returncode, 0, answer.stderr.decode())
        found = "-lopenblas" if theano_setup.default_blas_ldflags() else ""
        # The environment is as it was: children of the process decide for themselves.
        self.assertEqual(answer.stdout.decode().strip(), (found + " None").strip())

    def test_the_users_flags_win(self):
        answer = run_python(SHOW_BLAS, THEANORC=self.theanorc, THEANO_FLAGS="floatX=float32,blas.ldflags=")
        self.assertEqual(answer.stdout.decode().strip(), "floatX=float32,blas.ldflags=", answer.stderr.decode())

    def test_other_flags_are_kept(self):
        code = "import convnet_ops, theano; print(theano.config.floatX)"
        answer = run_python(code, THEANORC=self.theanorc, THEANO_FLAGS="floatX=float32")
        self.assertEqual(answer.stdout.decode().strip(), "float32", answer.stderr.decode())

    def test_the_users_theanorc_wins(self):
        self.write("[blas]\nldflags = -lm\n")
        answer = run_python(SHOW_BLAS, THEANORC=self.theanorc)
        self.assertEqual(answer.stdout.decode().strip(), "-lm None", answer.stderr.decode())

    def test_without_a_compiler(self):
        answer = run_python(
            "from convnet_ops import theano_setup; print([theano_setup.default_blas_ldflags()])", PATH=""
        )
        self.assertEqual(answer.stdout.decode().strip(), "['']", answer.stderr.decode())


class OpenMP(unittest.TestCase):
    def policy(self, **environment):
        code = "import convnet_ops, os; print(os.environ.get('OMP_WAIT_POLICY'))"
        return run_python(code, **environment).stdout.decode().strip()

    def test_idle_threads_sleep_unless_the_user_chose(self):
        self.assertEqual(self.policy(), "PASSIVE")
        self.assertEqual(self.policy(OMP_WAIT_POLICY="ACTIVE"), "ACTIVE")
        self.assertEqual(self.policy(GOMP_SPINCOUNT="100"), "None")
