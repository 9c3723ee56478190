"""Wattkeeper: energy and carbon books for AI clusters."""

__version__ = "0.1.0"
