"""Compares two builds of the command line: see docs/architecture.md."""
