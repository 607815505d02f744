"""What stands around every command: how it prints, how errors become exit codes, how words are parsed."""

from __future__ import annotations

import signal
import tempfile
import traceback
from typing import Any, NoReturn

import click

from lamina_batch.errors import LaminaBatchError, UsageError

_NOT_BUILT_OPTIONS = (
    "--rerun-file",
    "--log-format",
    "--offline",
    "--check-images",
    "--include-removed",
)

# -- what is printed -----------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Text that cannot drive the terminal: control characters of the service or a catalog are shown, not sent."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """A message for a person, on stderr."""
    click.echo(clean(text), err=True)


def out(text: str) -> None:
    """What was asked for, on stdout."""
    click.echo(clean(text))


# -- the shell around every command --------------------------------------------------------------------------


class Group(click.Group):
    """Turns errors into messages and exit codes, in this one place.

    `not_built` names commands that are documented and belong to a later version.
    """

    def __init__(self, *args: Any, not_built: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.not_built = not_built

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LaminaBatchError as error:
            say(f"error: {error}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            say("stopped")
            ctx.exit(128 + signal.SIGINT)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            say(f"error: {error}")
            ctx.exit(1)
        except Exception as error:  # noqa: BLE001  # a bug: the screen gets a line, the file the rest
            _crashed(ctx, error)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.not_built:
            raise UsageError(f"`{args[0]}` is documented but not built in this version")
        return super().resolve_command(ctx, args)


def _crashed(ctx: click.Context, error: Exception) -> NoReturn:
    with tempfile.NamedTemporaryFile(
        "w", prefix="lamina-batch-crash-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        traceback.print_exception(error, file=log)
    say(f"error: this is a bug in lamina-batch: {error.__class__.__name__}: {error}")
    say(f"  the details are in {log.name}; whatever was submitted is in the ledger, and a run goes on from there")
    ctx.exit(1)


class Command(click.Command):
    """A command some of whose options take several words: `--only A B C`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {name for p in self.params if isinstance(p, click.Option) and p.multiple for name in p.opts} - {"--set"}
        singles = {
            name
            for p in self.params
            if isinstance(p, click.Option) and not p.is_flag and not p.multiple
            for name in p.opts
        } | {"--set"}
        try:
            return super().parse_args(ctx, spread_words(args, many, singles))
        except click.NoSuchOption as error:
            if error.option_name in _NOT_BUILT_OPTIONS:
                raise UsageError(f"`{error.option_name}` is documented but not built in this version") from None
            raise


def spread_words(args: list[str], many: set[str], singles: set[str]) -> list[str]:
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
