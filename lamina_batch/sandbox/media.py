"""The outputs' files, served as a storage service does: signed, expiring, in ranges, and without any key."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from lamina_batch.sandbox.cards import card_for, card_size, draw_card, main_title
from lamina_batch.sandbox.executions import finished_output_count, requested_outputs
from lamina_batch.sandbox.inputs import inputs_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.apps import OutputKind, SandboxApp, SandboxOutput
    from lamina_batch.sandbox.cards import Card
    from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
    from lamina_batch.sandbox.signed_urls import LinkSigner

_EXTENSIONS: Mapping[OutputKind, str] = {"image": "png", "video": "mp4"}
_CONTENT_TYPES: Mapping[OutputKind, str] = {"image": "image/png", "video": "video/mp4", "text": "text/plain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaReply:
    """A reply of the file host."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRequest:
    """A request to the file host."""

    #: as in /media/{execution_id}/{file_name}
    execution_id: str
    file_name: str
    expires: str = ""
    signature: str = ""
    #: the headers Range, If-Range and If-None-Match
    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


class MediaStore:
    """Draws or finds the file behind an output's URL. Files are made when they are asked for."""

    def __init__(
        self,
        *,
        apps: Mapping[str, SandboxApp],
        executions: ExecutionStore,
        signer: LinkSigner,
        url_lifetime: float,
    ) -> None:
        self._apps = apps
        self._executions = executions
        self._signer = signer
        self._url_lifetime = url_lifetime
        folder = resources.files("lamina_batch.sandbox").joinpath("clips")
        self._clips = sorted((clip for clip in folder.iterdir() if clip.name.endswith(".mp4")), key=str)
        # The pages and the parts of one file are asked for one after the other: HEAD, GET, ranges.
        self._file = lru_cache(maxsize=32)(self._make_file)

    def value_of(self, base_url: str, execution: SandboxExecution, output: SandboxOutput) -> str:
        """The `value` of an output that is there: a text, or a URL that works for some time after the end."""
        if output.kind == "text":
            return _text_output(self._apps[execution.app_id], execution, output)
        expires = int(execution.ended_at + self._url_lifetime)
        return self._signer.link(base_url, execution.execution_id, _file_name(output), expires=expires)

    def output_metadata(self, execution: SandboxExecution, output: SandboxOutput) -> dict[str, Any]:
        """What the runs generation tells of an output that is there (docs/lamina-api.md,
        "State and outputs of a run").
        """
        dimensions: dict[str, int] | None = None
        if output.kind == "image":
            width, height = card_size(self._card(execution, output))
            dimensions = {"width": width, "height": height}
        return {"mimeType": _CONTENT_TYPES[output.kind], "dimensions": dimensions, "durationSeconds": None}

    async def answer(self, request: MediaRequest, now: float) -> MediaReply:
        """What a GET or HEAD of that file gets. Files are made in a thread: the loop goes on meanwhile."""
        if not self._signer.is_signed(
            request.execution_id, request.file_name, expires=request.expires, signature=request.signature
        ):
            return _storage_error(403, "SignatureDoesNotMatch", "The signature of this URL is missing or wrong")
        if now > int(request.expires):
            return _storage_error(403, "AccessDenied", "Request has expired")
        found = self._find(request, now)
        if found is None:
            return _storage_error(404, "NoSuchKey", "The specified key does not exist")
        execution, output = found
        content = await asyncio.to_thread(self._file, execution.execution_id, output.output_id)
        return _range_reply(request, content, _CONTENT_TYPES[output.kind])

    def _find(self, request: MediaRequest, now: float) -> tuple[SandboxExecution, SandboxOutput] | None:
        execution = self._executions.get(request.execution_id)
        app = self._apps.get(execution.app_id) if execution is not None else None
        if execution is None or app is None:
            return None
        outputs = requested_outputs(execution, app)
        finished = finished_output_count(execution, len(outputs), now)
        for index, output in enumerate(outputs[:finished]):
            if _file_name(output) == request.file_name and index != execution.failed_output:
                return execution, output
        return None

    def _make_file(self, execution_id: str, output_id: str) -> bytes:
        execution = self._executions.get(execution_id)
        if execution is None:
            raise KeyError(execution_id)
        app = self._apps[execution.app_id]
        output = next(output for output in app.outputs if output.output_id == output_id)
        if output.kind == "video":
            choice = int.from_bytes(hashlib.sha256(f"{execution_id}/{output_id}".encode()).digest()[:4])
            return self._clips[choice % len(self._clips)].read_bytes()
        return draw_card(self._card(execution, output))

    def _card(self, execution: SandboxExecution, output: SandboxOutput) -> Card:
        app = self._apps[execution.app_id]
        inputs = inputs_by_name(app.parameters, execution.inputs)
        return card_for(app, output, execution_id=execution.execution_id, inputs=inputs)


def _file_name(output: SandboxOutput) -> str:
    return f"{output.output_id}.{_EXTENSIONS.get(output.kind, 'txt')}"


def _text_output(app: SandboxApp, execution: SandboxExecution, output: SandboxOutput) -> str:
    title = " ".join(main_title(app, inputs_by_name(app.parameters, execution.inputs)).split())[:80]
    sentences = (
        "{title}: made for the days you remember.",
        "Meet {title}, and see what changes.",
        "{title}. Simply yours.",
        "New in: {title}.",
    )
    choice = hashlib.sha256(f"{output.output_id}{title}".encode(errors="replace")).digest()[0]
    return sentences[choice % len(sentences)].replace("{title}", title)


def _storage_error(status: int, code: str, message: str) -> MediaReply:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return MediaReply(status=status, body=body.encode(), headers={"Content-Type": "application/xml"})


def _range_reply(request: MediaRequest, content: bytes, content_type: str) -> MediaReply:
    """The whole file, or the one range asked for (RFC 9110 section 14). Several ranges at once get the whole."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "Content-Type": content_type,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
    }
    asked = {tag.strip().removeprefix("W/") for tag in (request.if_none_match or "").split(",")}
    if asked & {etag, "*"}:
        return MediaReply(status=304, body=b"", headers=headers)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    if found is None or not any(found.groups()) or request.if_range not in {None, etag}:
        return MediaReply(status=200, body=content, headers=headers)
    size = len(content)
    if found[1]:
        start, end = int(found[1]), min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < start:
            return MediaReply(status=200, body=content, headers=headers)
    else:
        start, end = max(0, size - int(found[2])), size - 1
    if start > end:
        return MediaReply(status=416, body=b"", headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return MediaReply(status=206, body=content[start : end + 1], headers=headers)
