"""What an address tells by itself: until when it is good, who can reach it, whose share link it is. Pure."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Reserved names for examples and tests (RFC 2606, RFC 6761).
_EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org", "example", "test", "invalid")
#: Names that mean something at home only.
_LOCAL_DOMAINS = ("localhost", "local", "internal", "lan", "intranet", "home.arpa")
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"


def host(url: str) -> str:
    """The name of the host in lower case; "" if it cannot be read."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_example(url: str) -> bool:
    """Whether its host is a reserved example name."""
    return _is_in_domain(host(url), _EXAMPLE_DOMAINS)


def is_public_name(url: str) -> bool:
    """Whether its host has a name that the whole internet may know, and not a number."""
    name = host(url)
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return False
    return name != "" and not is_private(url)


def is_private(url: str) -> bool:
    """Whether only this machine or its own network can know this host, by its very name or number."""
    name = host(url)
    with suppress(ValueError):
        return not ipaddress.ip_address(name).is_global
    return _is_in_domain(name, _LOCAL_DOMAINS) or (name != "" and "." not in name and not is_example(url))


def expires_at(url: str) -> datetime | None:
    """When the signature in this URL lapses; None: it holds none that we know."""
    try:
        query = {name.lower(): values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    except ValueError:
        return None
    # A number or a date that is none tells nothing; nor does one that lies beyond the calendar.
    with suppress(ValueError, OverflowError, OSError):
        for vendor in ("amz", "goog"):
            if f"x-{vendor}-signature" in query and f"x-{vendor}-expires" in query:
                signed = datetime.strptime(query.get(f"x-{vendor}-date", ""), _TIME_FORMAT).replace(tzinfo=UTC)
                return signed + timedelta(seconds=int(query[f"x-{vendor}-expires"]))
        if "se" in query and "sig" in query:
            until = datetime.fromisoformat(query["se"])
            return until if until.tzinfo else until.replace(tzinfo=UTC)
        if "expires" in query and {"signature", "sig"} & set(query):
            return datetime.fromtimestamp(int(query["expires"]), UTC)
    return None


def share_hint(url: str) -> str:
    """How to get at the file behind a share link, where a web page answers; "" where we do not know the host."""
    name = host(url)
    for hosts, hint in _SHARE_HINTS.items():
        if _is_in_domain(name, hosts):
            return hint
    if _is_in_domain(name, ("drive.google.com", "docs.google.com")):
        return _drive_hint(url)
    return ""


_SHARE_HINTS: Mapping[tuple[str, ...], str] = {
    ("dropbox.com",): "a Dropbox link gives the file itself when it ends in `raw=1` in place of `dl=0`",
    (
        "sharepoint.com",
    ): "a SharePoint link mostly gives the file itself when `download=1` is added behind its `?` or an `&`, and "
    "anyone with the link may see it",
    (
        "onedrive.live.com",
        "1drv.ms",
        "photos.google.com",
        "photos.app.goo.gl",
        "icloud.com",
        "wetransfer.com",
        "we.tl",
    ): (
        "this host shows its files on pages only: put the pictures where each has an address of its own, such as a web "
        "shop or a storage bucket"
    ),
    ("accounts.google.com", "login.microsoftonline.com", "login.live.com"): "it asks for a login: let anyone with the "
    "link see the file",
}
_DRIVE_ID = re.compile(r"(?:/d/|[?&]id=)([A-Za-z0-9_-]{10,})")


def _drive_hint(url: str) -> str:
    found = _DRIVE_ID.search(url)
    if found is None:
        return "a link to a Google Drive folder gives no file: share each picture by a link of its own"
    return (
        "a Google Drive link shows a page; share the file with anyone who has the link, and write "
        f"https://drive.google.com/uc?export=download&id={found[1]}"
    )


def _is_in_domain(name: str, domains: tuple[str, ...]) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)
