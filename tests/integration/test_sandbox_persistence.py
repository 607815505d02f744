"""What the sandbox accepted outlives it, whatever ends it."""

from __future__ import annotations

import signal
import socket
import stat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from sandbox_support import CARTOONIFY, FULL_SET, PHOTO, Served, ask, get, journal, read, start, wait_for_end

from lamina_batch.sandbox import SandboxOptions, embedded, serve
from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
from lamina_batch.sandbox.journal import Journal, read_journal

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_accepted_outlives_a_kill_9_and_so_do_its_urls(tmp_path: Path) -> None:
    first = Served(tmp_path)
    try:
        finished = wait_for_end(first.base_url, start(first.base_url, FULL_SET, {"Front": PHOTO}))
        picture = ask(finished["outputs"][0]["value"], headers={})
        just_accepted = start(first.base_url)
    finally:
        first.end(signal.SIGKILL)

    port = urlsplit(first.base_url).port
    assert port is not None
    second = Served(tmp_path, port=port)
    try:
        assert second.base_url == first.base_url
        assert read(second.base_url, finished["executionId"]) == finished
        assert wait_for_end(second.base_url, just_accepted)["status"] == "completed"
        again = ask(finished["outputs"][0]["value"], headers={})
        assert (again.status, again.body) == (200, picture.body)
        start(second.base_url)
    finally:
        assert second.end(signal.SIGTERM) == 0
    accepted = [line["execution_id"] for line in journal(tmp_path, "executions.jsonl")]
    assert accepted[:2] == [finished["executionId"], just_accepted]
    assert len(set(accepted)) == 3
    logged = journal(tmp_path, "requests.jsonl")
    assert [line["execution_id"] for line in logged if line["method"] == "POST"] == accepted


def test_an_execution_goes_on_while_the_sandbox_is_down(tmp_path: Path) -> None:
    """Its status is a function of its record and the time, not of who was watching."""
    with embedded(SandboxOptions(data=tmp_path, limit=10**6, speed=50)) as base_url:
        execution_id = start(base_url)
        created = read(base_url, execution_id)["createdAt"]
    # Another speed, and another seed: what was drawn when it was accepted still holds.
    with embedded(SandboxOptions(data=tmp_path, limit=10**6, speed=0.001, seed=9)) as base_url:
        data = wait_for_end(base_url, execution_id)
    assert (data["status"], data["createdAt"]) == ("completed", created)


def test_sigint_ends_it_too(tmp_path: Path) -> None:
    served = Served(tmp_path)
    assert get(served.base_url, "/v1/apps").status == 200
    assert served.end(signal.SIGINT) == 0


def test_embedded_listens_where_it_did_last_time(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path, limit=10**6, speed=5000)) as first:
        url = wait_for_end(first, start(first))["outputs"][0]["value"]
        # It is taken while this one runs: then any other will do.
        with embedded(SandboxOptions(data=tmp_path)) as beside:
            assert beside != first
        with embedded(SandboxOptions(data=tmp_path / "other")) as other:
            assert other != first
    (tmp_path / "address.json").write_text(f'{{"port": {urlsplit(first).port}}}')
    with embedded(SandboxOptions(data=tmp_path)) as again:
        assert again == first
        assert ask(url, headers={}).status == 200


@pytest.mark.parametrize("damaged", ["", "nonsense", "[1]", '{"port": "x"}'])
def test_embedded_takes_any_port_where_the_last_one_is_not_known(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "address.json").write_text(damaged)
    with embedded(SandboxOptions(data=tmp_path)) as base_url:
        assert get(base_url, "/v1/apps").status == 200


def test_embedded_says_in_the_caller_s_thread_why_it_cannot_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="file"), embedded(SandboxOptions(data=file)):
        pass


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(SandboxOptions(), port=taken.getsockname()[1], announce=lambda _: None)


def test_without_a_folder_nothing_is_written_and_nothing_outlives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with embedded(SandboxOptions()) as base_url:
        execution_id = start(base_url)
    with embedded(SandboxOptions()) as base_url:
        assert get(base_url, f"/v1/executions/{execution_id}").status == 404
    assert list(tmp_path.iterdir()) == []


def test_the_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path)) as base_url:
        first = get(base_url, "/v1/webhooks/signing-key").json()
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    with embedded(SandboxOptions(data=tmp_path)) as base_url:
        assert get(base_url, "/v1/webhooks/signing-key").json() == first


def test_damaged_secrets_are_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}")
    with pytest.raises(OSError, match=r"secrets\.json is damaged"), embedded(SandboxOptions(data=tmp_path)):
        pass


# --- the files themselves


def execution(number: int) -> SandboxExecution:
    return SandboxExecution(
        execution_id=f"e{number}",
        app_id=CARTOONIFY,
        inputs={"Style": "half a pair: \ud800", "list": ["ä", "日"]},
        created_at=1000.5,
        queued_seconds=0.5,
        seconds=2.5,
    )


def test_a_torn_last_line_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "executions.jsonl"
    store = ExecutionStore(path)
    store.add(execution(1))
    store.close()
    with path.open("ab") as file:
        file.write(b'{"execution_id":"torn","app_id":"x","inp')
    store = ExecutionStore(path)
    assert [kept.execution_id for kept in store] == ["e1"]
    store.add(execution(2))
    store.close()
    again = ExecutionStore(path)
    assert list(again) == [execution(1), execution(2)]
    again.close()


def test_a_line_of_a_later_version_is_read_for_what_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "executions.jsonl"
    journal_file = Journal(path)
    line = {"execution_id": "e1", "app_id": "a", "inputs": {}, "created_at": 1, "queued_seconds": 0, "seconds": 1}
    journal_file.append({**line, "new": True})
    journal_file.close()
    store = ExecutionStore(path)
    assert [kept.execution_id for kept in store] == ["e1"]
    store.close()


def test_a_line_has_left_the_process_when_append_returns(tmp_path: Path) -> None:
    lines = Journal(tmp_path / "a" / "x.jsonl")
    lines.append({"n": 1})
    assert list(read_journal(tmp_path / "a" / "x.jsonl")) == [{"n": 1}]
    lines.close()


def test_where_there_is_no_file_there_are_no_lines(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "none.jsonl")) == []
