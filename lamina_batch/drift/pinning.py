"""Taking pins: what is said when one replaces another, and how the live app is held against one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_batch.atomic_files import write_text
from lamina_batch.drift.compare import compare, describe_change
from lamina_batch.drift.judge import Baseline, Drift, assess_drift
from lamina_batch.drift.pins import SANDBOX_SOURCE, parse_pin, pin_text
from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamina_batch.drift.pins import Pin


def save_pin(pin: Pin, file: Path) -> tuple[str, ...]:
    """Write the pin, whole or not at all, and say what changed; one that holds the same already is left as it is.

    Raises UsageError if another kind of file stands there, StateError where it cannot be written.
    """
    before = _read_existing_pin(file)
    if not isinstance(before, UsageError) and before is not None and _same(before, pin):
        return (f"unchanged since {before.taken_at}",)
    write_text(file, pin_text(pin))
    return (*_replaced_lines(before, pin), *_saved_lines(pin))


def _same(before: Pin, after: Pin) -> bool:
    return (before.taken_from, before.sha256) == (after.taken_from, after.sha256)


def compare_with_pin(pin: Pin, file: Path, now: Pin) -> Drift:
    """What changed since `pin`, which stands in `file`, and could break a pipeline; `now` holds the app as it is.

    Raises UsageError for the pin of another app, and for one of the stand-in where the real service is asked.
    """
    sandbox = " --sandbox" if now.taken_from == SANDBOX_SOURCE else ""
    take_again = f"`lamina-batch apps pin {now.app.app_id} -o {file}{sandbox}`"
    if pin.app.app_id != now.app.app_id:
        raise UsageError(f"this is the pin of another app, {pin.app.app_id} ({pin.app.name})", where=str(file))
    if pin.taken_from == SANDBOX_SOURCE != now.taken_from:
        raise UsageError(
            "this pin was taken from the sandbox, which stands in for the real app",
            where=str(file),
            hint=f"take the real one: {take_again}",
        )
    called = f"the pin of {pin.taken_at[:10]}"
    return assess_drift(Baseline(app=pin.app, called=called, accept=take_again), now.app, None, None)


def _read_existing_pin(file: Path) -> Pin | UsageError | None:
    """The pin that is there; why it cannot be used; None: nothing is there."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"this cannot be read: {error.strerror}", where=str(file)) from error
    try:
        return parse_pin(text, str(file))
    except UsageError as error:
        if b'"pin_version"' in text:
            return error
        raise UsageError(
            "this file is no pin, and is not replaced by one", where=str(file), hint="choose another name with -o"
        ) from error


def _saved_lines(pin: Pin) -> Iterator[str]:
    yield f"pinned {pin.app.name!r}: {len(pin.app.parameters)} parameters, taken from {pin.taken_from}"
    if pin.taken_from == SANDBOX_SOURCE:
        yield "  the sandbox stands in for the real app: take the pin again with your key before the first real run"


def _replaced_lines(before: Pin | UsageError | None, after: Pin) -> Iterator[str]:
    if before is None:
        return
    if isinstance(before, UsageError):
        yield f"replaced a pin that could not be used: {before.what}"
        return
    if before.app.app_id != after.app.app_id:
        yield f"replaced the pin of another app, {before.app.app_id} ({before.app.name})"
        return
    if before.taken_from != after.taken_from:
        yield f"replaced a pin that was taken from {before.taken_from}"
    changes = compare(before.app, after.app)
    yield from (f"changed: {describe_change(change)}" for change in changes)
    if not changes:
        yield f"nothing of it that matters to a pipeline has changed since {before.taken_at}"
