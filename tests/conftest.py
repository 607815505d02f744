"""Fixtures: a sandbox process, a command line that knows it, a folder with a pipeline and rows."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from loops import FairLoop
from process import PATIENCE, PIPELINE, Cli, Service, environment, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

if importlib.util.find_spec("hypothesis") is not None:  # the wheel is tested without it
    import hypothesis
    import thorough  # noqa: F401  # it registers the profiles

    hypothesis.settings.load_profile("few")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each worker begin with its part of the long tests: at the end nobody waits for one that began late."""
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    # xdist deals them out in as many pieces, one after the other.
    pieces = [(long[n::workers], len(others) * n // workers, len(others) * (n + 1) // workers) for n in range(workers)]
    items[:] = [item for first, begin, end in pieces for item in (*first, *others[begin:end])]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests, each on a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a sandbox process: `serve("--limit", "5")`."""
    running: list[subprocess.Popen[str]] = []

    def start(*args: str, data: Path | None = None) -> Service:
        data = data or tmp_path / f"service-{len(running)}"
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina_batch", "sandbox", "--port", "0", "--data", str(data), *args],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "http://" in line, line + process.stderr.read()
        return Service(url="http://" + line.partition("http://")[2].split()[0].rstrip("/"), data=data, process=process)

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module."""
    from browser_support import chromium  # noqa: PLC0415  # only they need it

    with chromium() as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(folder=tmp_path, env=environment(LAMINA_API_KEY="lma_test_key_of_nobody"))


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    """A quick service with a limit that never matters."""
    return serve("--limit", "100000", "--window", "3", "--speed", "100")


@pytest.fixture
def at(cli: Cli, service: Service) -> Cli:
    """The command line, told of the quick service."""
    return Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a pipeline and three rows."""
    (tmp_path / "p.yaml").write_text(PIPELINE, encoding="utf-8")
    write_rows(tmp_path, [row(1), row(2), row(3)])
    return tmp_path
