"""A manifest read back: what it knows of each job, for a ledger that was lost."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina_batch.client.answers import Output
from lamina_batch.errors import UsageError
from lamina_batch.ledger.job import Job, State
from lamina_batch.results.manifest import PREFIX, output_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Without these a file is no manifest.
_REQUIRED_COLUMNS = tuple(
    PREFIX + name for name in ("key", "variant", "status", "execution_id", "app_id", "inputs_sha256")
)
#: Paid for, or nobody knows; what failed may be asked for again.
_BOUGHT_STATUSES = ("completed", "partial", "running", "timed_out", "held")
#: What was invalid or never sent was never paid for, and is not taken over.
_STATE_OF_STATUS = {
    "completed": State.COMPLETED,
    "partial": State.COMPLETED,
    "failed": State.FAILED,
    "rejected": State.REJECTED,
    "timed_out": State.TIMED_OUT,
    "running": State.RUNNING,
    "held": State.HELD,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestJob:
    """What a manifest tells of one job: the job, its outputs, and the files of those that were downloaded."""

    job: Job
    outputs: tuple[Output, ...]
    #: position of the output -> (file, SHA-256)
    files: dict[int, tuple[Path, str]]


def count_bought_rows(file: Path) -> int:
    """How many rows of the manifest at `file` were bought, or may have been; 0 if there is none that can be read."""
    if not file.exists():
        return 0
    try:
        names = [f"{PREFIX}{name}" for name in ("key", "variant", "status")]
        bought = _read_file(file, names).filter(pl.col(f"{PREFIX}status").is_in(_BOUGHT_STATUSES))
        return bought.select(names[:2]).unique().height
    except UsageError:
        return 0


def read_manifest(file: Path) -> list[ManifestJob]:
    """The jobs of a manifest, wide or long, each with its outputs, in its order.

    A row that took over the outputs of another one is told only where that other is not in the file. Raises
    UsageError where the file is no manifest.
    """
    table = _read_file(file)
    jobs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in table.iter_rows(named=True):
        if line[f"{PREFIX}status"] in _STATE_OF_STATUS and _SHA256.fullmatch(line[f"{PREFIX}inputs_sha256"] or ""):
            name = line[f"{PREFIX}key"] or "", line[f"{PREFIX}variant"] or "", line[f"{PREFIX}inputs_sha256"]
            jobs.setdefault(name, []).append(line)
    long = f"{PREFIX}output_id" in table.columns
    labels = () if long else tuple(name.removeprefix(PREFIX) for name in output_columns(table.columns))
    kept = [_make_job(lines, labels, long=long) for lines in jobs.values()]
    own = {one.job.content for one, lines in zip(kept, jobs.values(), strict=True) if not _is_reused(lines)}
    return [
        one
        for one, lines in zip(kept, jobs.values(), strict=True)
        if not _is_reused(lines) or one.job.content not in own
    ]


def _read_file(file: Path, names: Sequence[str] | None = None) -> pl.DataFrame:
    """Its columns of ours, or these of them, as text. Raises UsageError if the file is no manifest."""
    try:
        match file.suffix.lower():
            case ".csv":
                table = pl.scan_csv(file, infer_schema=False, glob=False)
            case ".parquet":
                table = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            case ".ndjson" | ".jsonl":
                table = pl.read_ndjson(file, infer_schema_length=None).lazy()
            case ".xlsx":
                table = _read_workbook(file).lazy()
            case _:
                raise UsageError("a manifest is .csv, .xlsx, .parquet or .ndjson", where=str(file))
        found = table.collect_schema().names()
        missing = [name for name in _REQUIRED_COLUMNS if name not in found]
        if missing:
            raise UsageError(
                f"this is no manifest: it has no column {missing[0]!r}",
                where=str(file),
                hint="give the file that a run wrote (`results.manifest` in the pipeline file)",
            )
        ours = [name for name in found if name.startswith(PREFIX) and (names is None or name in names)]
        taken = table.select(ours).collect().cast(pl.String)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"this manifest cannot be read: {error}", where=str(file)) from error
    if file.suffix.lower() == ".csv":
        # What was made harmless for spreadsheet programs is itself again.
        return taken.with_columns(pl.all().str.replace(r"^'([=+\-@\t\r])", "$1"))
    return taken


def _read_workbook(file: Path) -> pl.DataFrame:
    """The cells of the sheet as text. Raises UsageError if there is none that can be read."""
    # Only those need them who write workbooks.
    import fastexcel  # noqa: PLC0415

    from lamina_batch.results.workbook import SHEET  # noqa: PLC0415

    try:
        workbook = fastexcel.read_excel(file)
        if SHEET not in workbook.sheet_names:
            raise UsageError(f"this is no manifest: it has no sheet {SHEET!r}", where=str(file))
        return workbook.load_sheet(SHEET, dtypes="string").to_polars()
    except fastexcel.FastExcelError as error:
        raise UsageError(f"this manifest cannot be read: {error}", where=str(file)) from error


def _is_reused(lines: Sequence[dict[str, Any]]) -> bool:
    return bool(lines[0].get(f"{PREFIX}reused_from"))


def _make_job(lines: Sequence[dict[str, Any]], labels: Sequence[str], *, long: bool) -> ManifestJob:
    one = {name.removeprefix(PREFIX): value for name, value in lines[0].items()}
    told = (
        [{name.removeprefix(PREFIX): value for name, value in line.items()} for line in lines]
        if long
        else [_wide_output(one, label) for label in labels]
    )
    told = [output for output in told if output["value"] or output["error"] or output["output_id"]]
    outputs = tuple(_long_output(output, index) for index, output in enumerate(told))
    files = {
        index: (Path(output["file"]), _sha256(Path(output["file"])))
        for index, output in enumerate(told)
        if output["file"] and Path(output["file"]).is_file()
    }
    submitted = _parse_instant(one.get("submitted_at"))
    job = Job(
        id=0,
        key=one["key"] or "?",
        variant=one["variant"] or "",
        revision=1,
        content=one["inputs_sha256"],
        inputs="",
        state=_STATE_OF_STATUS[one["status"]],
        app_id=one["app_id"] or "",
        contract="",
        execution_id=one["execution_id"],
        submission=f"imported {one['inputs_sha256']}",
        attempts=max(1, int(_parse_number(one.get("attempts")) or 1)),
        submitted_at=submitted if submitted is not None else 0.0,
        completed_at=_parse_instant(one.get("completed_at")),
        seconds=_parse_number(one.get("seconds")),
        failed_outputs=sum(not output.usable for output in outputs) if one["status"] == "partial" else 0,
        code=one.get("code"),
        message=one.get("message"),
    )
    return ManifestJob(job=job, outputs=outputs, files=files)


def _wide_output(one: dict[str, Any], label: str) -> dict[str, Any]:
    """An output as the long layout would tell it."""
    value = one[label]
    return {
        "output_id": None,
        "label": label,
        "type": "text" if value and not re.match(r"https?://", value) else None,
        "value": value,
        "file": one[f"{label}_file"],
        "error": one[f"{label}_error"],
    }


def _long_output(told: dict[str, Any], index: int) -> Output:
    return Output(
        id=told["output_id"] or f"imported-{index + 1}",
        label=told["label"] or "",
        type=told["type"] or "unknown",
        status="completed" if told["value"] else "error",
        value=told["value"],
        error=None if told["value"] else told["error"],
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _parse_number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _parse_instant(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return None
