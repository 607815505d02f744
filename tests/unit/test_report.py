"""What the report gathers and how it is written: every text is text, and only what is safe becomes an address."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from catalog_support import Desk, app, image, options, text

from lamina_batch.catalog.check_rows import check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.results.manifest import gather_outcomes
from lamina_batch.results.report.contents import Medium, ReportContents, gather_report, relative_link, web_address
from lamina_batch.results.report.page import render
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

APP = app(image("Front"), image("Film", accept=["video"]), text("Prompt"), options("Gender", "Female", "Male"))
BODY = """
    name: autumn
    rows: {from: rows.csv, key: sku}
    inputs:
      Front: {column: front}
      Film: {column: film, blank: app_default}
      Prompt: {template: "{Product-Title} in soft light"}
      Gender: {column: gender}
    matrix: {Style: [Plain]}
    """
ROWS = """\
sku,Product-Title,front,film,gender
1,Dress,https://x/1.jpg,,Female
2,Shirt,https://x/2.jpg,https://x/2.mp4,Femal
3,Skirt,javascript:alert(1),,Male
4,Scarf,https://x/4.jpg,,Male
"""
MATRIX = text("Style")


def gathered(
    folder: Path, outputs: Sequence[tuple[Any, ...]], downloads: Sequence[tuple[Any, ...]] = (), **more: Any
) -> ReportContents:
    """A report in `folder` about ROWS, the first of which is job 1 of the ledger, and the last failed."""
    desk = Desk(folder)
    desk.write("rows.csv", ROWS)
    served = replace(APP, parameters=(*APP.parameters, *app(MATRIX).parameters))
    pipeline = desk.pipeline(BODY)
    catalog = read_catalog(pipeline)
    checked = check_rows(map_rows(catalog, pipeline, served), pipeline, served, service="sandbox")
    first, *_, last = checked.jobs["content"]
    ledger = ledger_frame(
        [
            (1, "1", "Style=Plain", 1, first, "completed", "an-app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (
                2,
                "4",
                "Style=Plain",
                1,
                last,
                "failed",
                "an-app",
                "c",
                "e2",
                1,
                0.0,
                1.5,
                1.5,
                0,
                "failed",
                "no luck",
                2,
            ),
        ]
    )
    outcomes = gather_outcomes(checked.jobs, ledger, outputs, downloads, app_id="an-app", share_identical=True)
    return gather_report(
        pipeline, served, catalog, checked, outcomes,
        service="sandbox", made_at="2026-01-31T00:00:00Z", folder=folder / "out", **more,
    )  # fmt: skip


def test_a_job_is_shown_with_what_was_sent_what_came_out_and_what_it_is_called(tmp_path: Path) -> None:
    saved = tmp_path / "out" / "pictures" / "a b:c.png"
    saved.parent.mkdir(parents=True)
    saved.touch()
    one = gathered(
        tmp_path,
        [
            (1, 0, "n1", "Front View", "image", "completed", "https://x/f.png", None),
            (1, 1, "n2", "Back View", "image", "completed", "https://x/b.png", None),
            (1, 2, "n3", "Side View", "pending", "error", None, "withheld"),
            (1, 3, "n4", "Caption", "text", "completed", "https://x is where", None),
            (1, 4, "n5", "Mesh", "model", "completed", "https://x/m.glb", None),
        ],
        [(1, 0, str(saved), "hash", None), (1, 1, str(tmp_path / "gone.png"), "hash", None)],
    ).jobs[0]
    assert (one.key, one.variant, one.title, one.status, one.row) == ("1", "Style=Plain", "Dress", "completed", 2)
    assert one.sources == (Medium(label="Front", kind="image", src="https://x/1.jpg"),)
    assert one.inputs == (("Prompt", "Dress in soft light"), ("Gender", "Female")), "in the pipeline's order"
    assert one.outputs == (
        Medium(label="Front View", kind="image", src="./pictures/a%20b%3Ac.png"),
        Medium(label="Back View", kind="image", src="https://x/b.png"),
        Medium(label="Side View", kind="image", error="withheld"),
        Medium(label="Mesh", kind="link", src="https://x/m.glb"),
        Medium(label="Caption", kind="text", text="https://x is where"),
    )
    assert one.execution_id == "e1"


def test_an_invalid_row_says_why_and_shows_what_its_cells_give(tmp_path: Path) -> None:
    contents = gathered(tmp_path, [])
    _, wrong, unlinked, failed = contents.jobs
    assert [reason.where for reason in wrong.reasons] == ["gender"]
    assert wrong.reasons[0].value == "Femal"
    assert "Female" in wrong.reasons[0].hint
    assert wrong.sources == (
        Medium(label="Front", kind="image", src="https://x/2.jpg"),
        Medium(label="Film", kind="video", src="https://x/2.mp4"),
    )
    assert unlinked.sources == (Medium(label="Front", kind="image", text="javascript:alert(1)"),)
    assert (failed.status, failed.message, failed.reasons) == ("failed", "no luck", ())
    assert contents.counts == {"completed": 1, "failed": 1, "invalid": 2}


def test_cells_that_are_no_text_are_shown_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write("rows.ndjson", '{"sku": "1", "fronts": ["https://x/1.jpg", "nowhere"], "name": 7}\n')
    pipeline = desk.pipeline("""
        rows: {from: rows.ndjson, key: sku}
        inputs: {Front: {column: fronts}, Prompt: {column: name}}
        """)
    served = app(image("Front", multiple=True), text("Prompt"))
    catalog = read_catalog(pipeline)
    checked = check_rows(map_rows(catalog, pipeline, served), pipeline, served, service="sandbox")
    outcomes = gather_outcomes(checked.jobs, ledger_frame([]), [], app_id="an-app", share_identical=True)
    [job] = gather_report(
        pipeline, served, catalog, checked, outcomes, service="sandbox", made_at="", folder=tmp_path
    ).jobs
    assert (job.status, job.title) == ("invalid", "7")
    assert [(medium.src, medium.text) for medium in job.sources] == [("https://x/1.jpg", None), (None, "nowhere")]
    assert job.inputs == (("Prompt", "7"),)


def test_an_invalid_row_shows_the_columns_that_the_pipeline_means_however_they_are_headed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write("rows.csv", "sku *,Name *,front *,B,mood\n1,Dress,https://x/1.jpg,https://x/2.jpg|https://x/3.jpg,\n")
    pipeline = desk.pipeline("""
        rows: {from: rows.csv, key: SKU}
        inputs: {Sides: {column: b, split: "|"}, front: {columns: [front]}, Mood: {column: mood}}
        """)
    served = app(image("Front"), image("Sides", multiple=True), text("Mood", required=True))
    catalog = read_catalog(pipeline)
    checked = check_rows(map_rows(catalog, pipeline, served), pipeline, served, service="sandbox")
    outcomes = gather_outcomes(checked.jobs, ledger_frame([]), [], app_id="an-app", share_identical=True)
    [job] = gather_report(
        pipeline, served, catalog, checked, outcomes, service="sandbox", made_at="", folder=tmp_path
    ).jobs
    assert (job.status, job.title, job.inputs) == ("invalid", "Dress", ())
    assert [(medium.label, medium.src) for medium in job.sources] == [
        ("Sides", "https://x/2.jpg"),
        ("Sides", "https://x/3.jpg"),
        ("Front", "https://x/1.jpg"),
    ]


def test_a_reason_is_in_the_words_of_the_marked_workbook(tmp_path: Path) -> None:
    _, wrong, unlinked, _ = gathered(tmp_path, []).jobs
    assert (wrong.reasons[0].message, wrong.reasons[0].hint) == (
        "“Femal” is not on the list",
        "did you mean 'Female'? the list has Female, Male",
    )
    assert unlinked.reasons[0].message == "This is no web address of a file"


@pytest.mark.parametrize(("limits", "keys"), [({"most_jobs": 3}, "234"), ({"most_characters": 1}, "2")])
def test_a_page_that_is_full_holds_what_needs_attention_first(tmp_path: Path, limits: Any, keys: str) -> None:
    contents = gathered(tmp_path, [], **limits)
    assert "".join(job.key for job in contents.jobs) == keys
    assert contents.total == 4, "all are counted"
    assert f"This page holds {len(keys)} of 4 jobs" in "".join(render(contents))


@pytest.mark.parametrize(
    "address",
    [
        *("javascript:x", "data:text/html,x", "//x/y.png", "file:///etc/passwd", "ftp://x/y", ""),
        *("https://", "https:x", " https://x/", "https://x/\u202e", "http://[x/"),
    ],
)
def test_what_is_no_web_address_is_never_linked(address: str) -> None:
    assert web_address(address) is None


def test_web_addresses_are_linked_as_they_stand() -> None:
    for address in ("https://x/a.png?b=c&d=%20", "HTTP://x/ä b.png", "https://x:8443/'\"<>"):
        assert web_address(address) == address


def test_a_saved_file_is_linked_from_where_the_page_is(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert relative_link(tmp_path / "pictures" / "1.png", folder) == "./../pictures/1.png"
    assert relative_link(folder / "javascript:x", folder) == "./javascript%3Ax"
    assert relative_link(folder / 'a"#?.png', folder) == "./a%22%23%3F.png"


class Tags(HTMLParser):
    """The page as an HTML parser sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_no_text_of_others_is_markup_and_the_policy_names_just_our_scripts(tmp_path: Path) -> None:
    plain = replace(gathered(tmp_path, []), service="https://x")
    hostile = "</script><script>x</script><img src=x onerror=y>\"'&\u2028"
    job = replace(plain.jobs[0], key=hostile, title=hostile, message=hostile, inputs=((hostile, hostile),))
    contents = replace(plain, jobs=(job,) * 4, pipeline=hostile, app_name=hostile, service=hostile, app_id=hostile)
    page = "".join(render(contents))
    assert [tag for tag, _ in Tags(page).tags] == [tag for tag, _ in Tags("".join(render(plain))).tags]
    _, data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data.isascii()
    assert json.loads(data)[0]["key"] == hostile
    [policy] = [found["content"] for tag, found in Tags(page).tags if "http-equiv" in found]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    hashes = [f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert f"script-src {' '.join(hashes)};" in unescape(policy or "")
    assert (policy or "").startswith("default-src 'none';")
