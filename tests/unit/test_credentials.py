"""Where key and base URL come from (docs/lamina-api.md, "Authentication")."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lamina_batch.client.credentials import DEFAULT_BASE_URL, Credentials, check_base_url, find_credentials
from lamina_batch.errors import CredentialsError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def stored(home: Path, **changes: Any) -> None:
    credentials = {"kind": "apikey", "apiKey": "lma_stored", "baseUrl": "https://stored.example.com"} | changes
    write(home, {"version": 1, "credentials": {n: v for n, v in credentials.items() if v is not None}})


def write(home: Path, data: object) -> None:
    (home / ".lamina").mkdir()
    (home / ".lamina" / "config.json").write_text(json.dumps(data))


def find(home: Path, **environ: str) -> Credentials:
    return find_credentials(environ, home, now=NOW)


def test_the_environment_comes_first_and_leaves_the_stored_base_url_alone(tmp_path: Path) -> None:
    stored(tmp_path)
    found = find(tmp_path, LAMINA_API_KEY="lma_env")
    assert (found.api_key, found.base_url) == ("lma_env", DEFAULT_BASE_URL)


def test_a_stored_key_brings_its_base_url(tmp_path: Path) -> None:
    stored(tmp_path)
    assert find(tmp_path).base_url == "https://stored.example.com"


def test_the_environment_s_base_url_beats_the_stored_one(tmp_path: Path) -> None:
    stored(tmp_path)
    found = find(tmp_path, LAMINA_BASE_URL="https://env.example.com/")
    assert (found.api_key, found.base_url) == ("lma_stored", "https://env.example.com")


def test_an_explicit_base_url_beats_all(tmp_path: Path) -> None:
    found = find_credentials(
        {"LAMINA_API_KEY": "lma_x", "LAMINA_BASE_URL": "https://env.example.com"},
        tmp_path,
        now=NOW,
        base_url="http://127.0.0.1:8787",
    )
    assert found.base_url == "http://127.0.0.1:8787"


def test_an_old_file_without_a_kind_is_read(tmp_path: Path) -> None:
    stored(tmp_path, kind=None)
    assert find(tmp_path).api_key == "lma_stored"


def test_a_fresh_login_is_used_and_an_expired_one_is_named(tmp_path: Path) -> None:
    stored(tmp_path, kind="oauth", apiKey="lma_mcp_at_x", expiresAt="2026-11-23T00:00:01Z")
    assert find(tmp_path).api_key == "lma_mcp_at_x"
    (tmp_path / ".lamina/config.json").unlink()
    (tmp_path / ".lamina").rmdir()
    stored(tmp_path, kind="oauth", apiKey="lma_mcp_at_x", expiresAt="2026-11-23T00:00:00Z")
    with pytest.raises(CredentialsError, match="lamina login"):
        find(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        {"version": 2, "credentials": {"kind": "apikey", "apiKey": "lma_x"}},
        {"version": 1, "webhook": {}},
        {"version": 1, "credentials": {"kind": "apikey", "apiKey": ""}},
        {"version": 1, "credentials": {"kind": "other", "apiKey": "lma_x"}},
        [],
    ],
    ids=["version 2", "logged out", "empty key", "unknown kind", "no object"],
)
def test_a_file_that_holds_no_key_counts_as_none(tmp_path: Path, data: object) -> None:
    write(tmp_path, data)
    with pytest.raises(CredentialsError, match="no API key"):
        find(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lamina").mkdir()
    (tmp_path / ".lamina" / "config.json").write_text("{")
    with pytest.raises(CredentialsError, match=r"config\.json"):
        find(tmp_path)


@pytest.mark.parametrize("key", ["sk_123", "lma with space", "lma_é", '"lma_quoted"'])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(CredentialsError) as error:
        find(tmp_path, LAMINA_API_KEY=key)
    assert key not in str(error.value)


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    assert "lma_env" not in repr(find(tmp_path, LAMINA_API_KEY="lma_env"))


@pytest.mark.parametrize("url", ["app.uselamina.ai", "ftp://x", "https://", "https://x/?a=1", "https://u:p@x", ""])
def test_a_base_url_is_an_origin(url: str) -> None:
    with pytest.raises(UsageError):
        check_base_url(url)
