"""The report in a real browser: quick at 5,000 rows, readable by everybody, and nobody's text is ever markup."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jsonschema
import pytest
from browser_support import Watched, opened
from PIL import Image
from process import PATIENCE, TOP

from lamina_batch.results.report.contents import Medium, Reason, ReportContents, ReportJob
from lamina_batch.results.report.page import write_report
from lamina_batch.results.summary import STATUSES

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

ROWS = 5_000
ELEMENTS = "document.getElementsByTagName('*').length"
VIEWS = ("Front View", "Back View", "Side View")


def picture(label: str, src: str | None = "./picture.png", **more: Any) -> Medium:
    return Medium(label=label, kind="image", src=src, **more)


def job(number: int, **changes: Any) -> ReportJob:
    values: dict[str, Any] = {
        "row": number + 1,
        "source": None,
        "key": f"{number:05}",
        "variant": "Location=Park",
        "title": f"Dress {number}",
        "status": "completed",
        "message": None,
        "sources": (picture("Front", "./source.png"),),
        "inputs": (("Prompt", f"Dress {number} in soft light"),),
        "outputs": tuple(picture(view) for view in VIEWS),
        "reasons": (),
        "inputs_sha256": f"{number:064x}",
        "execution_id": f"execution-{number}",
        "reused_from": None,
    }
    return ReportJob(**values | changes)


def report(folder: Path, jobs: list[ReportJob], **changes: Any) -> Path:
    """A page about these jobs, with its pictures beside it."""
    Image.new("RGB", (80, 100), "#88a0b8").save(folder / "picture.png")
    Image.new("RGB", (60, 60), "#b8a088").save(folder / "source.png")
    counts = {status: sum(job.status == status for job in jobs) for status in STATUSES}
    values: dict[str, Any] = {
        "pipeline": "autumn",
        "file": "catalog.yaml",
        "app_id": "app-1",
        "app_name": "Premium Catalog 1.0",
        "service": "https://example.com",
        "made_at": "2026-05-01T10:00:00Z",
        "counts": {status: count for status, count in counts.items() if count},
        "jobs": tuple(jobs),
    }
    return write_report(ReportContents(**values | changes), folder / "report.html")


def every_kind() -> list[ReportJob]:
    """A job of every status, and an output of every kind."""
    model = Medium(label="Model", kind="link", src="https://example.com/model.glb")
    bad = Reason(where="gender", value="Femal", message="is no option of 'Model Gender'", hint="did you mean 'Female'?")
    return [
        job(1),
        job(2, status="partial", outputs=(picture("Front View"), picture("Back View", None, error="withheld"))),
        job(3, status="failed", message="Image generation timed out", outputs=()),
        job(4, status="rejected", message="Prompt: too long", outputs=()),
        job(5, status="invalid", outputs=(), reasons=(bad,), inputs_sha256=None, execution_id=None),
        job(6, status="held", message="the connection was reset", outputs=()),
        job(7, status="timed_out", message="did not end within 45m", outputs=()),
        job(8, status="running", outputs=()),
        job(9, status="planned", outputs=(), execution_id=None),
        job(10, outputs=(Medium(label="Caption", kind="text", text="For you."), picture("Front", error="not saved"))),
        job(11, title=None, variant="", outputs=(picture("Front", "./gone.png"), model)),
    ]  # fmt: skip


def cards(watched: Watched) -> list[str]:
    """The keys of the rows that are there."""
    found = watched.page.locator(".card .key > span:first-child").all_inner_texts()
    return [text for text in found if not text.startswith("row")]


def elements(watched: Watched) -> int:
    count: int = watched.page.evaluate(ELEMENTS)
    return count


def test_five_thousand_rows_are_there_as_far_as_they_are_seen(browser: Browser, tmp_path: Path) -> None:
    failed = {"status": "failed", "outputs": ()}
    rows = [job(number, **({} if number % 50 else failed)) for number in range(1, ROWS + 1)]
    file = report(tmp_path, rows)
    with opened(browser, file) as watched:
        page = watched.page
        page.get_by_role("heading", name="Dress 1", exact=True).wait_for()
        page.locator("img.there").first.wait_for()
        assert elements(watched) < 6_000, "what is not near is not there"
        for _ in range(40):
            page.evaluate("scrollBy(0, 2500)")
            page.wait_for_timeout(30)
        # What was left behind is gone again.
        page.wait_for_function(f"{ELEMENTS} < 6000")
        last = page.get_by_role("heading", name=f"Dress {ROWS}", exact=True)
        until = time.monotonic() + PATIENCE
        while not last.is_visible():
            assert time.monotonic() < until, "the last row is not there"
            # Rows are as high as was guessed until they are there.
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_timeout(50)
        page.wait_for_function(f"{ELEMENTS} < 6000")
        page.keyboard.press("Home")
        page.get_by_role("heading", name="Dress 1", exact=True).wait_for()
        page.get_by_role("button", name="Failed 100").click()
        page.get_by_text("100 of 5,000", exact=True).wait_for()
        assert cards(watched)[:2] == ["00050", "00100"]
        page.get_by_role("searchbox").fill("dress 4950 LIGHT")
        page.get_by_text("1 of 5,000", exact=True).wait_for()
        assert cards(watched) == ["04950"]
        page.get_by_role("searchbox").fill("no such thing")
        page.get_by_text("Nothing here fits the filters.").wait_for()
        assert watched.complaints == []
        assert {unquote(url) for url in watched.requests} == {
            url.as_uri() for url in (file, tmp_path / "picture.png", tmp_path / "source.png")
        }, "nothing is asked of anybody but the pictures"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    with opened(browser, report(tmp_path, every_kind()), scheme=scheme) as watched:
        page = watched.page
        page.keyboard.press("End")
        page.get_by_text("Picture not loaded").wait_for()
        assert watched.findings_of_axe() == []
        page.keyboard.press("Home")
        page.locator("[data-position='0']").get_by_role("button", name="Pick").click()
        page.locator("[data-position='1']").get_by_role("button", name="Reject").click()
        page.get_by_role("button", name="Failed 1").click()
        page.get_by_role("button", name="Failed 1").click()
        assert watched.findings_of_axe() == []
        page.get_by_role("button", name="Front View of 00001").click()
        page.get_by_role("dialog", name="Picture").wait_for()
        assert watched.findings_of_axe() == []
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert watched.findings_of_axe() == []


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, tmp_path: Path) -> None:
    long = job(12, key="k" * 90, title="t" * 200, inputs=(("Prompt", "p" * 900),), variant="Location=" + "v" * 80)
    with opened(browser, report(tmp_path, [*every_kind(), long]), size=(360, 740)) as watched:
        watched.page.locator("img.there").first.wait_for()
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360
        assert watched.findings_of_axe() == []


HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    '"><img src=x onerror="window.pwned = 3">',
    "<!-- <script> --> {{ 7 * 7 }} {% raw %}",
    "' onmouseover='window.pwned = 4",
    "\u202etxet desrever\u2066 \u2028 \u0000 &amp; &lt;b&gt;",
)
BAD_ADDRESSES = (
    "javascript:window.pwned=5",
    "JaVaScRiPt:window.pwned=6",
    "data:text/html,<script>window.pwned=7</script>",
    "vbscript:x",
    "//evil.example/x.png",
    "file:///etc/passwd",
    "\tjavascript:window.pwned=8",
)


def test_hostile_texts_and_addresses_stay_text(browser: Browser, tmp_path: Path) -> None:
    jobs = [
        job(
            number, key=text, title=text, variant=f"{text}={text}", message=text, status="partial",
            inputs=((text, text),), reused_from=text,
            sources=tuple(picture(text, address) for address in BAD_ADDRESSES),
            outputs=(
                *(picture(text, address) for address in BAD_ADDRESSES),
                *(Medium(label=text, kind="link", src=address) for address in BAD_ADDRESSES),
                *(Medium(label=text, kind="video", src=address) for address in BAD_ADDRESSES),
                Medium(label=text, kind="text", text=text), picture(text, error=text),
            ),
        )
        for number, text in enumerate(HOSTILE, start=1)
    ]  # fmt: skip
    reasons = tuple(Reason(where=text, value=text, message=text, hint=text) for text in HOSTILE)
    jobs.append(job(99, status="invalid", sources=(), outputs=(), reasons=reasons))
    file = report(tmp_path, jobs, pipeline=HOSTILE[1], app_name=HOSTILE[2], app_id=HOSTILE[3], service=HOSTILE[0])
    with opened(browser, file) as watched:
        page = watched.page
        page.locator(".card img").first.scroll_into_view_if_needed()
        page.locator("img.there").first.wait_for()
        assert page.title() == HOSTILE[1]
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # so that all are there
        shown = page.locator(".card h2").evaluate_all("all => all.map(one => one.textContent)")
        assert shown[:-1] == list(HOSTILE)
        page.keyboard.press("j")
        page.keyboard.press("p")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        page.get_by_role("searchbox").fill("onerror")
        addresses = page.evaluate(
            "[...document.querySelectorAll('[src], [href]')].map(e => e.getAttribute('src') ?? e.getAttribute('href'))"
        )
        assert {address for address in addresses if not re.match(r"\./|#jobs$|data:image/svg", address)} == set()
        assert page.evaluate("window.pwned") is None
        assert page.evaluate("document.querySelectorAll('[onerror], [onmouseover]').length") == 0
        assert watched.complaints == []
        assert {url.rpartition("/")[2] for url in watched.requests} == {"report.html", "picture.png"}


def test_the_keyboard_does_all_of_it_and_verdicts_outlive_the_page(browser: Browser, tmp_path: Path) -> None:
    file = report(tmp_path, [job(number) for number in range(1, 31)])
    with opened(browser, file) as watched:
        page = watched.page
        page.keyboard.press("j")
        page.keyboard.press("p")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("r")
        page.keyboard.press("n")
        page.keyboard.type("too dark, p r j k /")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("r")
        page.keyboard.press("r")  # taken back
        page.keyboard.press("k")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.dataset.position") == "0"
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.dataset.position") == "29"
        page.keyboard.press("Enter")
        page.locator("#lightbox[open]").wait_for()
        page.keyboard.press("r")
        page.keyboard.press("ArrowRight")
        assert page.locator("#caption-more").inner_text().endswith("2 of 4")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")  # the row before
        assert "00029" in page.locator("#caption-more").inner_text()
        page.keyboard.press("Escape")
        page.locator("[data-position='28']:focus").wait_for()
        page.keyboard.press("/")
        page.keyboard.type("dress 2")
        page.get_by_text("12 of 30", exact=True).wait_for()
        page.keyboard.press("Escape")
        page.reload()
        page.locator(".card.is-pick").first.wait_for()
        assert page.locator("[data-position='1'] .note").input_value() == "too dark, p r j k /"
        with page.expect_download() as download:
            page.get_by_role("button", name="Save verdicts").click()
        saved = json.loads(download.value.path().read_bytes())
        jsonschema.validate(saved, json.loads((TOP / "schemas" / "picks.schema.json").read_bytes()))
        assert download.value.suggested_filename == "autumn-picks.json"
        assert [(p["key"], p["verdict"], p["note"]) for p in saved["picks"]] == [
            ("00001", "pick", ""), ("00002", "reject", "too dark, p r j k /"), ("00030", "reject", ""),
        ]  # fmt: skip
        assert watched.complaints == []


def test_a_verdict_is_about_what_was_looked_at(browser: Browser, tmp_path: Path) -> None:
    file = report(tmp_path, [job(1), job(2)])
    with opened(browser, file) as watched:
        page = watched.page
        page.keyboard.press("j")
        page.keyboard.press("r")
        page.locator("[data-position='0'] .note").fill("crop is wrong")
        report(tmp_path, [job(1, execution_id="another"), job(2)])
        page.reload()
        page.get_by_text("Rejected before it was made again").wait_for()
        assert "crop is wrong" in page.locator("[data-position='0'] .earlier").inner_text()
        assert page.locator(".is-reject").count() == 0
        assert page.get_by_role("button", name="To judge 2").count() == 1


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("sandbox", "The pictures of sample rows do not exist; another address may have expired."),
        ("https://example.com", "Its address may have expired."),
    ],
)
def test_a_source_that_is_not_there_is_explained(browser: Browser, tmp_path: Path, service: str, words: str) -> None:
    sent = (picture("Front", "http://127.0.0.1:9/front.jpg"),)
    with opened(browser, report(tmp_path, [job(1, sources=sent)], service=service)) as watched:
        assert watched.page.locator(".sources .gone span").first.inner_text() == words


def test_on_paper_the_rows_are_whole_and_the_controls_are_gone(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, report(tmp_path, [job(number) for number in range(1, 41)])) as watched:
        page = watched.page
        page.keyboard.press("j")
        page.keyboard.press("r")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator(".card").count() == 40
        assert page.locator("#toolbar").is_hidden()
        assert page.locator(".print-verdict").is_visible()
        assert len(page.pdf()) > 10_000
