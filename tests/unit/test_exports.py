"""What `lamina_batch` gives to programs is pinned, and costs nothing until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lamina_batch

PUBLIC = [
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


def test_what_is_public_is_pinned() -> None:
    assert lamina_batch.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(lamina_batch))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(lamina_batch, name)
    assert found.__doc__


def test_another_name_is_missed_as_usual() -> None:
    with pytest.raises(AttributeError, match=r"lamina_batch.*'nothing'"):
        lamina_batch.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_nothing_slow() -> None:
    program = "import sys, lamina_batch; print(*{'asyncio', 'click', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
