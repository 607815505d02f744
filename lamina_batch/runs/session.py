"""One run from the outside, the same for the command line and for programs: access, stops and notification."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lamina_batch.client.redaction import redact
from lamina_batch.execution.engine import Control
from lamina_batch.monitoring.notify import CommandResult, send_notification
from lamina_batch.runs.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.summary import Summary
    from lamina_batch.runs.bootstrap import PipelineTarget
    from lamina_batch.runs.context import RunRequest
    from lamina_batch.runs.execute import Reporter
    from lamina_batch.runtime import Runtime

_Result = TypeVar("_Result")

#: Signals within this many seconds of the first one are the same stop.
ONE_STOP_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Session:
    """One invocation of `run` or `collect`."""

    target: PipelineTarget
    pipeline: Pipeline
    request: RunRequest
    runtime: Runtime
    reporter: Reporter
    run_id: str
    control: Control = field(default_factory=Control)
    _api_key: str = field(default="", repr=False)

    async def run(self) -> Summary:
        """Run to the end, or to a stop, and return the summary.

        The first cancellation stops gently: nothing new is submitted, POSTs on their way land (for at most
        run.request_timeout), and the results are written. The second one leaves at once; what has not landed is held.
        After a cancellation CancelledError is raised, unless a signal asked for the stop (`stop_on_signals`): then the
        summary is returned.

        Raises CancelledError if it is stopped before anything is on its way, and the errors of `runs.run.run`.
        """
        with self.target.access(self.pipeline) as access:
            self._api_key = access.api_key
            work = run(
                self.pipeline,
                access,
                self.request,
                runtime=self.runtime,
                reporter=self.reporter,
                control=self.control,
                run_id=self.run_id,
            )
            return await _stop_gently_when_cancelled(work, self.control)

    async def notify(self, *, exit_code: int, summary: Summary | None = None, error: str | None = None) -> str | None:
        """Tell the receiver that the pipeline's `notify` names how it ended. Returns why it could not be told."""
        if self.pipeline.notify is None:
            return None
        result = CommandResult(
            pipeline=self.pipeline.name, run_id=self.run_id, exit_code=exit_code, summary=summary, error=error
        )
        return await send_notification(
            self.pipeline.notify, result, redact=lambda text: redact(text, [self._api_key]), runtime=self.runtime
        )


@contextmanager
def stop_on_signals(control: Control, on_stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP stop the current task: the first gently, a later one at once.

    Signals within ONE_STOP_SECONDS of the first one count as the same stop.

    `on_stop` is called for a gentle stop.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    first_at: float | None = None

    def stop(number: signal.Signals) -> None:
        nonlocal first_at
        if first_at is not None and loop.time() - first_at < ONE_STOP_SECONDS:
            # A terminal and a wrapper may both deliver the same stop, as may SIGINT and then SIGTERM.
            return
        first_at = loop.time()
        gently = not control.stopped and control.wake is not None
        control.stop(int(number))
        if gently:
            on_stop()
        elif task is not None:
            task.cancel()

    # `nohup` has SIGHUP ignored, and so it stays.
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *hangup)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _stop_gently_when_cancelled(work: Coroutine[Any, Any, _Result], control: Control) -> _Result:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if control.wake is None or control.stopped:
            # Nothing is on its way yet, or a gentle stop was asked for before.
            task.cancel()
        control.stop(control.signal)
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
        if task.cancelled():
            raise
        # An error of the work itself says more than the cancellation.
        result = task.result()
        if control.signal is None:
            raise
        return result
