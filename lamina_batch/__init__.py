"""lamina-batch: the declarative batch runner for Lamina. See README.md; for programs, docs/python.md.

What is listed here is the Python API. It is loaded when it is first asked for, so that the command line starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_batch._version import __version__

if TYPE_CHECKING:
    from lamina_batch.api import (
        LoadedPipeline,
        Plan,
        load_pipeline,
        plan,
        plan_async,
        read_results,
        run,
        run_async,
    )
    from lamina_batch.errors import LaminaBatchError
    from lamina_batch.results.summary import Summary

__all__ = [
    "LaminaBatchError",
    "LoadedPipeline",
    "Plan",
    "Summary",
    "__version__",
    "load_pipeline",
    "plan",
    "plan_async",
    "read_results",
    "run",
    "run_async",
]

_ELSEWHERE = {"LaminaBatchError": "lamina_batch.errors", "Summary": "lamina_batch.results.summary"}


if not TYPE_CHECKING:  # to a type checker this would be every attribute there could be

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_ELSEWHERE.get(name, "lamina_batch.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
