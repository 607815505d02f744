"""Commands as forks of one warm process: each is a process of its own, and the modules are loaded once for all.

Loading them is most of what a command costs. What a fork does not show (how it starts, which modules it loads, what
a signal does to it) is tested with processes that are started as a user's are: `Cli.command` and `Cli.start`, and every
end-to-end test once more on the wheel (tests/wheel.sh).

Run as a program, this file is the warm process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# -- in the warm process -----------------------------------------------------------------------------------------------


def main_of(_command: Mapping[str, Any]) -> None:
    """`lamina-batch`, with what stands in `sys.argv`."""
    importlib.import_module("lamina_batch.cli").main()


def serve_forks(main: Callable[[Mapping[str, Any]], None] = main_of) -> None:
    """Read a command a line, run each by `main` in a fork of this process, and say how each ended."""
    package = importlib.import_module("lamina_batch")
    for module in pkgutil.walk_packages(package.__path__, "lamina_batch."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # What a child only reads it need not copy.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            _attend(json.loads(line), main)


def _attend(command: Mapping[str, Any], main: Callable[[Mapping[str, Any]], None]) -> None:
    """Wait for the command in a process of its own, so that many may run at once."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        _obey(command, main)
    _tell(number=command["number"], process=child)
    _, status = os.waitpid(child, 0)
    _tell(number=command["number"], code=os.waitstatus_to_exitcode(status))
    os._exit(0)


def _tell(**facts: int) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _obey(command: Mapping[str, Any], main: Callable[[Mapping[str, Any]], None]) -> None:
    code: Any = 1
    try:
        os.chdir(command["folder"])
        for descriptor, file in enumerate((os.devnull, command["out"], command["err"])):
            os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), descriptor)
        os.environ.clear()
        os.environ.update(command["env"])
        time.tzset()
        tempfile.tempdir = None
        sys.argv = ["lamina-batch", *command["args"]]
        main(command)
    except SystemExit as end:
        code = end.code or 0
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve_forks()
    sys.exit()

# -- in the tests ------------------------------------------------------------------------------------------------------


class Warm:
    """Runs commands as forks of a process that it starts: of a file that says `serve_forks()`."""

    def __init__(self, program: str = __file__) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        env["PYTHONPATH"] = str(Path(__file__).parent)
        process = subprocess.Popen([sys.executable, program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands, self._ends = process.stdin, process.stdout
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[int]] = {}
        self._processes: dict[int, int] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self._commands.close()
        self._process.wait()
        # It ends with the last of the forks.
        self._reader.join()
        self._ends.close()

    def _read(self) -> None:
        for line in self._ends:
            told = json.loads(line)
            if "process" in told:
                self._processes[told["number"]] = told["process"]
            else:
                del self._processes[told["number"]]
                self._waiting.pop(told["number"]).set_result(told["code"])

    def run(
        self, *args: str | Path, folder: Path, env: Mapping[str, str], timeout: float, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """`lamina-batch args` in `folder`, with nothing in the environment but `env`; `more` is for `main`."""
        words = [str(arg) for arg in args]
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            number = next(self._numbers)
            future = self._waiting[number] = Future()
            command = {**more, "number": number, "folder": str(folder), "args": words, "env": dict(env)}
            with self._lock:
                line = json.dumps({**command, "out": out.name, "err": err.name})
                self._commands.write(line.encode() + b"\n")
                self._commands.flush()
            try:
                code = future.result(timeout)
            except TimeoutError:
                os.kill(self._processes[number], signal.SIGKILL)
                raise
            return subprocess.CompletedProcess(words, code, out.read(), err.read())


_warm: list[Warm] = []


def warm() -> Warm:
    """The one of this process."""
    if not _warm:
        _warm.append(Warm())
        atexit.register(_warm[0].close)
    return _warm[0]
