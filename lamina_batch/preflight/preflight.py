"""Before anything is spent: do the image and video URLs of the rows answer with an image or a video?

Each distinct URL is asked once, for its first bytes only, however many rows use it; never with the key. What is found
becomes a verdict on the value, in the form of all others, so that it is a finding like every other.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import polars as pl

from lamina_batch.catalog.input_validator import InputValidator
from lamina_batch.client.retry import retryable
from lamina_batch.media.content_encoding import decoder
from lamina_batch.media.host_queue import HostLimits, HostQueue
from lamina_batch.media.http import (
    FetchFailure,
    FetchLimits,
    content_type,
    open_session,
    refused_failure,
    request_url,
    truncated_failure,
)
from lamina_batch.preflight.addresses import host, is_example, is_private, is_public_name
from lamina_batch.preflight.sniff import HEAD_BYTES, sniff
from lamina_batch.preflight.url_findings import ProbeResult, private_url_verdict, url_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamina_batch.apps.app import Parameter
    from lamina_batch.catalog.input_validator import Verdict
    from lamina_batch.catalog.mapping import RowMapping
    from lamina_batch.media.content_encoding import Decoder
    from lamina_batch.runtime import Runtime

#: A first glance only: it need not take long, and a host that is slow today is a warning.
PREFLIGHT_LIMITS = FetchLimits(most_bytes=HEAD_BYTES, total=20.0, idle=10.0, connect=10.0)
#: Six at once is what a browser allows itself.
PREFLIGHT_HOST_LIMITS = HostLimits(most_open=24, most_open_per_host=6, tries=3, most_silence=30.0)
#: Rows that are mapped at a time: all of a large catalog would fill the memory.
_ROWS_PER_BATCH = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightResult:
    """What was found out by asking for the URLs."""

    #: parameter -> URL -> what is to be said of it
    verdicts: Mapping[str, Mapping[str, Verdict]]
    #: about the whole, for people
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlChecker:
    """How URLs are looked at; called with what the rows give."""

    #: whether the service runs on this machine, as the sandbox does: it reaches what this machine does, and it never
    #: fetches what an example names
    local: bool
    #: seconds for which a signed URL has to stay good: what a run may need before the service fetches it
    needed: float
    runtime: Runtime
    #: is told how many of how many are asked, each time another one is
    on_progress: Callable[[int, int], None]
    limits: FetchLimits = PREFLIGHT_LIMITS
    manners: HostLimits = field(default_factory=lambda: PREFLIGHT_HOST_LIMITS)

    async def look(self, mapped: RowMapping) -> PreflightResult:
        """Ask all URLs of the rows. Nothing that a host does is raised."""
        wanted = [*_row_urls(mapped), *_matrix_urls(mapped)]
        left_out = {url for _, urls in wanted for url in urls if self._not_asked(url)}
        seen = await self._ask({url: None for _, urls in wanted for url in urls if url not in left_out})
        if self.local and not any(isinstance(one, ProbeResult) and is_public_name(url) for url, one in seen.items()):
            # Nothing tells that this machine is online: a name that is not found is no proof then.
            seen = {
                url: replace(one, sure=one.sure and not one.silent) if isinstance(one, FetchFailure) else one
                for url, one in seen.items()
            }
        now = datetime.fromtimestamp(self.runtime.wall(), UTC)

        def verdict(parameter: Parameter, url: str) -> Verdict | None:
            if url in left_out:
                return None if self.local else private_url_verdict(url)
            return url_verdict(url, seen[url], parameter=parameter, now=now, needed=timedelta(seconds=self.needed))

        found = [
            (parameter.name, {url: said for url in urls if (said := verdict(parameter, url)) is not None})
            for parameter, urls in wanted
        ]
        constant = {parameter.name for parameter, _ in mapped.matrix}
        return PreflightResult(
            verdicts={name: said for name, said in found if name not in constant},
            notes=(
                f"image and video URLs asked, each once: {len(seen)}",
                *(
                    f"{said.message} ({said.hint})"
                    for name, all_said in found
                    if name in constant
                    for said in all_said.values()
                ),
                *(_placeholder_notes(left_out) if self.local else ()),
            ),
        )

    def _not_asked(self, url: str) -> bool:
        return is_example(url) if self.local else is_private(url)

    async def _ask(self, urls: Mapping[str, None]) -> dict[str, ProbeResult | FetchFailure]:
        seen: dict[str, ProbeResult | FetchFailure] = {}

        def ended(url: str, came: ProbeResult | FetchFailure) -> None:
            seen[url] = came
            self.on_progress(len(seen), len(urls))

        async with (
            open_session(self.limits) as session,
            HostQueue(
                attempt=partial(probe_url, session, limits=self.limits),
                ended=ended,
                runtime=self.runtime,
                manners=self.manners,
            ) as turns,
        ):
            for url in urls:
                turns.add(url, url)
            await turns.finish()
        return seen


def _row_urls(mapped: RowMapping) -> Iterator[tuple[Parameter, list[str]]]:
    """The distinct URLs for each parameter that takes some, without values that are no URL."""
    items = [item for item in mapped.inputs if item.parameter.type == "url"]
    found: list[dict[str, None]] = [{} for _ in items]
    for rows in mapped.slices(_ROWS_PER_BATCH):
        frame = mapped.map_slice(rows).frame
        for item, urls in zip(items, found, strict=True):
            values = frame.get_column(item.value_column)
            values = (values.explode() if item.is_list else values).drop_nulls().unique(maintain_order=True)
            proper = InputValidator(item.parameter).valid_expression(pl.col("value"))
            urls.update(dict.fromkeys(values.to_frame("value").filter(proper).get_column("value")))
    for item, urls in zip(items, found, strict=True):
        yield item.parameter, list(urls)


def _matrix_urls(mapped: RowMapping) -> Iterator[tuple[Parameter, list[str]]]:
    for parameter, values in mapped.matrix:
        if parameter.type == "url":
            yield parameter, list(values)


def _placeholder_notes(urls: set[str]) -> Iterator[str]:
    if urls:
        hosts = sorted({host(url) for url in urls})
        shown = ", ".join(hosts[:3]) + (", …" if len(hosts) > 3 else "")
        yield (
            f"image and video URLs not asked, because they are at names for examples ({shown}): {len(urls)}; "
            "the sandbox takes them as they are, and the real service would find nothing there"
        )


async def probe_url(session: aiohttp.ClientSession, url: str, *, limits: FetchLimits) -> ProbeResult | FetchFailure:
    """What `url` answers with, by its first bytes. Nothing that the network or the host does is raised."""
    seen = await request_url(
        session, url, _read_response, limits=limits, headers={"Range": f"bytes=0-{HEAD_BYTES - 1}"}
    )
    if isinstance(seen, FetchFailure) or seen.status != 416:
        return seen
    if seen.size == 0:
        # There is no part of nothing.
        return replace(seen, status=200)
    # A host that cannot give a part; what comes of the whole is cut off here.
    return await request_url(session, url, _read_response, limits=limits)


async def _read_response(response: aiohttp.ClientResponse) -> ProbeResult | FetchFailure:
    if retryable(response.status):
        return refused_failure(response)
    unpack = decoder(response)
    if unpack is None:
        return FetchFailure(reason="it comes in an encoding that was not asked for")
    try:
        head = await _read_head(response, unpack)
    except aiohttp.ClientPayloadError:
        return truncated_failure(response.content_length)
    except zlib.error:
        return FetchFailure(reason="it came packed, and cannot be unpacked")
    size = _content_length(response)
    if size is None and len(head) < HEAD_BYTES and response.status != 416:
        size = len(head)
    return ProbeResult(
        status=response.status,
        content_type=content_type(response),
        contents=sniff(head, whole=size == len(head)),
        size=size,
        final_url=str(response.url),
    )


async def _read_head(response: aiohttp.ClientResponse, unpack: Decoder) -> bytes:
    """The first bytes of the file. An answer that ends with them is read to its end, and its connection used again."""
    head = bytearray()
    async for chunk in response.content.iter_any():
        # Piece by piece: what is packed in a chunk may be endless.
        for piece in unpack.feed(chunk):
            head += piece
            if len(head) > HEAD_BYTES:
                return bytes(head[:HEAD_BYTES])
    return bytes(head)


def _content_length(response: aiohttp.ClientResponse) -> int | None:
    """Bytes of the whole file, where the host tells."""
    if response.status in {206, 416}:
        total = response.headers.get("Content-Range", "").rpartition("/")[2].strip()
        return int(total[:15]) if total.isascii() and total.isdigit() else None
    return response.content_length if "Content-Encoding" not in response.headers else None
