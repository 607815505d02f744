"""What is told of an ended run, and to whom: on real sockets, with bounds of a test's size."""

from __future__ import annotations

import json
import random
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hostile import Asked, hostile, says
from process import PATIENCE, wait_for
from runtimes import make_runtime

from lamina_batch.monitoring.notify import CommandResult, NotifyLimits, send_notification
from lamina_batch.pipeline.spec import Notify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile import Answer

QUICK = NotifyLimits(tries=3, each=0.3, together=60.0)
FAILED = CommandResult(pipeline="p", run_id="r", exit_code=1, error="no API key lma_secret")


async def told(url: str, ended: CommandResult = FAILED, *, bounds: NotifyLimits = QUICK) -> str | None:
    async def sleep(_: float) -> None:
        pass

    return await send_notification(
        Notify(url=url, on=("partial", "failure")),
        ended,
        redact=lambda text: text.replace("lma_secret", "[key]"),
        runtime=make_runtime(sleep=sleep, random=random.Random(1)),
        bounds=bounds,
    )


@pytest.mark.parametrize(
    ("code", "ending"), [(0, "success"), (3, "partial"), *((n, "failure") for n in (1, 2, 5, 143))]
)
def test_an_ending_is_known_by_the_exit_code(code: int, ending: str) -> None:
    assert CommandResult(pipeline="p", run_id="r", exit_code=code).ending == ending


def test_the_line_holds_nothing_that_a_chat_tool_obeys() -> None:
    ended = CommandResult(
        pipeline="<!channel>", run_id="r", exit_code=1, error="@here <http://x|y> `a`\n&amp;" + "x" * 999
    )
    line = ended.line()
    assert not set(line) & set("<>@&`\n")
    assert len(line) < 400


async def test_the_body_is_sent_once_without_the_key() -> None:
    with hostile(start=says(204)) as tool:
        assert await told(f"{tool.url}/T0/secret?x=1") is None
    (asked,) = tool.asked
    assert (asked.method, asked.path) == ("POST", "/T0/secret?x=1")
    assert asked.header("content-type") == "application/json"
    assert json.loads(asked.body) == {
        "text": "p: failure (exit 1): no API key [key]",
        "ending": "failure",
        "error": "no API key [key]",
        "pipeline": "p",
        "run_id": "r",
        "exit_code": 1,
    }


async def test_an_ending_that_nobody_asked_for_is_not_told() -> None:
    with hostile(start=says(200)) as tool:
        assert await told(tool.url, CommandResult(pipeline="p", run_id="r", exit_code=0)) is None
        assert tool.connections == 0


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (429, 3), (400, 1), (404, 1), (200, 1)])
async def test_what_may_end_better_is_tried_again(status: int, tries: int) -> None:
    with hostile(start=says(status, b"hook-secret")) as tool:
        why = await told(f"{tool.url}/hook-secret")
    assert tool.count("start") == tries
    if status == 200:
        assert why is None
    else:
        assert why == f"127.0.0.1 was not told how this run ended: HTTP {status}"


async def test_the_second_try_may_do() -> None:
    answers = iter([says(503), says(200)])

    def answer(_: Asked) -> Answer:
        return next(answers)

    with hostile(answer=answer) as tool:
        assert await told(tool.url) is None
        assert tool.count("start") == 2


async def test_a_redirect_is_not_followed() -> None:
    with hostile() as other, hostile(start=says(307, b"", f"Location: {other.url}/")) as tool:
        why = await told(f"{tool.url}/hook-secret")
        assert other.connections == 0
        assert tool.count("start") == 1
    assert why is not None
    assert "redirects (HTTP 307)" in why
    assert "hook-secret" not in why


def silence(over: threading.Event) -> Iterator[bytes]:
    over.wait(PATIENCE)
    yield b""


async def test_nobody_holds_a_run_up() -> None:
    """One who never answers has his tries, all of them within a bound."""
    over = threading.Event()
    with hostile(answer=lambda _: silence(over)) as tool:
        why = await told(tool.url)
        assert why == "127.0.0.1 was not told how this run ended: no answer within 0.3 s"
        wait_for(lambda: tool.count("start") == 3)
        await told(tool.url, bounds=NotifyLimits(tries=1000, each=0.3, together=0.5))
        assert tool.count("start") < 900
        over.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/hook-secret", "http://a b/hook-secret"])
async def test_nobody_there(url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        why = await told(url.format(port=taken.getsockname()[1]))
    assert why is not None
    assert "hook-secret" not in why
