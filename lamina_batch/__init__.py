"""lamina-batch: the declarative batch runner for Lamina. See README.md; the path of one row is in batch.py."""

__version__ = "0.1.0"
