"""`doctor` against services and folders with one thing wrong each: it finds that, and nothing else."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import random
import socket
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from hostile import EVIL, app, hostile, inside, says
from process import APP, PATIENCE, Cli, Service, lasting_port, stopping, wait_for

from lamina_batch.doctor.webhook_roundtrip import RoundTrip, check_round_trip
from lamina_batch.pipeline.spec import Webhook
from lamina_batch.runs.context import Access
from lamina_batch.runs.service import ask
from lamina_batch.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hostile import Raw

    from lamina_batch.client.lamina import LaminaClient

Found = dict[str, list[tuple[str, str, str | None]]]

GENERAL = ["versions", "key", "base url", "service", "generation", "limit", "clock"]
OF_A_PIPELINE = [*GENERAL, "pipeline", "app", "drift", "rows", "state", "results"]


def found(ran: Raw) -> Found:
    """What `doctor --json` says, by check; its shape is the documented one."""
    told: dict[str, Any] = json.loads(ran.out)
    assert set(told) == {"schema_version", "exit_code", "checks"}
    assert told["schema_version"] == 1
    assert told["exit_code"] == ran.code
    checks: Found = {}
    for line in told["checks"]:
        assert set(line) == {"check", "level", "message", "hint"}
        assert line["level"] == "ok" or line["hint"], line
        checks.setdefault(line["check"], []).append((line["level"], line["message"], line["hint"]))
    assert (ran.code == 1) == any(level == "fail" for lines in checks.values() for level, *_ in lines)
    return checks


def wrong(checks: Found) -> dict[str, str]:
    """check -> level and message of what is not ok."""
    return {
        check: f"{level}: {message}" for check, lines in checks.items() for level, message, _ in lines if level != "ok"
    }


def everything(folder: Path) -> list[str]:
    return sorted(str(file) for file in folder.rglob("*") if "service-0" not in file.parts)


# -- all is well ---------------------------------------------------------------------------------------------------


def test_without_a_pipeline_there_are_the_general_checks(at: Cli) -> None:
    ran = inside(at, "doctor", "--json")
    checks = found(ran)
    assert (ran.code, wrong(checks)) == (0, {})
    assert list(checks) == GENERAL
    assert checks["key"][0][1] == "found in LAMINA_API_KEY, and accepted by the service"


def test_nothing_is_bought_and_nothing_is_left_behind(project: Path, at: Cli, service: Service) -> None:
    port = lasting_port()
    hook = f'webhook: {{public_url: "http://127.0.0.1:{port}/lamina", listen: "127.0.0.1:{port}"}}'
    at("run", "p.yaml", "--limit", "1")
    before, bought = everything(project), len(service.accepted)
    ran = inside(at, "doctor", "p.yaml", "--json", "--set", f"run={{{hook}, completion: webhook}}")
    checks = found(ran)
    assert (ran.code, wrong(checks)) == (0, {})
    assert list(checks) == [*OF_A_PIPELINE, "webhook"]
    assert "a signed request came in whole" in checks["webhook"][0][1]
    assert len(service.accepted) == bought
    assert everything(project) == before


def test_a_folder_that_has_never_run_stays_as_it_is(project: Path, cli: Cli) -> None:
    before = everything(project)
    hook = f"run.webhook={{public_url: 'https://nobody.invalid', listen: '127.0.0.1:{lasting_port()}'}}"
    ran = inside(cli, "doctor", "p.yaml", "--sandbox", "--set", hook)
    assert ran.code == 0, ran.text
    assert "the stand-in delivered, and its signature was verified" in ran.text
    assert [line[:6] for line in ran.out.decode().splitlines()] == ["ok    "] * 14
    assert everything(project) == before


# -- the service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--fault", "unauthorized"], {"key": "fail: found in LAMINA_API_KEY, and refused by the service"}),
        (["--fault", "502:on=app"], {"service": "fail: HTTP 502", "key": "warn: "}),
        (["--fault", "503:on=app"], {"service": "fail: HTTP 503: Service unavailable", "key": "warn: "}),
        (["--fault", "429:on=app"], {"service": "warn: the rate limit", "key": "warn: "}),
        (["--fault", "redirect:on=app,to=http://127.0.0.1:9/"], {"service": "fail: it redirects", "key": "warn: "}),
        (["--fault", "drop_before:on=app"], {"service": "fail: ", "key": "warn: "}),
        (["--fault", "broken_json:on=app"], {"service": "fail: something answers, but not the API", "key": "warn: "}),
        (["--fault", "huge_body:on=app"], {"service": "fail: something answers, but not the API", "key": "warn: "}),
        (["--fault", "slow:seconds=0.3"], {}),
        (["--no-headers"], {"limit": "warn: the service says nothing about its rate limit"}),
        (["--generation", "runs"], {"generation": "warn: the service answers as runs, and `api.generation` is exec"}),
    ],
    ids=lambda value: value[-1].partition(":")[0] if isinstance(value, list) else "",
)
def test_each_fault_of_the_service_is_found(
    project: Path, cli: Cli, serve: Callable[..., Service], args: list[str], expected: dict[str, str]
) -> None:
    service = serve("--limit", "1000", "--speed", "100", *args)
    ran = inside(cli, "doctor", "p.yaml", "--json", "--base-url", service.url, "--set", "api.generation=executions")
    told = wrong(found(ran))
    told = {check: said for check, said in told.items() if "see `service`" not in said}
    assert project.exists()
    assert {check: said[: len(expected.get(check, ""))] for check, said in told.items()} == expected, ran.text
    assert service.accepted == []


@pytest.mark.parametrize(
    ("env", "check", "said"),
    [
        ({"LAMINA_API_KEY": ""}, "key", "fail: no API key"),
        ({"LAMINA_API_KEY": "sk-0123456789"}, "key", "fail: the API key in LAMINA_API_KEY is not a valid key"),
        ({"LAMINA_API_KEY": "lma_mcp_at_0123456789"}, "key", "warn: it is a login"),
        ({"LAMINA_BASE_URL": "app.example.com"}, "base url", "fail: not a base URL"),
        ({"LAMINA_BASE_URL": "http://api.invalid"}, "base url", "fail: http://api.invalid: the key goes there for all"),
    ],
)
def test_what_is_wrong_with_the_key_or_the_address_is_found(
    at: Cli, env: dict[str, str], check: str, said: str
) -> None:
    ran = inside(Cli(folder=at.folder, env={**at.env, **env}), "doctor", "--json")
    assert wrong(found(ran))[check].startswith(said), ran.text
    assert "0123456789" not in ran.text


@pytest.mark.parametrize(
    ("off", "completion", "said"),
    [
        (0.0, "webhook", None),
        (20.0, "webhook", None),
        (-120.0, "poll", "warn: this computer's clock is 1"),
        (-3600.0, "poll", "warn: this computer's clock is 3"),
        (3600.0, "webhook", "fail: this computer's clock is 3"),
    ],
)
def test_a_clock_that_is_off_is_found(project: Path, cli: Cli, off: float, completion: str, said: str | None) -> None:
    date = formatdate(time.time() + off, usegmt=True)  # noqa: TID251
    with hostile(list=says(200, {"data": []}, f"Date: {date}")) as service:
        hook = f"webhook: {{public_url: '{service.url}', listen: '127.0.0.1:{lasting_port()}'}}"
        run = f"run={{completion: {completion}, {hook}}}"
        told = wrong(found(inside(cli, "doctor", "p.yaml", "--json", "--base-url", service.url, "--set", run)))
    assert project.exists()
    if said is None:
        assert "clock" not in told
    else:
        assert told["clock"].startswith(said)
        assert ("behind" in told["clock"]) == (off > 0)


def test_neither_the_key_nor_a_control_character_is_shown(project: Path, cli: Cli) -> None:
    key = "lma_KeyOfNobody+/=0123456789"
    keyed = Cli(folder=project, env={**cli.env, "LAMINA_API_KEY": key})
    echo = says(200, app(name=f"{key}{EVIL}"))
    for listed in (says(200, {"data": []}), says(401, {"error": f"{EVIL} {key}"})):
        with hostile(list=listed, app=echo) as service:
            ran = inside(keyed, "doctor", "p.yaml", "--base-url", service.url)
        assert key not in ran.text
        assert ran.harm() == []


# -- the pipeline and its folders ----------------------------------------------------------------------------------


def test_what_is_wrong_with_a_pipeline_is_found(project: Path, at: Cli) -> None:
    (project / "file").touch()
    cases = {
        ("app=no-such-app",): {"app": "HTTP 404"},
        ("rows.key=[]",): {"pipeline": "rows.key: is empty"},
        ("state=file/state",): {"state": "nothing can be written in"},
        ("results.manifest=file/out.csv",): {"results": "nothing can be written in"},
        ("rows.from=nowhere.csv",): {"rows": "nowhere.csv"},
        ("run.max_executions=1000000000",): {"state": "this run may need"},
        ("results.download=x/{key}",): {"results": "results.download"},
    }
    for overrides, expected in cases.items():
        words = [word for override in overrides for word in ("--set", override)]
        ran = inside(at, "doctor", "p.yaml", "--json", *words)
        told = wrong(found(ran))
        assert (ran.code, set(told)) == (1, set(expected)), ran.text
        assert all(expected[check] in said for check, said in told.items()), ran.text


def test_an_app_that_changed_since_its_pin_is_found(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    shipped = json.loads((files("lamina_batch") / "sandbox/apps.json").read_text("utf-8"))
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": serve("--limit", "1000").url})
    at("apps", "pin", APP, "-o", "pin.json")
    (gender,) = (p for a in shipped if a["appId"] == APP for p in a["parameters"] if p["name"] == "Model Gender")
    said = []
    for labels in (["Other", *gender["options"]], ["Male"]):
        gender["options"], gender["default"] = labels, "Male"
        (project / "apps.json").write_text(json.dumps(shipped))
        changed = serve("--limit", "1000", "--apps", str(project / "apps.json"))
        there = ("--base-url", changed.url, "--set", "schema.pin=pin.json")
        said.append(wrong(found(inside(at, "doctor", "p.yaml", "--json", *there)))["drift"])
    assert said[0].startswith("warn: the app has changed since the pin of ")
    assert said[1].startswith("fail: ")
    assert "in a way that breaks this pipeline" in said[1]


def test_a_file_that_is_not_there_is_a_line(project: Path, at: Cli) -> None:
    checks = found(inside(at, "doctor", "q.yaml", "--json"))
    assert project.exists()
    assert list(checks) == [*GENERAL, "pipeline"]
    assert checks["pipeline"][0][2] == "did you mean 'p.yaml'?"


def test_what_is_wrong_with_a_ledger_is_found(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    service = serve("--limit", "1000", "--speed", "100", "--fault", "drop_after_accept:first=1")
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    at("run", "p.yaml", code=6)

    def state() -> str:
        return wrong(found(inside(at, "doctor", "p.yaml", "--json"))).get("state", "")

    assert state().startswith("warn: 1 rows are held")
    elsewhere = Cli(folder=project, env={**at.env, "LAMINA_BASE_URL": service.url.replace("127.0.0.1", "localhost")})
    told = wrong(found(inside(elsewhere, "doctor", "p.yaml", "--json")))
    assert told["state"].startswith("fail: ")
    ledger = project / ".lamina-batch/p/ledger.sqlite"
    ledger.write_bytes(b"no ledger at all" * 1000)
    assert state().startswith("fail: ")
    ledger.unlink()
    assert "a run would buy them again" in state()


# -- the way in of deliveries --------------------------------------------------------------------------------------


@contextmanager
def proxy(to: int, change: str) -> Iterator[int]:
    """A reverse proxy that does one thing wrong. Answers its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = dict(self.headers.items())
            path = self.path
            match change:
                case "body":
                    body = body.replace(b'": ', b'":')
                    headers["Content-Length"] = str(len(body))
                case "headers":
                    headers = {name: value for name, value in headers.items() if not name.startswith("X-")}
                case "path":
                    path = "/lamina"
                case _:
                    pass
            inner = http.client.HTTPConnection("127.0.0.1", to, timeout=PATIENCE)
            inner.request("POST", path, body, headers)
            status = inner.getresponse().status
            inner.close()
            self.send_response(502 if change == "answer" else status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def way_in(at: Cli, public_url: str, port: int) -> str:
    hook = f"run.webhook={{public_url: '{public_url}', listen: '127.0.0.1:{port}'}}"
    ran = inside(at, "doctor", "p.yaml", "--json", "--set", hook)
    (line,) = found(ran)["webhook"]
    return f"{line[0]}: {line[1]}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nothing", "ok: http://127.0.0.1:"),
        ("body", "fail: a request came in, but not as it was sent: "),
        ("headers", "fail: a request came in, but not as it was sent: "),
        ("path", "fail: a request came in without the last part of its path"),
        ("answer", "fail: a request came in, but its answer did not come back whole: HTTP 502"),
    ],
)
def test_what_a_proxy_does_to_deliveries_is_found(project: Path, at: Cli, change: str, said: str) -> None:
    port = lasting_port()
    assert project.exists()
    with proxy(port, change) as public:
        assert way_in(at, f"http://127.0.0.1:{public}/lamina", port).startswith(said)


def test_who_else_answers_is_found(project: Path, at: Cli, service: Service) -> None:
    port = lasting_port()
    assert project.exists()
    assert "cannot be reached from this computer: " in way_in(at, f"http://127.0.0.1:{lasting_port()}", port)
    assert "another server answers with HTTP 404" in way_in(at, f"{service.url}/x", port)
    with hostile(start=says(302, b"", "Location: https://example.com")) as other:
        assert "redirects (HTTP 302)" in way_in(at, other.url, port)
    with hostile(start=says(200)) as other:
        assert "another server answers with HTTP 200" in way_in(at, other.url, port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert "cannot listen: Address already in use" in way_in(at, f"{service.url}/x", port)


def test_a_run_that_listens_just_now_is_no_fault(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    port = lasting_port()
    service = serve("--limit", "1000", "--fault", "never_finish")
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    hook = (
        f"run={{completion: webhook, webhook: {{public_url: 'http://127.0.0.1:{port}', listen: '127.0.0.1:{port}'}}}}"
    )
    with stopping(at.start("run", "p.yaml", "--set", hook)):
        wait_for(lambda: len(service.accepted) == 3)
        assert way_in(at, f"http://127.0.0.1:{port}/lamina", port).startswith("ok: a run listens at")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("webhook_twice", None),
        ("webhook_forged", "none of the service's keys made its signature"),
        ("webhook_stale", "s ago, 300 s at most"),
        ("webhook_lost", ""),
    ],
)
async def test_the_deliveries_of_the_stand_in_are_really_verified(
    serve: Callable[..., Service], fault: str, said: str | None
) -> None:
    service = serve("--limit", "1000", "--speed", "1000", "--fault", fault)
    runtime = Runtime(
        now=time.monotonic,
        wall=time.time,  # noqa: TID251
        sleep=asyncio.sleep,  # noqa: TID251
        random=random.Random(1),
        notice=print,
    )
    access = Access(base_url=service.url, api_key="lma_any_key", service="sandbox")
    webhook = Webhook(public_url="https://nobody.invalid", listen=("127.0.0.1", lasting_port()))

    async def question(client: LaminaClient) -> RoundTrip:
        if said is None:
            return await check_round_trip(webhook, client, runtime, sandbox=True, seconds=PATIENCE)
        # That none will be taken is known when the time is over: more of it only where none has come yet.
        trip = await check_round_trip(webhook, client, runtime, sandbox=True, seconds=2.0)
        if said and not trip.notes:
            trip = await check_round_trip(webhook, client, runtime, sandbox=True, seconds=PATIENCE)
        return trip

    trip = await ask(access, runtime, question)
    assert trip.taken == (said is None)
    if said:
        assert said in trip.notes[0]
    assert APP in {line["app_id"] for line in service.accepted}
