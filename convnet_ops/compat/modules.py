"""Modules without files: made here, put into sys.modules, and taken out again."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

ORIGIN = "convnet_ops.compat"

# Modules that were there before, by name.
_replaced = {}


def install(contents):
    """Put modules into sys.modules, each as an attribute of its parent too, as an import does.

    Parameters
    ----------
    contents : dict
        {full name: {name in the module: value}}, with every parent that is not a module of its own. '__doc__' is the
        module's docstring; '__getattr__' is called for names that are not there.
    """
    for name in sorted(contents):  # parents first
        if is_ours(sys.modules.get(name)):
            continue
        module = ModuleType(name)
        # Every one is a package: then an import of a submodule that is not there says "No module named ...".
        module.__spec__ = ModuleSpec(name, None, origin=ORIGIN, is_package=True)
        module.__path__ = []
        module.__package__ = name
        vars(module).update(contents[name])
        if name in sys.modules:
            _replaced[name] = sys.modules[name]
        _put(name, module)


def uninstall(names):
    """Take modules that `install` put there out of sys.modules and out of their parents; put back what was there."""
    for name in sorted(names, reverse=True):
        if not is_ours(sys.modules.get(name)):
            continue
        module = sys.modules.pop(name)
        parent, _, last = name.rpartition(".")
        if getattr(sys.modules.get(parent), last, None) is module:
            delattr(sys.modules[parent], last)
        if name in _replaced:
            _put(name, _replaced.pop(name))


def _put(name, module):
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), last, module)
    sys.modules[name] = module


def is_ours(module):
    """Whether `install` made this module; False for None."""
    return getattr(getattr(module, "__spec__", None), "origin", None) == ORIGIN
