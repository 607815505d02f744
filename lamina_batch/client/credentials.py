"""Where the API key and the base URL come from: the environment, then the official tool's file (docs/lamina-api.md,
"Authentication").
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamina_batch.errors import CredentialsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_BASE_URL = "https://app.uselamina.ai"
_OAUTH_PREFIX = "lma_mcp_at_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key, and the service that it is for."""

    #: kept out of every repr, so that no traceback or log line can show it
    api_key: str = field(repr=False)
    #: origin without a trailing slash
    base_url: str
    #: for messages: where the key was found
    key_source: str


def find_credentials(
    environ: Mapping[str, str], home: Path, *, now: datetime, base_url: str | None = None
) -> Credentials:
    """Find the key in `LAMINA_API_KEY`, else in the file that the official tool writes; never refresh a token.

    A stored base URL counts only with a stored key (docs/lamina-api.md, "Credentials file"). Refreshing would rotate
    the token under the official tool, so an expired one is an error that names `lamina login`.

    Raises CredentialsError, and UsageError for an invalid base URL.
    """
    explicit = base_url or environ.get("LAMINA_BASE_URL") or None
    key = environ.get("LAMINA_API_KEY", "").strip()
    if key:
        return Credentials(
            api_key=_check_key(key, "LAMINA_API_KEY"),
            base_url=check_base_url(explicit or DEFAULT_BASE_URL),
            key_source="LAMINA_API_KEY",
        )
    file = home / ".lamina" / "config.json"
    stored = _read_stored(file)
    if stored is None:
        raise CredentialsError(
            "no API key",
            hint="set LAMINA_API_KEY, or run `lamina login` of the official tool; "
            "`--sandbox` tries everything without a key",
        )
    _refuse_expired(stored, now, file)
    stored_url = stored.get("baseUrl")
    return Credentials(
        api_key=_check_key(str(stored["apiKey"]), str(file)),
        base_url=check_base_url(
            explicit or (stored_url if isinstance(stored_url, str) and stored_url else DEFAULT_BASE_URL)
        ),
        key_source=str(file),
    )


def find_base_url(environ: Mapping[str, str], home: Path, *, now: datetime, base_url: str | None = None) -> str:
    """The origin that `find_credentials` would answer, also where there is no key. Raises UsageError."""
    try:
        return find_credentials(environ, home, now=now, base_url=base_url).base_url
    except CredentialsError:
        return check_base_url(base_url or environ.get("LAMINA_BASE_URL") or DEFAULT_BASE_URL)


def check_base_url(url: str) -> str:
    """The origin to call, without trailing slashes. Raises UsageError if it is not an absolute http(s) URL."""
    wrong = UsageError(f"not a base URL: {url!r}", hint=f"give an origin such as {DEFAULT_BASE_URL}, without a query")
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise wrong
        parts.port  # noqa: B018  # raises for a port that is none
    except ValueError:
        raise wrong from None
    if parts.path.rstrip("/").endswith("/v1"):
        raise UsageError(f"a base URL is without the version: {url!r}", hint="leave out /v1")
    if parts.username or parts.password:
        raise UsageError("the base URL holds a user name or password", hint="the API key goes in LAMINA_API_KEY")
    return url.strip().rstrip("/")


def _check_key(key: str, key_source: str) -> str:
    if not key.startswith("lma_") or not key.isascii() or any(c.isspace() for c in key):
        raise CredentialsError(
            f"the API key in {key_source} is not a valid key: it should start with lma_ and hold no spaces",
            hint="copy it again from the workspace settings of Lamina",
        )
    return key


def _read_stored(file: Path) -> Mapping[str, object] | None:
    """The `credentials` object of the file, or None if there is none this reader may use."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise CredentialsError(
            f"the official tool's file cannot be read: {exc.__class__.__name__}", where=str(file)
        ) from exc
    try:
        data = json.loads(text)
    except json.JSONDecodeError as exc:
        raise CredentialsError(
            "the official tool's file is not JSON", where=str(file), hint="run `lamina login` again"
        ) from exc
    if not isinstance(data, dict) or data.get("version") != 1:
        return None
    stored = data.get("credentials")
    if not isinstance(stored, dict) or not isinstance(stored.get("apiKey"), str) or not stored["apiKey"]:
        return None
    # A file from before `kind` was written is still good for a plain key (docs/lamina-api.md, "Credentials file").
    kind = stored.get("kind", "oauth" if stored["apiKey"].startswith(_OAUTH_PREFIX) else "apikey")
    return stored if kind in {"apikey", "oauth"} else None


def _refuse_expired(stored: Mapping[str, object], now: datetime, file: Path) -> None:
    expires = stored.get("expiresAt")
    if not isinstance(expires, str):
        return
    try:
        expires_at = datetime.fromisoformat(expires)
    except ValueError:
        return
    if expires_at.tzinfo is not None and expires_at <= now:
        raise CredentialsError(
            "the login of the official tool has expired", where=str(file), hint="run `lamina login` again"
        )
