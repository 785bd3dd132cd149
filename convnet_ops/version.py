"""The version, read by setup.py too: it imports nothing."""

__version__ = "0.1.0"
