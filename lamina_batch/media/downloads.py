"""The output files of a run, brought as soon as their URLs are known, because URLs expire (API.md section 4).

A download never costs a request of the API's budget, and one that fails is told of and nothing more: the row it belongs
to is as it was. What is not told of as done is to be asked for again, by the next run.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from lamina_batch.client.retry import backoff
from lamina_batch.media.disk import Disk, DiskError
from lamina_batch.media.fetch import Fetched, fetch
from lamina_batch.media.hosts import Failure, Limits, open_session
from lamina_batch.media.folder import OutputFolder, Settled
from lamina_batch.media.names import UNKNOWN, extension, fold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from random import Random
    from types import TracebackType

    import aiohttp

    from lamina_batch.media.names import Pattern

#: Downloads at once, and of these from one host: a slow host leaves room for the others.
MOST_OPEN = 8
MOST_OPEN_PER_HOST = 4
#: How often one file is tried in one run.
TRIES = 4
#: Seconds of nothing but silence after which all that waits for a host is given up for this run: a host that is gone
#: would else hold the end of the run up by some seconds for each file.
MOST_SILENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
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
class Downloaded:
    """What came of one: a file, or why there is none."""

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
class _Item:
    wanted: Wanted
    host: str
    #: the name it tries first has this number
    number: int
    #: how often it has failed
    failures: int = 0

    @property
    def owner(self) -> tuple[int, int]:
        return self.wanted.job_id, self.wanted.position


@dataclass(slots=True, kw_only=True)
class Downloads:
    """All downloads of one run. Use as `async with`: what is unfinished when the block is left stops and is removed."""

    pattern: Pattern
    #: is told of each one once, on the loop; what it raises ends the block
    report: Callable[[Downloaded], None]
    #: the files of earlier runs by (job_id, position): another's name is never used, not even where its file is gone
    taken: Mapping[tuple[int, int], Path]
    #: monotonic seconds
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Random
    limits: Limits = field(default_factory=Limits)
    #: how many are neither done nor given up
    left: int = field(default=0, init=False)
    _known: set[tuple[int, int]] = field(default_factory=set, init=False)
    #: hosts in turn, each with what waits for it
    _queues: dict[str, deque[_Item]] = field(default_factory=dict, init=False)
    _open: Counter[str] = field(default_factory=Counter, init=False)
    #: since when each host has not answered at all
    _silent: dict[str, float] = field(default_factory=dict, init=False)
    #: whose each name is, as `fold` compares them
    _owners: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    #: names promised before the extension is known, and the next number to try for each
    _promised: set[str] = field(default_factory=set, init=False)
    _numbers: dict[str, int] = field(default_factory=dict, init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)
    _disk: Disk = field(default_factory=Disk, init=False)
    _folder: OutputFolder = field(init=False)

    async def __aenter__(self) -> Self:
        self._folder = OutputFolder(self.pattern.folder)
        self._owners = {fold(path): owner for owner, path in self.taken.items()}
        self._session = open_session(self.limits)
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        for task in self._tasks:
            # Once only: a second time would tear a task from the disk work that it waits for.
            if not task.cancelling():
                task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # What broke the block goes on as it is; else `report` raised, and that is what is told.
            if not isinstance(error, Exception):
                raise group.exceptions[0] from None
        finally:
            self._disk.close()
            self._folder.close()
            if self._session is not None:
                await self._session.close()

    def add(self, wanted: Wanted) -> None:
        """Bring this one too. Never blocks; the same job and position twice are one.

        Outputs that share a name are numbered in the order in which they are added.
        """
        if self._stopped or (wanted.job_id, wanted.position) in self._known:
            return
        self._known.add((wanted.job_id, wanted.position))
        self.left += 1
        host = _host(wanted.url)
        item = _Item(wanted=wanted, host=host, number=self._promise(wanted))
        self._queues.setdefault(host, deque()).append(item)
        self._dispatch()

    async def finish(self) -> None:
        """Wait until all that was added is done or given up."""
        while self.left:
            self._idle.clear()
            await self._idle.wait()

    # -- which one is next -------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while not self._stopped and self._open.total() < MOST_OPEN and (item := self._next()) is not None:
            self._open[item.host] += 1
            task = self._group.create_task(self._work(item))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _Item | None:
        for host, queue in self._queues.items():
            if self._open[host] < MOST_OPEN_PER_HOST:
                item = queue.popleft()
                # To the end of the line, so that hosts take turns.
                del self._queues[host]
                if queue:
                    self._queues[host] = queue
                return item
        return None

    async def _work(self, item: _Item) -> None:
        try:
            ended = await self._try(item)
        finally:
            self._open[item.host] -= 1
        if isinstance(ended, Downloaded) or not ended.silent:
            self._silent.pop(item.host, None)
        else:
            self._silent.setdefault(item.host, self.now())
        if isinstance(ended, Downloaded):
            self._end(ended)
            return
        failed = replace(item, failures=item.failures + 1)
        if ended.again and failed.failures < TRIES:
            self._dispatch()
            await self.sleep(max(ended.retry_after or 0.0, backoff(failed.failures, self.random, base=1.0)))
            # First in line: its URL is the oldest.
            self._queues.setdefault(item.host, deque()).appendleft(failed)
            self._dispatch()
            return
        tries = f" ({failed.failures} tries)" if failed.failures > 1 else ""
        self._end(_failed(item.wanted, ended.reason + tries))
        if self.now() - self._silent.get(item.host, self.now()) > MOST_SILENCE:
            for waiting in self._queues.pop(item.host, ()):
                self._end(_failed(waiting.wanted, f"not tried, because its host does not answer: {ended.reason}"))

    def _end(self, ended: Downloaded) -> None:
        self.left -= 1
        try:
            self.report(ended)
        except BaseException:
            self._stopped = True
            raise
        if not self.left:
            self._idle.set()
        self._dispatch()

    # -- one of them -------------------------------------------------------------------------------------------

    async def _try(self, item: _Item) -> Downloaded | Failure:
        if self._session is None:
            msg = "Downloads is used outside `async with`"
            raise RuntimeError(msg)
        fetched: Fetched | Failure | None = None
        try:
            fetched = await fetch(
                self._session,
                item.wanted.url,
                kind=item.wanted.type.casefold(),
                temp=self._folder.temporary,
                limits=self.limits,
                disk=self._disk,
            )
            return await self._place(item, fetched) if isinstance(fetched, Fetched) else fetched
        except DiskError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, one file must not end a run that spends money
            reason = f"this is a mistake of lamina-batch: {type(error).__name__}"
        if isinstance(fetched, Fetched):
            with suppress(DiskError):
                await self._disk.run(fetched.temp.unlink, missing_ok=True)
        return Failure(reason=reason)

    async def _place(self, item: _Item, fetched: Fetched) -> Downloaded:
        wanted = item.wanted
        ext = extension(wanted.url, None)
        if ext == UNKNOWN:
            ext = extension(fetched.final_url, fetched.content_type)
        number = item.number
        while True:
            file = self.pattern.place(
                key=wanted.key, variant=wanted.variant, label=wanted.label, ext=ext, number=number
            )
            if self._owners.setdefault(fold(file), item.owner) == item.owner:
                placed = Downloaded(
                    job_id=wanted.job_id,
                    position=wanted.position,
                    url=wanted.url,
                    file=file,
                    sha256=fetched.sha256,
                    size=fetched.size,
                )
                settled: list[Settled] = []
                try:
                    await self._disk.run(self._settle, fetched, file, settled)
                except asyncio.CancelledError:
                    # The file has its name: that is told, whatever stops the run.
                    if settled and settled[0] is not Settled.OCCUPIED:
                        with suppress(Exception):
                            self.report(placed)
                    raise
                if settled[0] is not Settled.OCCUPIED:
                    return placed
            number = self._promise(wanted)

    def _settle(self, fetched: Fetched, file: Path, settled: list[Settled]) -> None:
        settled.append(self._folder.settle(fetched.temp, file, sha256=fetched.sha256, size=fetched.size))

    def _promise(self, wanted: Wanted) -> int:
        """The least number whose name is promised to no other output of this run, whatever its extension will be."""

        def name(number: int) -> str:
            place = self.pattern.place
            return fold(place(key=wanted.key, variant=wanted.variant, label=wanted.label, ext="", number=number))

        first = name(1)
        number = self._numbers.get(first, 1)
        while (promised := name(number)) in self._promised:
            number += 1
        self._promised.add(promised)
        self._numbers[first] = number + 1
        return number


def _host(url: str) -> str:
    """Who is asked, for fairness among hosts; "" where that cannot be read."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def _failed(wanted: Wanted, reason: str) -> Downloaded:
    return Downloaded(job_id=wanted.job_id, position=wanted.position, url=wanted.url, error=reason)
