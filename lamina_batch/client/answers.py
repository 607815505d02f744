"""What the service says, made into values: tolerantly, and so that no answer can harm who reads it (API.md 2.5, 4, 11).

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

from lamina_batch.client.generations import EXECUTIONS, GENERATIONS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina_batch.client.generations import Generation

#: Deeper JSON than this is no answer of the API, and could exhaust the stack of whoever walks it.
_MOST_NESTED = 64
#: Greater whole numbers than this many digits mean nothing here, and take long to read.
_MOST_DIGITS = 40
#: Longer than this, nothing is an id that could be asked about, or a status that could be shown.
_MOST_ID = 512
_MOST_STATUS = 100
#: What stands for a character that the service did not encode rightly.
_BROKEN = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution. Labels are not unique; ids are (API.md section 4)."""

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
        return self.status == "completed" and bool(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
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
class Listed:
    """An execution as the list shows it: without inputs and outputs (API.md section 11)."""

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
class Page:
    """One page of the list, newest first."""

    items: tuple[Listed, ...]
    #: how many entries the service sent, those that cannot be read included: the next page begins so much later
    received: int
    #: how many there are on all pages; None: not said
    total: int | None


# -- the door --------------------------------------------------------------------------------------------------


def unpack(body: bytes, encoding: str, *, most: int) -> bytes:
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
    """The JSON of a body, with `cut` applied to every text in it; None where it is none, or nested beyond reason.

    NaN and the infinities, which JSON does not have, count as null. Halves of characters are replaced, so that every
    text can be encoded.
    """
    try:
        return _sane(json.loads(body, parse_constant=_nothing, parse_int=_whole), cut)
    except (ValueError, RecursionError):
        return None


def _nothing(_: str) -> None:
    return None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _sane(value: object, cut: Callable[[str], str], depth: int = 0) -> object:
    """The same, fit for use. Raises ValueError where it is nested too deep."""
    match value:
        case str():
            return cut(_encodable(value))
        case list() | dict() if depth == _MOST_NESTED:
            raise ValueError("nested too deep")
        case list():
            return [_sane(item, cut, depth + 1) for item in value]
        case dict():
            return {cut(_encodable(str(name))): _sane(item, cut, depth + 1) for name, item in value.items()}
        case _:
            return value


def _encodable(raw: str) -> str:
    if raw.isascii():
        return raw
    return raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# -- what comes through it -------------------------------------------------------------------------------------


def enveloped(body: object) -> object:
    """What is in the envelope `{"data": …}` of most answers; a body without one is taken as it is."""
    return body["data"] if isinstance(body, Mapping) and "data" in body else body


def objects(value: object) -> tuple[Mapping[str, object], ...]:
    """The objects in a list; nothing where it is none."""
    return tuple(v for v in value if isinstance(v, Mapping)) if isinstance(value, list) else ()


def text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def find_id(data: object, generation: Generation) -> str | None:
    """The id of the execution that an answer is about, by this generation's field or else by another's.

    An id means that something was bought: one that stands in an unexpected field must not be lost.
    """
    if not isinstance(data, Mapping):
        return None
    fields = (generation.id_field, *(other.id_field for other in GENERATIONS.values()))
    return next((found for found in (_identity(data.get(field)) for field in fields) if found is not None), None)


def parse_execution(data: object, generation: Generation, asked: str | None = None) -> Execution | None:
    """Build an Execution from what the service says, tolerantly; None where it holds no status (API.md 2.5, 4).

    `asked` is the id that was asked about. None also where the answer is about another: its pictures would end up with
    the wrong product.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("status"), str):
        return None
    told = _identity(data.get(generation.id_field))
    if asked is not None and told is not None and told.strip().casefold() != asked.strip().casefold():
        return None
    found = asked or find_id(data, generation)
    if found is None:
        return None
    status = _status(data)
    return Execution(
        execution_id=found,
        status=status,
        ended=status in generation.ended,
        outputs=tuple(_output(item, index) for index, item in enumerate(objects(data.get("outputs")))),
        error_message=text(data.get("errorMessage")) or None,
        created_at=_instant(data.get("createdAt")),
        completed_at=_instant(data.get("completedAt")),
        generation=generation.name,
    )


def parse_delivery(data: object) -> Execution | None:
    """Build an Execution from the body of a webhook (API.md sections 6 and 11); None where it is none.

    The body says by its id field which generation it is of. Where it names both, the newer one is taken.
    """
    try:
        told = enveloped(_sane(data, str))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, Mapping):
        return None
    for generation in (RUNS, EXECUTIONS):
        if _identity(told.get(generation.id_field)) is not None:
            return parse_execution(told, generation)
    return None


def parse_page(body: object, generation: Generation) -> Page | None:
    """Read one page of the list of executions (API.md section 11); None where it holds no list."""
    listed = enveloped(body)
    if not isinstance(listed, list):
        return None
    pagination = body.get("pagination") if isinstance(body, Mapping) else None
    total = pagination.get("total") if isinstance(pagination, Mapping) else None
    return Page(
        items=tuple(item for item in (_listed(entry, generation) for entry in objects(listed)) if item is not None),
        received=len(listed),
        total=total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None,
    )


def _listed(entry: Mapping[str, object], generation: Generation) -> Listed | None:
    found = find_id(entry, generation)
    if found is None:
        return None
    status = _status(entry)
    return Listed(
        execution_id=found,
        status=status,
        ended=status in generation.ended,
        created_at=_instant(entry.get("createdAt")),
        completed_at=_instant(entry.get("completedAt")),
        # The API calls an execution's app its workflow (API.md 2.4).
        app_id=_identity(entry.get("workflowId")) or _identity(entry.get("appId")),
    )


def _output(item: Mapping[str, object], index: int) -> Output:
    value = item.get("value")
    if value is not None and not isinstance(value, str):
        # The official SDK types it `unknown` (API.md section 4): keep what came rather than lose it.
        value = json.dumps(value, ensure_ascii=False)
    identity = str(item.get("id") or f"output-{index + 1}")
    return Output(
        id=identity,
        label=str(item.get("label") or identity),
        type=str(item.get("type") or "pending"),
        status=str(item.get("status") or "pending").strip().lower(),
        value=value or None,
        error=text(item.get("error")) or None,
    )


def _status(data: Mapping[str, object]) -> str:
    return (text(data.get("status")) or "").strip().lower()[:_MOST_STATUS]


def _identity(value: object) -> str | None:
    """An id that can be asked about; documented as a string, and nothing else is read as one but a number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS:
        return str(value)
    if not isinstance(value, str) or len(value) > _MOST_ID or _BROKEN in value:
        return None
    # Dots alone would lead to another path.
    return value if value.strip(" .\t\r\n") else None


def _instant(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo is not None else None
