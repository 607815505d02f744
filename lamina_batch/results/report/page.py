"""The gathered report -> one self-contained HTML page.

Nothing of the catalog or the service is markup: the template escapes it, and the page's script builds what it shows out
of text nodes. The policy in the page's head lets only our own script and styles run, and only media be loaded.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import DictLoader, Environment, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from lamina_batch.atomic_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamina_batch.results.report.contents import Medium, ReportContents, ReportJob

#: status -> what the page calls it. "Rejected" is the verdict of who looks at it, not the service's.
PAGE_TEXTS = {
    "completed": "Completed",
    "partial": "Partial",
    "failed": "Failed",
    "rejected": "Refused",
    "invalid": "Invalid",
    "held": "Held",
    "timed_out": "Timed out",
    "running": "Running",
    "planned": "Planned",
}


def write_report(contents: ReportContents, file: Path) -> Path:
    """Write the page. Returns where it stands. Raises StateError if it cannot be written."""
    return write_whole(file, lambda aside: _write_page(aside, contents))


def _write_page(file: Path, contents: ReportContents) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(render(contents))


def render(contents: ReportContents) -> Iterator[str]:
    """The page, piece by piece, so that it is never in memory twice."""
    parts = resources.files("lamina_batch.results.report")
    texts = {name: parts.joinpath(name).read_text(encoding="utf-8") for name in (_PAGE, _STYLE, _EARLY, _SCRIPT)}
    environment = Environment(
        loader=DictLoader({_PAGE: texts[_PAGE]}), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, early, script = (f"\n{texts[name]}" for name in (_STYLE, _EARLY, _SCRIPT))
    return environment.get_template(_PAGE).generate(
        contents=contents,
        words=PAGE_TEXTS,
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src {_csp_hash(early)} {_csp_hash(script)}",
                f"style-src {_csp_hash(style)}",
                f"img-src {_MEDIA_SOURCES} data:",
                f"media-src {_MEDIA_SOURCES}",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        style=style,
        early=early,
        script=script,
        head=_script_json({name: getattr(contents, name) for name in ("pipeline", "file", "app_id", "service")}),
        jobs=(_script_json(_job_entry(job)) for job in contents.jobs),
    )


_PAGE, _STYLE, _EARLY, _SCRIPT = "page.html", "page.css", "early.js", "page.js"
#: The page may be opened from a disk or from a server.
_MEDIA_SOURCES = "'self' file: http: https:"


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script_json(value: object) -> str:
    """JSON that no HTML parser takes for markup, and that is ASCII throughout."""
    return htmlsafe_json_dumps(value, separators=(",", ":"))


def _job_entry(job: ReportJob) -> dict[str, Any]:
    """What the page's script reads; what there is nothing of is left out."""
    entry = {
        "row": job.row,
        "source": job.source,
        "key": job.key,
        "variant": job.variant,
        "title": job.title,
        "status": job.status,
        "message": job.message,
        "sources": [_medium_entry(medium) for medium in job.sources],
        "inputs": job.inputs,
        "outputs": [_medium_entry(medium) for medium in job.outputs],
        "reasons": [[reason.where, reason.value, reason.message, reason.hint] for reason in job.reasons],
        "sha": job.inputs_sha256,
        "execution": job.execution_id,
        "reused": job.reused_from,
    }
    return {name: value for name, value in entry.items() if value or name in {"key", "variant"}}


def _medium_entry(medium: Medium) -> dict[str, str]:
    entry = {
        "label": medium.label,
        "kind": medium.kind,
        "src": medium.src,
        "text": medium.text,
        "error": medium.error,
    }
    return {name: value for name, value in entry.items() if value}
