"""What all commands share: printing, errors as exit codes, options with several words."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

from lamina_batch.errors import LaminaBatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# -- what is printed -----------------------------------------------------------------------------------------


_SECRETS = "lamina_batch.secrets"
_LOG = "lamina_batch.log"
#: How click and the shell end a command on purpose.
CONTROL_FLOW_EXCEPTIONS = (click.exceptions.Exit, click.Abort, BrokenPipeError)


def redact_secret(secret: str) -> None:
    """Cut this out of everything that the running command prints from now on; LAMINA_API_KEY is in any case."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta.setdefault(_SECRETS, []).append(secret)


def sanitize(text: str) -> str:
    """Text that neither drives the terminal, nor begins a line of its own, nor holds the key.

    Control characters of the service or a catalog are shown, not sent. Every line after the first is indented: a line
    end in a name cannot make the rest of it look like another message.
    """
    shown = "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in redact(text))
    first, *others = shown.split("\n")
    return "\n".join([first, *(f"  {line}" if line and not line.startswith("  ") else line for line in others)])


def redact(text: str) -> str:
    """The text without the key."""
    from lamina_batch.client.redaction import redact as redact_secrets

    context = click.get_current_context(silent=True)
    keys = [os.environ.get("LAMINA_API_KEY", "").strip(), *(context.meta.get(_SECRETS, ()) if context else ())]
    return redact_secrets(text, keys)


class EventSink(Protocol):
    """Takes messages that would else be printed (operations/events.py)."""

    def event(self, name: str, message: str, *, level: Literal["info", "warning", "error"], **more: object) -> None:
        """Take one message."""


def send_messages_to(log: EventSink) -> None:
    """From now on what the running command says goes there, and not to the terminal."""
    click.get_current_context().meta[_LOG] = log


def write_event(line: str) -> None:
    """One event of a log, on stderr, at once."""
    with lenient_stderr():
        click.echo(redact(line), err=True)


@contextmanager
def lenient_stderr() -> Iterator[None]:
    """Wraps every write to stderr. If stderr is closed, the command goes on silently.

    A terminal that is gone, a closed pipe or a full disk behind a log must not cut off a run whose submissions are on
    their way.
    """
    try:
        yield
    except OSError:
        # What Python has not written yet would be tried again at its end, and change the exit code.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def say(text: str) -> None:
    """A message for a person, on stderr."""
    _say("", "note", text)


def note(text: str) -> None:
    """Something a person should know, and that is no reason to stop."""
    _say("note: ", "note", text)


def _say(
    mark: str, name: str, text: str, *, level: Literal["info", "warning", "error"] = "info", **more: object
) -> None:
    context = click.get_current_context(silent=True)
    log: EventSink | None = context.meta.get(_LOG) if context is not None else None
    if log is None:
        with lenient_stderr():
            click.echo(sanitize(f"{mark}{text}"), err=True)
    else:
        log.event(name, text.strip(), level=level, **more)


def report_error(error: BaseException) -> int:
    """Say what ended the command; answers the exit code that this means."""
    match error:
        case LaminaBatchError(exit_code=code):
            _say("error: ", "error", str(error), level="error", exit_code=code)
            return code
        case KeyboardInterrupt():
            say("stopped")
            return 128 + signal.SIGINT
        case UnicodeEncodeError(object=str(name)):
            # Python found a locale that cannot spell a file's name, and was told not to go beyond it.
            what = f"this locale cannot spell {name!a}\n  set LANG=C.UTF-8, or take PYTHONUTF8=0 out of the environment"
            _say("error: ", "error", what, level="error", exit_code=1)
        case OSError():
            _say("error: ", "error", str(error), level="error", exit_code=1)
        case _:
            # A bug: the screen gets a line, the file the rest.
            what = f"this is a bug in lamina-batch: {error.__class__.__name__}: {error}"
            _say("error: ", "error", f"{what}\n  {_write_crash_log(error)}", level="error", exit_code=1)
    return 1


def out(text: str) -> None:
    """What was asked for, on stdout: a line, or a message whose further lines belong to the first."""
    click.echo(sanitize(text))


def out_all(lines: Sequence[str]) -> None:
    """Many lines on stdout, each as `out` prints it."""
    text = "\n".join(lines)
    # To look at all of them at once is many times as fast, and nearly always there is nothing to clean.
    plain = text.count("\n") == len(lines) - 1 and text.replace("\n", "").isprintable() and redact(text) == text
    for line in (text,) if plain else map(sanitize, lines):
        click.echo(line)


def out_document(text: str) -> None:
    """A generated document on stdout, unchanged: its generator escapes what needs it."""
    click.echo(redact(text))


# -- the shell around every command --------------------------------------------------------------------------


class Group(click.Group):
    """Turns errors into messages and exit codes, in this one place."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line on streams that can be written."""
        _ensure_streams()
        return super().main(*args, **kwargs)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does, with messages that are safe to print."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            raise _sanitized_error(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error is printed and becomes the exit code."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _sanitized_error(error) from None
        except CONTROL_FLOW_EXCEPTIONS:
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # whatever it is, it is said here
            ctx.exit(report_error(error))


def _ensure_streams() -> None:
    """Open missing standard streams, and escape names that the locale cannot encode."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by who started us. The next file that is opened would get its number, and what is meant for stderr.
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _sanitized_error(error: click.ClickException) -> click.ClickException:
    """The same usage error, safe to print: it may contain a file name."""
    error.message = sanitize(error.message)  # type: ignore[misc]  # click prints it without asking us
    return error


def _write_crash_log(error: BaseException) -> str:
    """Where the details of a bug are kept, in words."""
    import tempfile
    import traceback

    # Neither a local variable nor the key is in it, so that it may be sent to somebody.
    text = redact("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lamina-batch-crash-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as log:
            log.write(text)
        kept = f"the details are in {log.name}"
    except OSError as reason:
        kept = f"the details cannot be kept ({reason.strerror})"
    return f"{kept}; whatever was submitted is in the ledger, and a run goes on from there"


class Command(click.Command):
    """A command some of whose options take several words: `--only A B C`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let options such as `--only` take several words."""
        many = {name for p in self.params if isinstance(p, click.Option) and p.multiple for name in p.opts} - {"--set"}
        singles = {
            name
            for p in self.params
            if isinstance(p, click.Option) and not p.is_flag and not p.multiple
            for name in p.opts
        } | {"--set"}
        return super().parse_args(ctx, expand_multi_value_options(args, many, singles))


def expand_multi_value_options(args: list[str], many: set[str], singles: set[str]) -> list[str]:
    """`--only A B` as `--only A --only B`. If no word is left for PIPELINE then, the last one was meant for it."""
    spread: list[str] = []
    collecting: str | None = None
    first = False
    words = 0
    last: int | None = None
    skip = False
    for arg in args:
        if skip:
            skip = False
            spread.append(arg)
        elif arg.startswith("-") and arg != "-":
            collecting = arg if arg in many else None
            first = collecting is not None
            skip = arg in singles
            spread.append(arg)
        elif collecting is not None:
            if not first:
                spread.append(collecting)
                last = len(spread)
            spread.append(arg)
            first = False
        else:
            words += 1
            spread.append(arg)
    if not words and last is not None:
        pipeline = spread.pop(last)
        spread.pop(last - 1)
        spread.append(pipeline)
    return spread
