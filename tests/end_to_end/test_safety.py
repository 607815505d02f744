"""docs/safety.md, line by line, with the command line as a process against services that mean harm."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hostile import EVIL, Asked, app, execution, hostile, raw, says, usual
from process import APP, PATIENCE, PIPELINE, Cli, Service, opened_by, read_manifest, row, stopping, wait_for, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hostile import Answer, Raw

#: Every character of it is one that a key may hold, and some are written otherwise in a URL or in JSON.
KEY = "lma_KeyOfNobody+/=0123456789"
IN_URL = quote(KEY, safe="")
IN_JSON = KEY.replace("/", "\\/").replace("+", "\\u002B").replace("_", "\\u005f")
#: A text cannot hold a NUL in an environment, an argument or a file name, and a CSV that does is refused.
EVIL_CELL = EVIL.replace("\0", "")


@pytest.fixture
def keyed(project: Path, cli: Cli) -> Cli:
    """The command line with a key that is easily recognised, and a crash log in the project."""
    return Cli(folder=project, env={**cli.env, "LAMINA_API_KEY": KEY, "TMPDIR": str(project)})


def told(keyed: Cli, ran: Raw) -> list[str]:
    """Where the key is that should be nowhere: the output, or a file."""
    forms = [form.encode() for form in (KEY, IN_URL, IN_JSON)]
    found = ["the output"] * any(form in ran.out + ran.err for form in forms)
    files = [file for file in keyed.folder.rglob("*") if file.is_file()]
    return found + [str(file) for file in files if any(form in file.read_bytes() for form in forms)]


# -- the key goes to the API host only --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "status"), [("app", 301), ("start", 307), ("read", 302)])
def test_no_redirect_of_the_api_is_followed(keyed: Cli, kind: str, status: int) -> None:

    def answer(asked: Asked) -> Answer:
        return says(status, b"", f"Location: {other.url}/v1/x") if asked.kind == kind else usual(asked, 1)

    with hostile() as other, hostile(answer=answer) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--limit", "1")
        assert ran.code == 1, ran.text
        assert other.connections == 0
        assert service.count(kind) >= 1
    assert told(keyed, ran) == []


def test_no_proxy_and_no_netrc_of_the_environment_gets_the_key(keyed: Cli) -> None:
    (keyed.folder / "netrc").write_text("default login someone password else\n")
    with hostile() as other, hostile() as service:
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), other.url)
        ran = raw(keyed, service.url, "run", "p.yaml", NETRC=str(keyed.folder / "netrc"), **proxies)
        assert ran.code == 0, ran.text
        assert other.connections == 0
        assert {asked.header("x-api-key") for asked in service.asked} == {KEY}
        assert {asked.header("authorization") for asked in service.asked} == {None}


def test_the_key_is_never_sent_with_a_download(keyed: Cli) -> None:
    """Not to the host of the file, nor to the one that this redirects to, nor to the API's own as a file."""
    with hostile(other=says(200, b"\x89PNG\r\n\x1a\n" + b"0" * 64, "Content-Type: image/png")) as last:
        there = says(302, b"", f"Location: {last.url}/picture.png")
        with hostile(other=there) as files:
            done = execution(1, outputs=[_output(value=f"{files.url}/1.png")])
            with hostile(read=says(200, done)) as service:
                ran = raw(
                    keyed,
                    service.url,
                    "run",
                    "p.yaml",
                    "--limit",
                    "1",
                    "--set",
                    "results.download=out/{key}/{label}.{ext}",
                )
                assert ran.code in {0, 3}, ran.text
    assert files.asked
    heads = b"".join(asked.head + asked.body for asked in (*files.asked, *last.asked))
    assert not any(form.encode() in heads for form in (KEY, IN_URL))
    assert told(keyed, ran) == []


def test_the_key_is_in_no_url(keyed: Cli) -> None:
    with hostile() as service:
        raw(keyed, service.url, "run", "p.yaml")
        assert len(service.asked) >= 7
        assert not any(form in asked.path for asked in service.asked for form in (KEY, IN_URL))


def test_a_bearer_key_goes_out_in_one_header_only(keyed: Cli) -> None:
    with hostile(start=says(400, {"error": f"Bearer {KEY} is bad"})) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--set", "api.auth=bearer")
        assert {asked.header("authorization") for asked in service.asked} == {f"Bearer {KEY}"}
        assert {asked.header("x-api-key") for asked in service.asked} == {None}
    assert told(keyed, ran) == []


# -- the key is never shown and never kept -------------------------------------------------------------------------


#: The key in every form, between everything that a terminal might obey.
HARM = json.dumps({"error": f"E{EVIL}@", "details": [f"d{EVIL}", "@", {"x": "@"}]})
HARM_BODY = HARM.replace("@", f"{KEY} {IN_JSON} ?key={IN_URL}").encode()


@pytest.mark.parametrize("status", [400, 401, 500])
def test_what_an_error_to_a_submission_says_is_shown_without_the_key_and_harmlessly(keyed: Cli, status: int) -> None:
    """And kept so: ledger and its log, manifest, findings, summary; whatever shows it later shows it so too."""
    later = ("run p.yaml --json", "status p.yaml", "held p.yaml", "plan p.yaml --explain", "results p.yaml")
    with hostile(start=says(status, HARM_BODY)) as service:
        for words in ("run p.yaml", *(later if status != 401 else ())):
            ran = raw(keyed, service.url, *words.split())
            assert told(keyed, ran) == [], words
            assert ran.harm() == [], words
            if words == "run p.yaml":
                assert ran.code == {400: 3, 401: 1, 500: 6}[status], ran.text
                assert "[key]" in ran.text
                assert "\\x1b[2J" in ran.text


@pytest.mark.parametrize("status", [401, 403, 302])
def test_what_an_error_to_a_read_says_is_shown_without_the_key_and_harmlessly(keyed: Cli, status: int) -> None:
    with hostile(app=says(status, HARM_BODY, f"Location: https://example.com/{KEY}")) as service:
        ran = raw(keyed, service.url, "validate", "p.yaml")
    assert ran.code == 1
    assert told(keyed, ran) == []
    assert ran.harm() == []
    assert status == 302 or "[key]" in ran.text


def test_a_key_in_broken_http_is_cut_out(keyed: Cli) -> None:
    """What the HTTP library says of a broken answer quotes it."""
    broken = [
        f"HTTP/1.1 400 X\r\nbad header {KEY}\r\n\r\n",
        f"HTTP/1.1 {KEY}\r\n\r\n",
        f"{KEY}\r\n\r\n",
        f"HTTP/1.1 400 {KEY}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 400 X\r\nContent-Length: {KEY}\r\n\r\n",
        f"HTTP/1.1 400 X\r\nContent-Encoding: {KEY}\r\nContent-Length: 1\r\n\r\nx",
    ]
    write_rows(keyed.folder, [row(n) for n in range(len(broken))])
    wires = iter(broken)

    def answer(asked: Asked) -> Answer:
        return [next(wires).encode()] if asked.kind == "start" else usual(asked, 1)

    with hostile(answer=answer) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--json")
        assert service.count("start") == len(broken)
    assert ran.code == 6, ran.text
    assert told(keyed, ran) == []
    assert ran.harm() == []


def test_a_key_in_a_good_answer_is_cut_out(keyed: Cli) -> None:
    outputs = [_output(label=f"View {KEY}", value=f"https://files.example.com/?key={IN_URL}", id=KEY)]
    outputs += [_output(id="n2", status="error", value=None, error=f"no {KEY}")]
    body = json.dumps(execution(1, outputs=outputs)).replace(KEY, IN_JSON).encode()
    with hostile(read=says(200, body), app=says(200, app(name=KEY, description=KEY))) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--json", "--limit", "1")
        assert ran.code == 3, ran.text
        assert told(keyed, ran) == []
        assert "[key]" in (keyed.folder / "out" / "p.csv").read_text()
        assert told(keyed, raw(keyed, service.url, "apps", "show", APP)) == []


# -- rows and rules are text -------------------------------------------------------------------------------------------


def test_a_cell_is_text_whatever_stands_in_it(project: Path, at: Cli, service: Service) -> None:
    cells = [
        "${HOME}",
        "$HOME",
        "{sku}",
        "{{sku}}",
        "{sku.__class__}",
        "%(sku)s",
        "$(touch pwned)",
        "`touch pwned`",
        "$$",
    ]
    write_rows(project, [row(n, title=cell) for n, cell in enumerate(cells)])
    at("run", "p.yaml")
    sent = [line["inputs"]["Prompt"] for line in service.accepted]
    assert sorted(sent) == sorted(f"{cell} in soft light" for cell in cells)
    assert not (project / "pwned").exists()


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        ("rows.where", "sku in (/**/ select * from read_csv('{there}'))"),
        ("inputs.Prompt.sql", "(/**/ select a from \"read_csv\"('{there}') limit 1)"),
        ("rows.where", "sku in (-- x\nselect * from read_csv('{url}/x.csv'))"),
        ("inputs.Prompt.template", "{{title.__class__}}"),
        ("inputs.Prompt.template", "{{title:>1000000000}}"),
        ("inputs.Prompt.template", "{{0}}"),
    ],
)
def test_a_rule_is_about_its_row_and_nothing_else(keyed: Cli, place: str, rule: str) -> None:
    """No file is read, no host is asked, and nothing is bought."""
    secret = keyed.folder / "secret.csv"
    secret.write_text("the first line of a file\n")
    with hostile() as other, hostile() as service:
        text = rule.format(there=secret, url=other.url)
        clear = ("--set", "inputs.Prompt={sql: sku}") if place.endswith("sql") else ()
        ran = raw(keyed, service.url, "run", "p.yaml", *clear, "--set", f"{place}={text}")
        assert other.connections == 0
        assert service.count("start") == 0
    assert ran.code == 2, ran.text
    assert "the first line of a file" not in ran.text


# -- bodies that are too large, or never end -----------------------------------------------------------------------


def endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    yield b'{"data": {"appId": "x", "executionId": "e1", "status": "completed", "name": "'
    while True:
        yield b"lamina " * 10_000


@pytest.mark.parametrize("kind", ["app", "start", "read"])
def test_a_body_that_does_not_end_is_left(keyed: Cli, kind: str) -> None:
    """A few MiB of each are taken, however much there would be."""

    def answer(asked: Asked) -> Answer:
        return endless() if asked.kind == kind else usual(asked, 1)

    with hostile(answer=answer) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--limit", "1", "--set", "run.execution_timeout=3s")
        assert 0 < service.sent / service.count(kind) < 64 << 20
    assert ran.code == {"app": 1, "start": 6, "read": 1}[kind], ran.text
    assert b"does not end" in ran.err


# -- nothing from the service or the catalog drives the terminal ---------------------------------------------------


EVIL_APP = app(
    name=f"N{EVIL}",
    description=f"D{EVIL}",
    parameters=[
        {"name": "Front", "type": "url"},
        {"name": "Back", "type": "url"},
        {"name": "Prompt", "type": "text", "default": f"d{EVIL}", "description": f"e{EVIL}"},
        {"name": "Model Gender", "type": "options", "options": ["Female", "Male", f"O{EVIL}"]},
        {"name": f"X{EVIL}", "type": f"t{EVIL}", "default": EVIL, "accept": [f"a{EVIL}"], "options": [EVIL]},
    ],
)


def test_an_app_that_means_harm_is_shown_harmlessly(keyed: Cli) -> None:
    node = {"id": f"n{EVIL}", "type": f"t{EVIL}", "label": f"l{EVIL}"}
    flow = {"appId": f"i{EVIL}", "name": f"N{EVIL}", "nodes": [node], "edges": [{"source": node["id"], "target": EVIL}]}
    listed = {"data": [{"appId": f"i{EVIL}", "name": f"N{EVIL}", "isPublic": False}]}
    with hostile(app=says(200, EVIL_APP), workflow=says(200, {"data": flow}), list=says(200, listed)) as service:
        for words in (
            f"apps show {APP}",
            "apps list",
            f"apps workflow {APP}",
            "validate p.yaml",
            "plan p.yaml --explain",
            "run p.yaml",
            f"apps pin {APP} -o pin.json",
            f"apps diff {APP} --pin pin.json",
            f"apps schema {APP}",
            f"init --app {APP} --rows rows.csv -o evil.yaml",
        ):
            ran = raw(keyed, service.url, *words.split())
            assert ran.code == 0, ran.text
            assert ran.harm() == [], words
            if words.startswith("apps") and "schema" not in words:
                assert "\\x1b" in ran.text, "what cannot be sent is shown"


def test_a_file_that_init_makes_of_such_an_app_can_be_read(keyed: Cli) -> None:
    """Whatever its names hold, the file is YAML that means the app's own spelling."""
    with hostile(app=says(200, EVIL_APP)) as service:
        assert raw(keyed, service.url, "init", "--app", APP, "--rows", "rows.csv", "-o", "evil.yaml").code == 0
        ran = raw(keyed, service.url, "validate", "evil.yaml")
        assert ran.harm() == []
        assert "needs" not in ran.text
        assert ran.code == 0, ran.text


def test_what_a_failed_execution_says_is_shown_harmlessly(keyed: Cli) -> None:
    failed = execution(
        1, status="failed", errorMessage=f"M{EVIL}", outputs=[_output(label=f"L{EVIL}", error=f"o{EVIL}")]
    )
    with hostile(read=says(200, failed)) as service:
        for words in ("run p.yaml --limit 1", "status p.yaml", "plan p.yaml --explain", "run p.yaml --limit 0 --json"):
            assert raw(keyed, service.url, *words.split()).harm() == [], words


def test_rows_that_mean_harm_are_shown_harmlessly(keyed: Cli) -> None:
    """Keys, cells, headers, and keys that are held and asked for by name."""
    rows = [row(1, sku=f"k{EVIL_CELL}", gender=f"g{EVIL_CELL}"), row(2, sku=f"l{EVIL_CELL}"), row(3, front=EVIL_CELL)]
    write_rows(keyed.folder, rows)
    with hostile(start=says(500, {"error": "x"})) as service:
        for words in (
            "validate",
            "plan --explain",
            "run",
            "status",
            "held",
            "held --give-up --all",
        ):
            command, *options = words.split()
            assert raw(keyed, service.url, command, "p.yaml", *options).harm() == [], words
        text = (keyed.folder / "rows.csv").read_text().replace("title", f'"t{EVIL_CELL}"')
        (keyed.folder / "rows.csv").write_text(text)
        for rule in ("name=x", f"rows.key=k{EVIL_CELL}", f"rows.where=k{EVIL_CELL} = 1"):
            ran = raw(keyed, service.url, "validate", "p.yaml", "--set", rule)
            assert ran.code == 2
            assert ran.harm() == [], rule


def test_a_pipeline_file_whose_name_means_harm_is_shown_harmlessly(keyed: Cli) -> None:
    name = f"x{EVIL_CELL.replace('/', '')[:100]}.yaml"
    (keyed.folder / name).write_text(PIPELINE)
    with hostile() as service:
        for command in ("run", "status", "results"):
            ran = raw(keyed, service.url, command, name)
            assert ran.code == 0, ran.text
            assert ran.harm() == [], command


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="no pseudo-terminals")
def test_a_terminal_with_a_progress_bar_gets_nothing_of_the_service(keyed: Cli) -> None:
    """The bar itself moves the cursor; nothing else may."""
    import pty  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    failed = execution(1, status="failed", errorMessage=f"M{EVIL}")
    with hostile(app=says(200, EVIL_APP), read=says(200, failed)) as service:
        ours, theirs = pty.openpty()
        env = {**keyed.env, "LAMINA_BASE_URL": service.url}
        process = subprocess.Popen(
            keyed.command("run", "p.yaml", "--limit", "1"), cwd=keyed.folder, env=env, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
        process.wait(timeout=PATIENCE)
        os.close(ours)
    assert b"job" in shown, "there was a bar"
    text = shown.decode()
    for harm in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\x08", "\u202e", "\x00", "\n" + "error: forged"):
        assert harm not in text, repr(harm)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other side is closed
        return b""


# -- what goes wrong in characters does not stop a run --------------------------------------------------------------


def test_half_a_character_from_the_service_loses_nothing(keyed: Cli) -> None:
    """JavaScript cuts texts between the halves of an emoji; no file and no ledger can hold one half."""
    half = "\\ud83d"
    done = json.dumps(execution(1, outputs=[_output(label="L@", value="v@", id="n@")], errorMessage="m@")).replace(
        "@", half
    )
    names = json.dumps(app(name="N@", description="D@")).replace("@", half)
    with hostile(read=says(200, done.encode()), app=says(200, names.encode())) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--limit", "1", "--json")
        assert ran.code == 0, ran.text
        assert json.loads(ran.out)["counts"]["completed"] == 1
    with hostile(start=says(400, json.dumps({"error": "E@"}).replace("@", half).encode())) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--adopt-state", "--json")
        assert ran.code == 3, ran.text
        assert json.loads(ran.out)["counts"]["rejected"] >= 2


# -- spreadsheets get text, never formulas --------------------------------------------------------------------------


def test_nothing_of_the_service_is_a_formula_in_our_columns(keyed: Cli) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"]
    write_rows(keyed.folder, [row(n, sku=f"={n}") for n in range(len(formulas))])

    def answer(asked: Asked) -> Answer:
        if asked.kind != "read":
            return usual(asked, service.count("start"))
        number = int(asked.path.rpartition("/e")[2])
        formula = formulas[(number - 1) % len(formulas)]
        outputs = [
            _output(label=formula, type="text", value=formula),
            _output(id="n2", status="error", value=None, error=formula),
        ]
        return says(200, execution(number, outputs=outputs))

    with hostile(answer=answer) as service:
        assert raw(keyed, service.url, "run", "p.yaml").code == 3
    lines = read_manifest(keyed.folder / "out" / "p.csv")
    assert {line["sku"] for line in lines} == {f"={n}" for n in range(len(formulas))}, "theirs stays as it is"
    ours = {name: value for line in lines for name, value in line.items() if name.startswith("lamina_")}
    cells = [value for line in lines for name, value in line.items() if name.startswith("lamina_")]
    assert ours
    assert sum(cell.startswith("'") for cell in cells) >= 3 * len(formulas), "key, value and error of each"
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_nothing_of_the_catalog_is_a_formula_in_the_findings(keyed: Cli) -> None:
    write_rows(keyed.folder, [row(1, sku="=1+1", gender="@SUM(A1)"), row(2, sku="+2", front="=HYPERLINK(1)")])
    with hostile() as service:
        assert raw(keyed, service.url, "validate", "p.yaml", "--findings", "f.csv").code == 3
    with (keyed.folder / "f.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert [cell for cell in cells if cell.startswith("'")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


# -- what reviews have found -----------------------------------------------------------------------------------------


def test_only_a_text_or_a_whole_number_is_an_execution_id(keyed: Cli) -> None:
    """Anything else proves nothing: the row is held, and nobody asks about `None` or `True`."""
    # A good one in the middle, or the run would take its time after so many in a row.
    ids: list[object] = ["", "  ", None, True, False, "e1", 1.5, [], ["e1"], {}, {"id": "e1"}, 7]
    write_rows(keyed.folder, [row(n) for n in range(len(ids))])

    def answer(asked: Asked) -> Answer:
        if asked.kind == "read":
            return says(200, execution(1, executionId=asked.path.rpartition("/")[2]))
        if asked.kind != "start":
            return usual(asked, 0)
        told = ids[service.count("start") - 1]
        return says(202, {"data": {"executionId": told, "status": "queued"}})

    with hostile(answer=answer) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--json", "--set", "run.max_in_flight=1")
        assert ran.code == 6, ran.text
        assert json.loads(ran.out)["counts"]["held"] == len(ids) - 2
        assert {asked.path for asked in service.asked if asked.kind == "read"} == {
            "/v1/executions/e1",
            "/v1/executions/7",
        }
    lines = read_manifest(keyed.folder / "out" / "p.csv")
    assert {line["lamina_execution_id"] for line in lines} == {"", "e1", "7"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_that_waits_for_the_lock(keyed: Cli, number: int, code: int) -> None:
    lock = keyed.folder / ".lamina-batch" / "p" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with stopping(
            keyed.start("run", "p.yaml", "--if-locked", "wait", "--base-url", "http://127.0.0.1:9")
        ) as waiting:
            wait_for(lambda: lock in opened_by(waiting))
            waiting.send_signal(number)
            _, err = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == code, err
    assert "before anything was submitted" in err


def _output(**changes: object) -> dict[str, object]:
    usual_one: dict[str, object] = {
        "id": "n1",
        "label": "Front View",
        "type": "image",
        "value": "https://files.example.com/1.png",
        "status": "completed",
        "error": None,
    }
    return usual_one | changes
