"""A real Chromium that opens pages of ours, and remembers what it asked for and complained about.

Debian's package `chromium` is driven by playwright. On a desk without one these tests are skipped; in CI they fail.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from playwright.sync_api import sync_playwright
from process import PATIENCE, TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page

#: A browser in a container, that talks to nobody of its own accord.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: in milliseconds, as playwright has it
_PATIENCE = PATIENCE * 1000
#: What `make test` has npm fetch.
_AXE = TOP / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"


def missing(what: str) -> None:
    """Skip the test at a desk, and fail it in CI: what CI lacks nobody would notice."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser while the block runs. No event loop may run beside it: give it to the tests of one module at most."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("there is no Chromium (Debian: apt-get install chromium)")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS), timeout=_PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True, kw_only=True)
class Watched:
    """A page, and what it did."""

    page: Page
    #: errors and warnings of the console, and exceptions
    complaints: list[str] = field(default_factory=list)
    #: every address that was asked for
    requests: list[str] = field(default_factory=list)

    def findings_of_axe(self) -> list[str]:
        """What axe-core finds serious or critical here and now, with every rule on."""
        if not _AXE.exists():
            missing("there is no axe-core (`make test` fetches it with npm)")
        self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in found["violations"]
            if violation["impact"] in {"serious", "critical"}
            for node in violation["nodes"]
        ]


@contextmanager
def opened(
    browser: Browser,
    file: Path | str,
    *,
    size: tuple[int, int] = (1440, 900),
    scheme: Literal["light", "dark"] = "light",
    web: bytes | None = None,
) -> Iterator[Watched]:
    """Open a file (or an address) as a visitor of its own would; `web` is a PNG that every http(s) address answers."""
    with browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        accept_downloads=True,
        reduced_motion="reduce",
    ) as context:
        if web is not None:
            context.route(re.compile("^https?:"), lambda route: route.fulfill(body=web, content_type="image/png"))
        context.set_default_timeout(_PATIENCE)
        page = context.new_page()
        watched = Watched(page=page)

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                watched.complaints.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(file.as_uri() if isinstance(file, Path) else file)
        yield watched
