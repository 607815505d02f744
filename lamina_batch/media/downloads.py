"""The output files of a run, brought as soon as their URLs are known, because URLs expire (docs/lamina-api.md,
"Output files").

A download never costs a request of the API's budget, and one that fails is told of and nothing more: the row it belongs
to is as it was. What is not told of as done is to be asked for again, by the next run.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from lamina_batch.media.disk import DiskError, DiskWorker
from lamina_batch.media.fetch import FetchedFile, fetch
from lamina_batch.media.host_queue import HostQueue
from lamina_batch.media.http import FetchFailure, FetchLimits, open_session
from lamina_batch.media.names import UNKNOWN_EXTENSION, casefold_path, extension
from lamina_batch.media.output_folder import OutputFolder, PlaceResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    import aiohttp

    from lamina_batch.media.names import PathPattern
    from lamina_batch.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRequest:
    """One output of one job."""

    job_id: int
    #: its place among the job's outputs
    position: int
    url: str
    #: image, video, audio or another word of the service
    type: str
    key: str
    variant: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadResult:
    """The result of one download: a file, or an error."""

    job_id: int
    position: int
    url: str
    file: Path | None = None
    #: hex
    sha256: str | None = None
    #: bytes
    size: int | None = None
    #: in words, where there is no file; does not hold the URL
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueuedDownload:
    wanted: DownloadRequest
    #: the name it tries first has this number
    number: int

    @property
    def owner(self) -> tuple[int, int]:
        return self.wanted.job_id, self.wanted.position


@dataclass(slots=True, kw_only=True)
class DownloadQueue:
    """All downloads of one run. Use as `async with`: what is unfinished when the block is left stops and is removed."""

    pattern: PathPattern
    #: called once with each result, on the event loop; an error it raises ends the block
    report: Callable[[DownloadResult], None]
    #: the files of earlier runs by (job_id, position): another's name is never used, not even where its file is gone
    taken: Mapping[tuple[int, int], Path]
    runtime: Runtime
    limits: FetchLimits = field(default_factory=FetchLimits)
    _known: set[tuple[int, int]] = field(default_factory=set, init=False)
    #: whose each name is, as `fold` compares them
    _owners: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    #: names promised before the extension is known, and the next number to try for each
    _promised: set[str] = field(default_factory=set, init=False)
    _numbers: dict[str, int] = field(default_factory=dict, init=False)
    _turns: HostQueue[_QueuedDownload, DownloadResult] = field(init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _disk: DiskWorker = field(default_factory=DiskWorker, init=False)
    _folder: OutputFolder = field(init=False)

    async def __aenter__(self) -> Self:
        self._folder = OutputFolder(self.pattern.folder)
        self._owners = {casefold_path(path): owner for owner, path in self.taken.items()}
        self._session = open_session(self.limits)
        self._turns = HostQueue(
            attempt=self._try,
            ended=self._ended,
            runtime=self.runtime,
        )
        await self._turns.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._turns.__aexit__(kind, error, trace)
        finally:
            self._disk.close()
            self._folder.close()
            if self._session is not None:
                await self._session.close()

    @property
    def left(self) -> int:
        """How many are neither done nor given up."""
        return self._turns.left

    def add(self, wanted: DownloadRequest) -> None:
        """Bring this one too. Never blocks; the same job and position twice are one.

        Outputs that share a name are numbered in the order in which they are added.
        """
        if self._turns.stopped or (wanted.job_id, wanted.position) in self._known:
            return
        self._known.add((wanted.job_id, wanted.position))
        self._turns.add(_QueuedDownload(wanted=wanted, number=self._promise(wanted)), wanted.url)

    async def finish(self) -> None:
        """Wait until all that was added is done or given up."""
        await self._turns.finish()

    def _ended(self, item: _QueuedDownload, came: DownloadResult | FetchFailure) -> None:
        self.report(came if isinstance(came, DownloadResult) else _failed_result(item.wanted, came.reason))

    # -- one of them -------------------------------------------------------------------------------------------

    async def _try(self, item: _QueuedDownload) -> DownloadResult | FetchFailure:
        if self._session is None:
            msg = "Downloads is used outside `async with`"
            raise RuntimeError(msg)
        fetched: FetchedFile | FetchFailure | None = None
        try:
            fetched = await fetch(
                self._session,
                item.wanted.url,
                kind=item.wanted.type.casefold(),
                temp=self._folder.temporary,
                limits=self.limits,
                disk=self._disk,
            )
            return await self._place(item, fetched) if isinstance(fetched, FetchedFile) else fetched
        except DiskError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, one file must not end a run that spends money
            reason = f"this is a mistake of lamina-batch: {type(error).__name__}"
        if isinstance(fetched, FetchedFile):
            with suppress(DiskError):
                await self._disk.run(fetched.temp.unlink, missing_ok=True)
        return FetchFailure(reason=reason)

    async def _place(self, item: _QueuedDownload, fetched: FetchedFile) -> DownloadResult:
        wanted = item.wanted
        ext = extension(wanted.url, None)
        if ext == UNKNOWN_EXTENSION:
            ext = extension(fetched.final_url, fetched.content_type)
        number = item.number
        while True:
            file = self.pattern.place(
                key=wanted.key, variant=wanted.variant, label=wanted.label, ext=ext, number=number
            )
            if self._owners.setdefault(casefold_path(file), item.owner) == item.owner:
                placed = DownloadResult(
                    job_id=wanted.job_id,
                    position=wanted.position,
                    url=wanted.url,
                    file=file,
                    sha256=fetched.sha256,
                    size=fetched.size,
                )
                settled: list[PlaceResult] = []
                try:
                    await self._disk.run(self._settle, fetched, file, settled)
                except asyncio.CancelledError:
                    # The file has its name: that is told, whatever stops the run.
                    if settled and settled[0] is not PlaceResult.OCCUPIED:
                        with suppress(Exception):
                            self.report(placed)
                    raise
                if settled[0] is not PlaceResult.OCCUPIED:
                    return placed
            number = self._promise(wanted)

    def _settle(self, fetched: FetchedFile, file: Path, settled: list[PlaceResult]) -> None:
        settled.append(self._folder.settle(fetched.temp, file, sha256=fetched.sha256, size=fetched.size))

    def _promise(self, wanted: DownloadRequest) -> int:
        """The least number whose name is promised to no other output of this run, whatever its extension will be."""

        def name(number: int) -> str:
            place = self.pattern.place
            return casefold_path(
                place(key=wanted.key, variant=wanted.variant, label=wanted.label, ext="", number=number)
            )

        first = name(1)
        number = self._numbers.get(first, 1)
        while (promised := name(number)) in self._promised:
            number += 1
        self._promised.add(promised)
        self._numbers[first] = number + 1
        return number


def _failed_result(wanted: DownloadRequest, reason: str) -> DownloadResult:
    return DownloadResult(job_id=wanted.job_id, position=wanted.position, url=wanted.url, error=reason)
