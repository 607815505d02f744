"""What the service says, made into values: tolerantly, and so that no answer can harm who reads it (docs/lamina-api.md,
"Get execution", "Outputs" and "The runs API").

Bodies come from outside. `unpack` and `read_json` are the door: what is past them is bounded in size and depth, can be
written anywhere, and does not hold the key. The parsers never raise, whatever JSON they are given.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from lamina_batch.client.generations import API_VERSIONS, EXECUTIONS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina_batch.client.generations import ApiVersion

#: Deeper JSON than this is no answer of the API, and could exhaust the stack of whoever walks it.
_MAX_NESTING = 64
#: Greater whole numbers than this many digits mean nothing here, and take long to read.
_MAX_DIGITS = 40
#: Longer than this, nothing is an id that could be asked about, or a status that could be shown.
_MAX_ID_LENGTH = 512
_MAX_STATUS_LENGTH = 100
#: Replaces a character that the service encoded wrongly.
_REPLACEMENT_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution. Labels are not unique; ids are (docs/lamina-api.md, "Outputs")."""

    id: str
    label: str
    #: image, video, text, and whatever comes; `pending` also for one that failed
    type: str
    status: str
    #: a URL, or the text itself
    value: str | None
    error: str | None

    @property
    def usable(self) -> bool:
        """Whether the output is completed and has a value."""
        return self.status == "completed" and bool(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """An execution as the service reports it."""

    execution_id: str
    #: lower case, as the service says it; an unknown one is not an end
    status: str
    ended: bool
    outputs: tuple[Output, ...] = ()
    error_message: str | None = None
    #: epoch seconds by the service's clock
    created_at: float | None = None
    #: epoch seconds by the service's clock
    completed_at: float | None = None
    #: name of the API generation that told this
    generation: str = EXECUTIONS.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedExecution:
    """An execution as the list shows it: without inputs and outputs (docs/lamina-api.md, "List of runs")."""

    execution_id: str
    #: lower case, as the service says it; empty: it does not say
    status: str
    ended: bool
    #: epoch seconds by the service's clock
    created_at: float | None = None
    #: epoch seconds by the service's clock
    completed_at: float | None = None
    app_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPage:
    """One page of the list, newest first."""

    items: tuple[ListedExecution, ...]
    #: how many entries the service sent, those that cannot be read included: the next page begins so much later
    received: int
    #: how many there are on all pages; None: not said
    total: int | None


# -- the door --------------------------------------------------------------------------------------------------


def decode_body(body: bytes, encoding: str, *, most: int) -> bytes:
    """The body without its Content-Encoding, at most `most` bytes of it.

    No encoding is asked for, but one that Python reads is understood. A body that breaks off gives what came of it.
    Raises ValueError, with words for people, where it is more, or cannot be read.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise ValueError("its answer is encoded in a way that was not asked for")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = unpacker.decompress(body, most)
    except zlib.error:
        raise ValueError("its answer cannot be unpacked") from None
    if unpacker.unconsumed_tail:
        raise ValueError("its answer does not end")
    return unpacked


def read_json(body: bytes, cut: Callable[[str], str] = str) -> object:
    """The JSON of a body, with `cut` applied to every text in it; None if it is none, or nested beyond reason.

    NaN and the infinities, which JSON does not have, count as null. Halves of characters are replaced, so that every
    text can be encoded.
    """
    try:
        return _sanitize(json.loads(body, parse_constant=_read_constant_as_null, parse_int=_parse_integer), cut)
    except (ValueError, RecursionError):
        return None


def _read_constant_as_null(_: str) -> None:
    return None


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _sanitize(value: object, cut: Callable[[str], str], depth: int = 0) -> object:
    """The same, fit for use. Raises ValueError if it is nested too deep."""
    match value:
        case str():
            return cut(_replace_surrogates(value))
        case list() | dict() if depth == _MAX_NESTING:
            raise ValueError("nested too deep")
        case list():
            return [_sanitize(item, cut, depth + 1) for item in value]
        case dict():
            return {
                cut(_replace_surrogates(str(name))): _sanitize(item, cut, depth + 1) for name, item in value.items()
            }
        case _:
            return value


def _replace_surrogates(raw: str) -> str:
    if raw.isascii():
        return raw
    return raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# -- what comes through it -------------------------------------------------------------------------------------


def unwrap_data(body: object) -> object:
    """What is in the envelope `{"data": …}` of most answers; a body without one is taken as it is."""
    return body["data"] if isinstance(body, Mapping) and "data" in body else body


def only_objects(value: object) -> tuple[Mapping[str, object], ...]:
    """The objects in a list; empty if it is no list."""
    return tuple(v for v in value if isinstance(v, Mapping)) if isinstance(value, list) else ()


def optional_text(value: object) -> str | None:
    """The value if it is a text."""
    return value if isinstance(value, str) else None


def read_execution_id(data: object, generation: ApiVersion) -> str | None:
    """The id of the execution that an answer is about, by this generation's field or else by another's.

    An id means that something was bought: one that stands in an unexpected field must not be lost.
    """
    if not isinstance(data, Mapping):
        return None
    fields = (generation.id_field, *(other.id_field for other in API_VERSIONS.values()))
    return next((found for found in (_parse_id(data.get(field)) for field in fields) if found is not None), None)


def parse_execution(data: object, generation: ApiVersion, asked: str | None = None) -> Execution | None:
    """Build an Execution from what the service says, tolerantly; None if it holds no status (docs/lamina-api.md,
    "Get execution" and "Outputs").

    `asked` is the id that was asked about. None also where the answer is about another: its pictures would end up with
    the wrong product.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("status"), str):
        return None
    told = _parse_id(data.get(generation.id_field))
    if asked is not None and told is not None and told.strip().casefold() != asked.strip().casefold():
        return None
    found = asked or read_execution_id(data, generation)
    if found is None:
        return None
    status = _parse_status(data)
    return Execution(
        execution_id=found,
        status=status,
        ended=status in generation.ended,
        outputs=tuple(_parse_output(item, index) for index, item in enumerate(only_objects(data.get("outputs")))),
        error_message=optional_text(data.get("errorMessage")) or None,
        created_at=_parse_instant(data.get("createdAt")),
        completed_at=_parse_instant(data.get("completedAt")),
        generation=generation.name,
    )


def parse_delivery(data: object) -> Execution | None:
    """Build an Execution from the body of a webhook (docs/lamina-api.md, "Webhooks" and "The runs API"); None if it is
    none.

    The body says by its id field which generation it is of. Where it names both, the newer one is taken.
    """
    try:
        told = unwrap_data(_sanitize(data, str))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, Mapping):
        return None
    for generation in (RUNS, EXECUTIONS):
        if _parse_id(told.get(generation.id_field)) is not None:
            return parse_execution(told, generation)
    return None


def parse_page(body: object, generation: ApiVersion) -> ExecutionPage | None:
    """Read one page of the list of executions (docs/lamina-api.md, "List of runs"); None if it holds no list."""
    listed = unwrap_data(body)
    if not isinstance(listed, list):
        return None
    pagination = body.get("pagination") if isinstance(body, Mapping) else None
    total = pagination.get("total") if isinstance(pagination, Mapping) else None
    return ExecutionPage(
        items=tuple(
            item for item in (_parse_listed(entry, generation) for entry in only_objects(listed)) if item is not None
        ),
        received=len(listed),
        total=total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None,
    )


def _parse_listed(entry: Mapping[str, object], generation: ApiVersion) -> ListedExecution | None:
    found = read_execution_id(entry, generation)
    if found is None:
        return None
    status = _parse_status(entry)
    return ListedExecution(
        execution_id=found,
        status=status,
        ended=status in generation.ended,
        created_at=_parse_instant(entry.get("createdAt")),
        completed_at=_parse_instant(entry.get("completedAt")),
        # The API calls an execution's app its workflow (docs/lamina-api.md, "Start execution").
        app_id=_parse_id(entry.get("workflowId")) or _parse_id(entry.get("appId")),
    )


def _parse_output(item: Mapping[str, object], index: int) -> Output:
    value = item.get("value")
    if value is not None and not isinstance(value, str):
        # The official SDK types it `unknown` (docs/lamina-api.md, "Outputs"): keep what came rather than lose it.
        value = json.dumps(value, ensure_ascii=False)
    identity = str(item.get("id") or f"output-{index + 1}")
    return Output(
        id=identity,
        label=str(item.get("label") or identity),
        type=str(item.get("type") or "pending"),
        status=str(item.get("status") or "pending").strip().lower(),
        value=value or None,
        error=optional_text(item.get("error")) or None,
    )


def _parse_status(data: Mapping[str, object]) -> str:
    return (optional_text(data.get("status")) or "").strip().lower()[:_MAX_STATUS_LENGTH]


def _parse_id(value: object) -> str | None:
    """An id that can be asked about; documented as a string, and nothing else is read as one but a number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MAX_DIGITS:
        return str(value)
    if not isinstance(value, str) or len(value) > _MAX_ID_LENGTH or _REPLACEMENT_CHARACTER in value:
        return None
    # Dots alone would lead to another path.
    return value if value.strip(" .\t\r\n") else None


def _parse_instant(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo is not None else None
