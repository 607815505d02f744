"""A service that answers byte by byte what a test says, and what may never be on a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from click.testing import CliRunner
from process import APP

from lamina_batch.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from process import Cli

#: Everything a terminal might obey: clearing, titles, links, the clipboard, 8-bit escapes, bidi, line ends, NUL.
EVIL = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;aGk=\x07"
    "\x9b31m\x07\x08\x7f\u202egnp\u2066\u200f\u2028\u2029\x85\x00\rreturned\nerror: forged"
)
#: How the line begins that EVIL would have a person take for one of ours.
FORGED = "error: forged"
#: What may be in an output that is no terminal's to obey: printable characters and our own line ends.
_OBEYED = re.compile(r"[^\n\x20-\x7e\xa0-\U0010ffff]|[\x80-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

#: an answer: everything that goes over the wire, in pieces that may never end
Answer = Iterable[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    head: bytes
    body: bytes

    @property
    def kind(self) -> str:
        """What it is for: list, app, workflow, start, read, or other."""
        if self.method == "POST":
            return "start"
        steps = self.path.partition("?")[0].strip("/").split("/")
        match steps:
            case ["v1", "apps"]:
                return "list"
            case ["v1", "apps", _]:
                return "app"
            case ["v1", "apps", _, "workflow"]:
                return "workflow"
            case ["v1", "executions", *_]:
                return "read"
            case _:
                return "other"

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.strip().lower() == name.lower():
                return value.strip()
        return None


@dataclass(slots=True)
class Hostile:
    """What has been asked of the service so far."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    #: bytes that went out
    sent: int = 0

    def count(self, kind: str) -> int:
        return sum(asked.kind == kind for asked in self.asked)


def says(status: int | str, body: object = b"", *headers: str) -> Answer:
    """A whole answer; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X" if isinstance(status, int) else f"HTTP/1.1 {status}"]
    head += [f"Content-Length: {len(content)}", "Content-Type: application/json", "Connection: close", *headers]
    return ["\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + content]


def app(**changes: object) -> dict[str, object]:
    """The body of a well-made app; `changes` replace what stands in it."""
    return {
        "data": {
            "appId": APP,
            "name": "Catalog",
            "description": None,
            "parameters": [
                {"name": "Front", "type": "url", "required": False, "accept": ["image"]},
                {"name": "Back", "type": "url", "required": False, "accept": ["image"]},
                {"name": "Prompt", "type": "text", "required": False},
                {"name": "Model Gender", "type": "options", "options": ["Female", "Male"], "default": "Female"},
            ],
        }
        | changes
    }


def execution(number: int = 1, **changes: object) -> dict[str, object]:
    """The body of a completed execution."""
    return {
        "data": {
            "executionId": f"e{number}",
            "workflowId": APP,
            "status": "completed",
            "outputs": [
                {
                    "id": "n1",
                    "label": "Front View",
                    "type": "image",
                    "value": "https://files.example.com/1.png",
                    "status": "completed",
                    "error": None,
                }
            ],
            "errorMessage": None,
        }
        | changes
    }


def usual(asked: Asked, number: int) -> Answer:
    """What a friendly service says. `number` counts the POSTs, so that each gets an id of its own."""
    match asked.kind:
        case "app":
            return says(200, app())
        case "workflow":
            return says(200, {"data": {"appId": APP, "name": "Catalog", "nodes": [], "edges": []}})
        case "list":
            return says(200, {"data": [{"appId": APP, "name": "Catalog", "isPublic": True}]})
        case "start":
            return says(202, {"data": {"executionId": f"e{number}", "status": "queued"}})
        case "read":
            return says(200, execution(int(asked.path.rpartition("/e")[2])))
        case _:
            return says(404, {"error": "Not found"})


@contextmanager
def hostile(*, answer: Callable[[Asked], Answer] | None = None, **kinds: Answer) -> Iterator[Hostile]:
    """A service on loopback: `kinds` are answered as the test says, or all by `answer`; the rest as usual."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = 60

        def handle(self) -> None:
            told.connections += 1
            try:
                self._answer()
            except (OSError, TimeoutError):
                return  # the other side has heard enough

        def _answer(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            method, path, _ = head.decode("latin-1").split(" ", 2)
            asked = Asked(method=method, path=path, head=head, body=b"")
            length = int(asked.header("content-length") or 0)
            asked = Asked(method=method, path=path, head=head, body=self.rfile.read(length))
            with lock:
                told.asked.append(asked)
                number = told.count("start")
            pieces = answer(asked) if answer is not None else kinds.get(asked.kind)
            for piece in usual(asked, number) if pieces is None else pieces:
                self.wfile.write(piece)
                told.sent += len(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        block_on_close = False

    lock = threading.Lock()
    with Server(("127.0.0.1", 0), Handler) as server:
        told = Hostile(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What a command wrote, byte for byte."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return (self.out + b"\n" + self.err).decode()

    def harm(self) -> list[str]:
        """The characters in it that a terminal might obey, and the lines that pass for ours."""
        obeyed = {f"U+{ord(found):04X}" for found in _OBEYED.findall(self.text)}
        return sorted(obeyed) + [line for line in self.text.split("\n") if line.startswith(FORGED)]


def inside(cli: Cli, *args: str | Path) -> Raw:
    """Run a command that ends before it asks the network, in this process: the same code, ten times as quick."""
    unset = dict.fromkeys(("LAMINA_API_KEY", "LAMINA_BASE_URL"))
    with contextlib.chdir(cli.folder):
        done = CliRunner().invoke(main, [str(arg) for arg in args], env={**unset, **cli.env})
    return Raw(code=done.exit_code, out=done.stdout_bytes, err=done.stderr_bytes)


def raw(cli: Cli, url: str, *args: str | Path, **env: str) -> Raw:
    """Run a command against `url`, and keep its output as it came: no line end is translated."""
    done = cli.raw(*args, env={"LAMINA_BASE_URL": url, **env})
    return Raw(code=done.returncode, out=done.stdout, err=done.stderr)
