"""Exit status 0 if the package in the folder given, outside this Python's path, imports with it."""

import importlib
import os
import sys

folder = sys.argv[1]
sys.path.append(os.path.dirname(folder))
try:
    importlib.import_module(os.path.basename(folder))
except ImportError as error:
    sys.exit("%s is left out: %s" % (folder, error))
