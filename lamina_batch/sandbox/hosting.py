"""Running a sandbox: inside another program, or as a program of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lamina_batch.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lamina_batch.sandbox.options import SandboxOptions

_ADDRESS = "address.json"


@contextlib.contextmanager
def embedded(options: SandboxOptions) -> Iterator[str]:
    """A sandbox in a thread of its own; gives its base URL, and stops it in the end.

    With a data folder it listens where it did last time, if that port is free, so that older output URLs still open.
    Raises OSError if it cannot start.
    """
    sandbox = Sandbox(options)
    started: Future[tuple[str, asyncio.AbstractEventLoop]] = Future()
    told = asyncio.Event()

    async def serve_until_told() -> None:
        try:
            base_url = await _start_on_last_port(sandbox, options.data)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is raised where someone waits for it
            started.set_exception(error)
            return
        started.set_result((base_url, asyncio.get_running_loop()))
        await told.wait()
        await sandbox.stop()

    # A daemon: a program that dies without a word is not kept alive by it.
    thread = threading.Thread(target=asyncio.run, args=(serve_until_told(),), name="sandbox", daemon=True)
    thread.start()
    base_url, loop = started.result()
    try:
        yield base_url
    finally:
        loop.call_soon_threadsafe(told.set)
        thread.join()


def serve(options: SandboxOptions, *, host: str = "127.0.0.1", port: int = 0, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the base URL once requests are answered.

    Raises OSError if the port is taken or the data folder cannot be used. Call it from the main thread.
    """

    async def serve_until_signal() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        sandbox = Sandbox(options)
        announce(await sandbox.start(host, port))
        await told.wait()
        await sandbox.stop()

    asyncio.run(serve_until_signal())


def last_port(data: Path) -> int | None:
    """The port that a sandbox with this data folder was embedded on last; None if it is not known."""
    try:
        return int(json.loads((data / _ADDRESS).read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _start_on_last_port(sandbox: Sandbox, data: Path | None) -> str:
    if data is None:
        return await sandbox.start()
    base_url: str | None = None
    port = last_port(data)
    if port is not None:
        with contextlib.suppress(OSError):
            base_url = await sandbox.start(port=port)
    if base_url is None:
        base_url = await sandbox.start()
    (data / _ADDRESS).write_text(json.dumps({"port": int(base_url.rpartition(":")[2])}))
    return base_url
