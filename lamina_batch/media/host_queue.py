"""Errands to many hosts: a few at once, hosts in turn, and each host left alone when it asks for that.

What may end better is tried again after growing pauses; a host that is gone is given up with all that waits for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Self, TypeVar
from urllib.parse import urlsplit

from lamina_batch.client.retry import backoff
from lamina_batch.media.http import FetchFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from lamina_batch.runtime import Runtime

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """How much is asked of others."""

    #: errands at once, and of these to one host: a slow host leaves room for the others
    most_open: int = 8
    most_open_per_host: int = 4
    #: how often one errand is tried
    tries: int = 4
    #: seconds of nothing but silence, or of being asked too often, after which all that waits for a host is given up: a
    #: host that is gone would else hold the end up by some seconds for each errand
    most_silence: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueuedTask(Generic[_Task]):
    errand: _Task
    host: str
    #: how often it has failed
    failures: int = 0


@dataclass(slots=True, kw_only=True)
class HostQueue(Generic[_Task, _Result]):
    """Use as `async with`: what is unfinished when the block is left is cancelled."""

    #: one try
    attempt: Callable[[_Task], Awaitable[_Result | FetchFailure]]
    #: called once with the result of each task, on the event loop; an error it raises ends the block
    ended: Callable[[_Task, _Result | FetchFailure], None]
    runtime: Runtime
    manners: HostLimits = field(default_factory=HostLimits)
    #: how many are neither done nor given up
    left: int = field(default=0, init=False)
    stopped: bool = field(default=False, init=False)
    #: hosts in turn, each with what waits for it
    _queues: dict[str, deque[_QueuedTask[_Task]]] = field(default_factory=dict, init=False)
    _open: Counter[str] = field(default_factory=Counter, init=False)
    #: since when each host has given no answer but that it is asked too often
    _silent: dict[str, float] = field(default_factory=dict, init=False)
    #: how many pauses of each host are running
    _resting: Counter[str] = field(default_factory=Counter, init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup, init=False)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = True
        for task in self._tasks:
            # Once only: a second time would tear a task from the disk work that it waits for.
            if not task.cancelling():
                task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # What broke the block goes on as it is; else `ended` raised, and that is what is told.
            if not isinstance(error, Exception):
                raise group.exceptions[0] from None

    def add(self, errand: _Task, url: str) -> None:
        """Do this one too; `url` says at whose host. Never blocks."""
        if self.stopped:
            return
        self.left += 1
        host = host_of(url)
        self._queues.setdefault(host, deque()).append(_QueuedTask(errand=errand, host=host))
        self._dispatch()

    async def finish(self) -> None:
        """Wait until all that was added is done or given up."""
        while self.left:
            self._idle.clear()
            await self._idle.wait()

    def _dispatch(self) -> None:
        while (
            not self.stopped and self._open.total() < self.manners.most_open and (waiting := self._next()) is not None
        ):
            self._open[waiting.host] += 1
            task = self._group.create_task(self._work(waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _QueuedTask[_Task] | None:
        for host, queue in self._queues.items():
            if self._open[host] < self.manners.most_open_per_host and not self._resting[host]:
                waiting = queue.popleft()
                # To the end of the line, so that hosts take turns.
                del self._queues[host]
                if queue:
                    self._queues[host] = queue
                return waiting
        return None

    async def _work(self, waiting: _QueuedTask[_Task]) -> None:
        host = waiting.host
        try:
            came = await self.attempt(waiting.errand)
        finally:
            self._open[host] -= 1
            if not self._open[host]:
                # Else they would all be counted again and again, where there are many.
                del self._open[host]
        gone_quiet = host in self._silent
        if isinstance(came, FetchFailure) and (came.silent or came.too_many):
            self._silent.setdefault(host, self.runtime.now())
        else:
            self._silent.pop(host, None)
        if not isinstance(came, FetchFailure):
            self._end(waiting, came)
            return
        failed = replace(waiting, failures=waiting.failures + 1)
        if came.again and failed.failures < self.manners.tries:
            # What the host says of itself holds for all that waits for it, and so does silence after silence; another
            # trouble may be of this one alone.
            rest = came.retry_after is not None or came.too_many or (came.silent and gone_quiet)
            await self._pause(failed, came.retry_after, rest=rest)
            return
        tries = f" ({failed.failures} tries)" if failed.failures > 1 else ""
        self._end(waiting, replace(came, reason=came.reason + tries))
        # A name that nobody has stays so, and who wants to be left alone for longer means all; else it has to last.
        gone = (came.silent and came.sure) or (came.too_many and not came.again)
        if gone or self.runtime.now() - self._silent.get(host, self.runtime.now()) > self.manners.most_silence:
            for other in self._queues.pop(host, ()):
                does = "asks to be left alone" if came.too_many else "does not answer"
                reason = f"not tried, because its host {does}: {came.reason}"
                self._end(other, replace(came, reason=reason))

    async def _pause(self, failed: _QueuedTask[_Task], retry_after: float | None, *, rest: bool) -> None:
        """Wait until this one may be tried again; `rest`: with all that waits for its host."""
        pause = max(retry_after or 0.0, backoff(failed.failures, self.runtime.random, base=1.0))
        self._resting[failed.host] += rest
        self._dispatch()
        await self.runtime.sleep(pause)
        self._resting[failed.host] -= rest
        # First in line: its URL is the oldest.
        self._queues.setdefault(failed.host, deque()).appendleft(failed)
        self._dispatch()

    def _end(self, waiting: _QueuedTask[_Task], came: _Result | FetchFailure) -> None:
        self.left -= 1
        try:
            self.ended(waiting.errand, came)
        except BaseException:
            self.stopped = True
            raise
        if not self.left:
            self._idle.set()
        self._dispatch()


def host_of(url: str) -> str:
    """Who is asked, for fairness among hosts; "" if it cannot be read."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
