"""What the tests of the sandbox share: a plain HTTP client that hides nothing, and a way to read the logs."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from process import PATIENCE, json_lines

from lamina_batch.sandbox import SANDBOX_KEY

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from lamina_batch.sandbox.api_versions import SandboxApiVersion

FULL_SET = "173692dd-0258-41bd-8a56-2cf9bbe89910"
CARTOONIFY = "3f68debe-df0a-4fc9-bdd3-9d45a4160587"
MOOD_BOARD = "ec7ec3ce-69b4-43c9-8eea-fe9752d679a4"
AD_VIDEO = "ec9b3525-4b72-4083-a6cb-00371672e128"

ID_FIELDS: Mapping[SandboxApiVersion, str] = {"executions": "executionId", "runs": "runId"}

PHOTO = "https://cdn.example.com/p/AP-1001.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, path: str = "", *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str]
) -> Answered:
    """One request on a connection of its own, with exactly these headers."""
    parts = urlsplit(url + path)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Answered(status=response.status, headers=response.headers, body=response.read())
    finally:
        connection.close()


def get(base_url: str, path: str) -> Answered:
    return ask(base_url, path, headers={"x-api-key": SANDBOX_KEY})


def post(
    base_url: str,
    app_id: str,
    inputs: object,
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    generation: SandboxApiVersion = "executions",
    outputs: object = None,
) -> Answered:
    return ask(
        base_url,
        f"/v1/apps/{app_id}/{generation}{query}",
        method="POST",
        body=json.dumps({"inputs": inputs} | ({"outputs": outputs} if outputs is not None else {})).encode(),
        headers={"x-api-key": SANDBOX_KEY, "Content-Type": "application/json", **(headers or {})},
    )


def start(
    base_url: str,
    app_id: str = CARTOONIFY,
    inputs: Mapping[str, Any] | None = None,
    *,
    generation: SandboxApiVersion = "executions",
    query: str = "",
    outputs: object = None,
) -> str:
    """Start an execution that must be accepted, and return its id."""
    answered = post(
        base_url,
        app_id,
        {"Upload": PHOTO, "Style": "Ghibli"} if inputs is None else inputs,
        generation=generation,
        query=query,
        outputs=outputs,
    )
    assert answered.status == 202, answered.body
    execution_id = answered.json()["data"][ID_FIELDS[generation]]
    assert isinstance(execution_id, str)
    return execution_id


def start_run(base_url: str, app_id: str = CARTOONIFY, inputs: Mapping[str, Any] | None = None, **rest: Any) -> str:
    return start(base_url, app_id, inputs, generation="runs", **rest)


def read(base_url: str, execution_id: str, *, generation: SandboxApiVersion = "executions") -> dict[str, Any]:
    answered = get(base_url, f"/v1/{generation}/{execution_id}")
    assert answered.status == 200, answered.body
    data = answered.json()["data"]
    assert isinstance(data, dict)
    return data


def wait_for_end(base_url: str, execution_id: str, *, generation: SandboxApiVersion = "executions") -> dict[str, Any]:
    """Poll until it ends; the tests speed the sandbox up, so that this takes a few requests."""
    until = time.monotonic() + PATIENCE
    while (data := read(base_url, execution_id, generation=generation))["status"] in {"queued", "running"}:
        assert time.monotonic() < until, f"{execution_id} did not end"
        time.sleep(0.002)
    return data


def cancel(base_url: str, run_id: str) -> Answered:
    return ask(base_url, f"/v1/runs/{run_id}/cancel", method="POST", headers={"x-api-key": SANDBOX_KEY})


def journal(data: Path, name: str) -> list[dict[str, Any]]:
    return json_lines(data / name)


SERVE = """
import sys
from pathlib import Path
from lamina_batch.sandbox import SandboxOptions, serve
serve(
    SandboxOptions(data=Path(sys.argv[1]), limit=10**6, speed=float(sys.argv[2]), faults=tuple(sys.argv[4:])),
    port=int(sys.argv[3]),
    announce=lambda base_url: print(base_url, flush=True),
)
"""


class Served:
    """A sandbox in a process of its own."""

    def __init__(self, data: Path, *faults: str, speed: float = 5000, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(data), str(speed), str(port), *faults], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.base_url = self.process.stdout.readline().strip()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        self.process.communicate()
        return self.process.returncode
