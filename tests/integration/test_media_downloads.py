"""All downloads of a run, over real sockets into real folders: names, retries, races, stops, and what a kill leaves."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest
from hostile_server import PNG, HostileServer, answer, redirect, then_hang, when
from runtimes import make_runtime

from lamina_batch.media.downloads import DownloadQueue, DownloadRequest, DownloadResult
from lamina_batch.media.host_queue import HostLimits
from lamina_batch.media.http import FetchLimits
from lamina_batch.media.names import escape_braces, parse_pattern
from lamina_batch.media.output_folder import TEMPORARY_PREFIX, OutputFolder, PlaceResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

LIMITS = FetchLimits(most_bytes=1_000_000, total=20.0, idle=10.0, connect=5.0)
PATTERN = "{key}/{variant}/{label}.{ext}"


class Told:
    """What a run of downloads tells and how long it would have waited."""

    def __init__(self) -> None:
        self.all: list[DownloadResult] = []
        self.pauses: list[float] = []
        #: what `now` answers; `sleep` moves it on
        self.clock = 1000.0

    def report(self, one: DownloadResult) -> None:
        self.all.append(one)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock += seconds

    def now(self) -> float:
        return self.clock

    @property
    def files(self) -> dict[tuple[int, int], Path]:
        return {(one.job_id, one.position): one.file for one in self.all if one.file is not None}

    @property
    def errors(self) -> dict[tuple[int, int], str]:
        return {(one.job_id, one.position): one.error for one in self.all if one.error is not None}


def downloads(
    folder: Path,
    told: Told,
    *,
    pattern: str = PATTERN,
    taken: Mapping[tuple[int, int], Path] | None = None,
    report: Callable[[DownloadResult], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> DownloadQueue:
    return DownloadQueue(
        pattern=parse_pattern(f"{escape_braces(str(folder))}/{pattern}"),
        report=report or told.report,
        taken=taken or {},
        runtime=make_runtime(now=told.now, sleep=sleep or told.sleep, random=Random(1)),
        limits=LIMITS,
    )


def wanted(url: str, job_id: int = 1, position: int = 0, *, key: str = "K1", label: str = "Front") -> DownloadRequest:
    return DownloadRequest(job_id=job_id, position=position, url=url, type="image", key=key, variant="", label=label)


async def bring(
    folder: Path,
    *all_wanted: DownloadRequest,
    pattern: str = PATTERN,
    taken: Mapping[tuple[int, int], Path] | None = None,
) -> Told:
    told = Told()
    async with downloads(folder, told, pattern=pattern, taken=taken) as running:
        for one in all_wanted:
            running.add(one)
        await running.finish()
        assert running.left == 0
    return told


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in the folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def everything(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*")]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


# -- what is brought, and where it goes ----------------------------------------------------------------------


async def test_a_file_stands_where_the_pattern_says_and_is_told_of(tmp_path: Path) -> None:
    async with HostileServer() as server:
        url = server.on("/x/1.png", answer())
        told = await bring(tmp_path / "out" / "images", wanted(url, 7, 3))
    file = tmp_path / "out" / "images" / "K1" / "Front.png"
    expected = DownloadResult(
        job_id=7, position=3, url=url, file=file, sha256=hashlib.sha256(PNG).hexdigest(), size=len(PNG)
    )
    assert told.all == [expected]
    assert tree(tmp_path) == {"out/images/K1/Front.png": PNG}
    assert hidden(tmp_path) == []


async def test_nothing_to_bring_ends_at_once_and_makes_no_folder(tmp_path: Path) -> None:
    assert (await bring(tmp_path / "out")).all == []
    assert not (tmp_path / "out").exists()


async def test_the_same_output_twice_is_brought_once(tmp_path: Path) -> None:
    async with HostileServer() as server:
        url = server.on("/1.png", answer())
        told = await bring(tmp_path, wanted(url), wanted(url), wanted(url, 1, 1, label="Back"))
    assert server.asked("/1.png") == 2
    assert sorted(told.files) == [(1, 0), (1, 1)]


async def test_the_extension_is_of_the_url_or_where_it_leads_or_the_type(tmp_path: Path) -> None:
    async with HostileServer() as server:
        server.on("/there.webp", answer(PNG, "Content-Type: image/png"))
        told = await bring(
            tmp_path,
            wanted(server.on("/a.jpg", answer(PNG, "Content-Type: image/png")), 1, key="url"),
            wanted(server.on("/b", redirect("/there.webp")), 2, key="end"),
            wanted(server.on("/c", answer(PNG, "Content-Type: image/gif")), 3, key="type"),
            wanted(server.on("/d.exe", answer(PNG, "Content-Type: application/x-msdownload")), 4, key="none"),
        )
    assert sorted(tree(tmp_path)) == ["end/Front.webp", "none/Front.bin", "type/Front.gif", "url/Front.jpg"]
    assert told.errors == {}


async def test_hostile_names_and_addresses_stay_in_the_folder(tmp_path: Path) -> None:
    nasty = [
        "../../../evil",
        "/etc/passwd",
        "..",
        "a/../../b",
        "\0",
        "CON",
        ".ssh",
        "x" * 400,
        "\u202egnp",
        TEMPORARY_PREFIX + "x",
    ]
    out = tmp_path / "deep" / "out"
    async with HostileServer() as server:
        server.on("/..%2f..%2f..%2fevil.png%2f..%2fx.sh", answer())
        url = server.url + "/..%2f..%2f..%2fevil.png%2f..%2fx.sh"
        told = await bring(
            out,
            *(
                wanted(url, job, at, key=key, label=label)
                for job, key in enumerate(nasty)
                for at, label in enumerate(nasty)
            ),
        )
    assert told.errors == {}
    assert len(tree(out)) == len(nasty) ** 2
    assert {f"deep/out/{name}" for name in tree(out)} == set(tree(tmp_path))
    assert {path.suffix for path in told.files.values()} == {".bin"}
    assert hidden(out) == []


# -- names that meet -----------------------------------------------------------------------------------------


async def test_outputs_of_one_name_are_numbered_in_the_order_they_were_added(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    async with HostileServer() as server:
        told = Told()
        async with downloads(tmp_path, told) as running:
            for at, gate in enumerate(gates):
                part = answer(b"%d" % at)
                running.add(wanted(server.on(f"/{at}.png", when(gate, part[:-1], part[-1:])), position=at))
            for at, gate in reversed(list(enumerate(gates))):
                gate.set()
                while (1, at) not in told.files:
                    await asyncio.wait([asyncio.ensure_future(server.arrived.acquire())], timeout=0.01)
    assert tree(tmp_path) == {"K1/Front.png": b"0", "K1/Front 2.png": b"1", "K1/Front 3.png": b"2"}
    assert [told.files[1, at].name for at in range(3)] == ["Front.png", "Front 2.png", "Front 3.png"]


async def test_names_that_some_system_takes_for_one_are_numbered(tmp_path: Path) -> None:
    async with HostileServer() as server:
        labels = ["Front", "FRONT", "front", "É", "e\u0301", "a/b", "a\\b"]
        told = await bring(
            tmp_path,
            *(wanted(server.on(f"/{at}.png", answer()), position=at, label=label) for at, label in enumerate(labels)),
        )
    names = [told.files[1, at].name for at in range(len(labels))]
    assert names == ["Front.png", "FRONT 2.png", "front 3.png", "É.png", "é 2.png", "a_b.png", "a_b 2.png"]


async def test_many_of_one_name_all_survive_the_race(tmp_path: Path) -> None:
    async with HostileServer() as server:
        for job in range(40):
            server.on(f"/{job}.png", answer(b"%d" % job))
        told = await bring(
            tmp_path, *(wanted(f"{server.url}/{job}.png", job) for job in range(40)), pattern="{label}.{ext}"
        )
    assert sorted(tree(tmp_path).values()) == sorted(b"%d" % job for job in range(40))
    assert {job: told.files[job, 0].read_bytes() for job in range(40)} == {job: b"%d" % job for job in range(40)}


async def test_two_runs_in_one_folder_replace_nothing_of_each_other(tmp_path: Path) -> None:
    async with HostileServer() as server:
        urls = [server.on(f"/{job}.png", answer(b"%d" % job)) for job in range(40)]
        both = Told()
        async with (
            downloads(tmp_path, both, pattern="{label}.{ext}") as one,
            downloads(tmp_path, both, pattern="{label}.{ext}") as other,
        ):
            for job, url in enumerate(urls):
                (one, other)[job % 2].add(wanted(url, job))
            await one.finish()
            await other.finish()
    assert {job: both.files[job, 0].read_bytes() for job in range(40)} == {job: b"%d" % job for job in range(40)}
    assert len(everything(tmp_path)) == 40


async def test_a_file_that_stands_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "K1").mkdir()
    (tmp_path / "K1" / "Front.png").write_bytes(b"somebody's own")
    (tmp_path / "K1" / "Front 2.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "K1" / "Front 3.png").mkdir()
    os.mkfifo(tmp_path / "K1" / "Front 4.png")
    async with HostileServer() as server:
        told = await bring(tmp_path, wanted(server.on("/1.png", answer())))
    assert told.files[1, 0].name == "Front 5.png"
    assert tree(tmp_path) == {"K1/Front.png": b"somebody's own", "K1/Front 5.png": PNG}
    assert not (tmp_path / "nowhere").exists()


async def test_the_same_bytes_are_taken_over_without_a_copy(tmp_path: Path) -> None:
    """A run killed after it named the file and before it wrote that down heals so."""
    (tmp_path / "K1").mkdir()
    (tmp_path / "K1" / "Front.png").write_bytes(PNG)
    before = (tmp_path / "K1" / "Front.png").stat()
    async with HostileServer() as server:
        told = await bring(tmp_path, wanted(server.on("/1.png", answer())))
    assert told.files == {(1, 0): tmp_path / "K1" / "Front.png"}
    assert told.all[0].sha256 == hashlib.sha256(PNG).hexdigest()
    assert tree(tmp_path) == {"K1/Front.png": PNG}
    assert (tmp_path / "K1" / "Front.png").stat().st_ino == before.st_ino
    assert hidden(tmp_path) == []


async def test_the_same_length_is_not_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "K1").mkdir()
    (tmp_path / "K1" / "Front.png").write_bytes(PNG[::-1])
    async with HostileServer() as server:
        told = await bring(tmp_path, wanted(server.on("/1.png", answer())))
    assert told.files == {(1, 0): tmp_path / "K1" / "Front 2.png"}


@pytest.mark.parametrize("there", [True, False])
async def test_the_file_of_another_job_is_not_taken_even_if_it_is_gone_or_the_same(there: bool, tmp_path: Path) -> None:
    others = tmp_path / "K1" / "FRONT.png"
    if there:
        others.parent.mkdir()
        others.write_bytes(PNG)
    async with HostileServer() as server:
        url = server.on("/1.png", answer())
        told = await bring(tmp_path, wanted(url), taken={(9, 0): others, (9, 1): tmp_path / "K1" / "Front 2.png"})
    assert told.files == {(1, 0): tmp_path / "K1" / "Front 3.png"}


async def test_a_file_of_its_own_that_is_gone_comes_back_under_its_name(tmp_path: Path) -> None:
    own = tmp_path / "K1" / "Front.png"
    async with HostileServer() as server:
        told = await bring(tmp_path, wanted(server.on("/1.png", answer())), taken={(1, 0): own})
    assert told.files == {(1, 0): own}


async def test_a_file_system_without_hard_links_replaces_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"somebody's own")
    folder = OutputFolder(tmp_path)
    folder._links = False

    def settle(name: str, content: bytes) -> PlaceResult:
        temp = folder.temporary()
        temp.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        return folder.settle(temp, tmp_path / name, sha256=sha256, size=len(content))

    assert settle("a.png", PNG) is PlaceResult.OCCUPIED
    assert settle("b/c.png", PNG) is PlaceResult.PLACED
    assert settle("b/c.png", PNG) is PlaceResult.SAME
    assert settle("b/c.png", PNG[::-1]) is PlaceResult.OCCUPIED
    folder.close()
    assert tree(tmp_path) == {"a.png": b"somebody's own", "b/c.png": PNG}
    assert hidden(tmp_path) == []


# -- what fails ----------------------------------------------------------------------------------------------


async def test_each_failure_is_named_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_bytes(b"")
    async with HostileServer() as server:
        told = await bring(
            tmp_path,
            wanted(server.on("/good.png", answer()), 1),
            wanted(server.on("/gone.png", answer(status="404 Not Found")), 2),
            wanted(server.on("/page.png", answer(b"<html>", "Content-Type: text/html")), 3),
            wanted(server.on("/loop.png", redirect("/loop.png")), 4),
            wanted(server.on("/large.png", answer(bytes(2_000_000))), 5),
            wanted(server.on("/cut.png", answer(PNG, length=9999)), 6),
            wanted("s3://bucket/a.png", 7),
            wanted(server.on("/blocked.png", answer()), 8, key="in the way"),
        )
    assert sorted(told.errors.items()) == [
        ((2, 0), "HTTP 404: the link has expired, or was never good"),
        ((3, 0), "a web page came instead of an image: the link has probably expired"),
        ((4, 0), "it redirects more than 5 times"),
        ((5, 0), "it is larger than 1000000 bytes"),
        ((6, 0), "it broke off before its 9999 bytes had come (4 tries)"),
        ((7, 0), "its address is no http(s) URL"),
        ((8, 0), f"{tmp_path}/in the way is not a folder"),
    ]
    assert tree(tmp_path) == {"K1/Front.png": PNG, "in the way": b""}
    assert hidden(tmp_path) == []
    assert (server.asked("/gone.png"), server.asked("/cut.png")) == (1, 4)


async def test_what_failed_is_healed_by_asking_again(tmp_path: Path) -> None:
    async with HostileServer() as server:
        url = server.on("/1.png", answer(PNG, length=9999))
        assert (await bring(tmp_path, wanted(url))).files == {}
        server.on("/1.png", answer())
        assert (await bring(tmp_path, wanted(url))).errors == {}
    assert tree(tmp_path) == {"K1/Front.png": PNG}


async def test_what_may_get_better_is_tried_again_after_growing_pauses(tmp_path: Path) -> None:
    busy = answer(b"", status="503 Busy")
    async with HostileServer() as server:
        told = await bring(tmp_path, wanted(server.on("/1.png", answer(PNG, length=9999), busy, b"?", answer())))
    assert tree(tmp_path) == {"K1/Front.png": PNG}
    assert len(told.pauses) == 3
    assert all(most / 10 <= pause <= most for pause, most in zip(told.pauses, (1.0, 2.0, 4.0), strict=True))


async def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    async with HostileServer() as server:
        busy = answer(b"", "Retry-After: 17", status="429 Many")
        told = await bring(tmp_path, wanted(server.on("/1.png", busy, answer())))
    assert told.pauses == [17.0]
    assert sorted(told.files) == [(1, 0)]


@pytest.mark.parametrize("link", ["K1", "K1/deep"])
async def test_a_symbolic_link_in_the_folder_leads_nowhere(link: str, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside, target_is_directory=True)
    async with HostileServer() as server:
        url = server.on("/1.png", answer())
        told = await bring(out, wanted(url), wanted(url, 2, key="K2"), pattern="{key}/deep/{label}.{ext}")
    assert told.errors == {(1, 0): f"{out}/{link} is a symbolic link, and nothing is written through one"}
    assert tree(tmp_path) == {"out/K2/deep/Front.png": PNG}
    assert hidden(tmp_path) == []


async def test_the_folder_itself_may_stand_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk", target_is_directory=True)
    async with HostileServer() as server:
        told = await bring(tmp_path / "out", wanted(server.on("/1.png", answer())))
    assert told.files == {(1, 0): tmp_path / "out" / "K1" / "Front.png"}


async def test_a_folder_that_cannot_be_made_fails_each_download_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    async with HostileServer() as server:
        url = server.on("/1.png", answer())
        told = await bring(tmp_path / "out" / "images", wanted(url), wanted(url, 2))
    reason = f"cannot be written: {tmp_path}/out/images: Not a directory"
    assert told.errors == {(1, 0): reason, (2, 0): reason}
    assert tree(tmp_path) == {"out": b"a file"}


# -- many at once --------------------------------------------------------------------------------------------


async def test_four_at_once_from_one_host_and_eight_in_all(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with HostileServer() as one, HostileServer() as two, HostileServer() as three:
        servers = (one, two, three)
        told = Told()
        async with downloads(tmp_path, told) as running:
            for job in range(30):
                server = servers[job // 10]
                running.add(wanted(server.on(f"/{job}.png", when(gate, b"", answer())), job, key=f"K{job}"))
            for server in (one, one, one, one, two, two, two, two):
                await server.arrived.acquire()
            assert [server.open for server in servers] == [4, 4, 0]
            gate.set()
            await running.finish()
    assert len(told.files) == 30
    assert max(server.most_open for server in servers) <= 4


async def test_a_host_that_stalls_does_not_hold_up_another(tmp_path: Path) -> None:
    async with HostileServer() as stalling, HostileServer() as good:
        told = Told()
        done = asyncio.Event()

        def report(one: DownloadResult) -> None:
            told.report(one)
            if len(told.files) == 20:
                done.set()

        async with downloads(tmp_path, told, report=report) as running:
            for job in range(20):
                running.add(wanted(stalling.on(f"/{job}.png", then_hang(b"")), job, key=f"S{job}"))
            for job in range(20, 40):
                running.add(wanted(good.on(f"/{job}.png", answer()), job, key=f"G{job}"))
            await done.wait()
            assert running.left == 20
    assert sorted(job for job, _ in told.files) == list(range(20, 40))


async def test_a_pause_holds_no_place(tmp_path: Path) -> None:
    """What waits to be tried again lets others of its host go first."""
    again = asyncio.Event()
    async with HostileServer() as server:
        told = Told()

        async def sleep(_: float) -> None:
            await again.wait()

        async with downloads(tmp_path, told, sleep=sleep) as running:
            for job in range(10):
                running.add(wanted(server.on(f"/{job}.png", answer(b"", status="503 Busy"), answer()), job))
            running.add(wanted(server.on("/good.png", answer()), 10))
            for _ in range(11):
                await server.arrived.acquire()
            again.set()
            await running.finish()
    assert len(told.files) == 11


async def test_a_host_that_is_asked_too_often_is_left_alone_by_all(tmp_path: Path) -> None:
    """After a 429 nothing is asked of that host until its pause is over; another host is."""
    over, others = asyncio.Event(), asyncio.Event()
    many = answer(b"", status="429 Many")
    async with HostileServer() as busy, HostileServer() as good:
        told = Told()

        async def sleep(_: float) -> None:
            await over.wait()

        def report(one: DownloadResult) -> None:
            told.report(one)
            if len(told.files) == 28:
                others.set()

        async with downloads(tmp_path, told, sleep=sleep, report=report) as running:
            for job in range(12):
                running.add(wanted(busy.on(f"/{job}.png", many, answer()), job, key=f"K{job}"))
            for job in range(12, 40):
                running.add(wanted(good.on(f"/{job}.png", answer()), job, key=f"K{job}"))
            await others.wait()
            # No more than four can have been on their way when the first refusal came.
            assert 1 <= len(busy.requests) <= 4
            over.set()
            await running.finish()
    assert len(told.files) == 40


async def test_a_host_that_stays_silent_is_given_up_with_all_that_waits_for_it(tmp_path: Path) -> None:
    async with HostileServer() as silent, HostileServer() as good:
        told = Told()

        async def sleep(seconds: float) -> None:
            await Told.sleep(told, seconds)
            told.clock += HostLimits().most_silence / 2

        async with downloads(tmp_path, told, sleep=sleep) as running:
            for job in range(50):
                running.add(wanted(silent.on(f"/{job}.png", b""), job))
            running.add(wanted(good.on("/1.png", answer()), 99))
            await running.finish()
    assert sorted(told.files) == [(99, 0)]
    given_up = [error for error in told.errors.values() if error.startswith("not tried")]
    assert set(given_up) == {"not tried, because its host does not answer: the connection was closed without an answer"}
    assert len(told.errors) == 50
    assert len(given_up) > 40
    assert {request.target for request in silent.requests} < {f"/{job}.png" for job in range(50)}


async def test_a_host_that_answers_now_and_then_is_not_given_up(tmp_path: Path) -> None:
    async with HostileServer() as server:
        told = Told()

        async def sleep(seconds: float) -> None:
            told.clock += HostLimits().most_silence

        async with downloads(tmp_path, told, sleep=sleep) as running:
            for job in range(20):
                script = answer() if job % 4 == 3 else answer(b"", status="500 Oops")
                running.add(wanted(server.on(f"/{job}.png", script), job, key=f"K{job}"))
            await running.finish()
    assert sorted(job for job, _ in told.files) == [3, 7, 11, 15, 19]
    assert set(told.errors.values()) == {"HTTP 500 (4 tries)"}


# -- stops and kills -----------------------------------------------------------------------------------------


async def under_way(folder: Path) -> None:
    """Wait until an unfinished file has content."""
    while not any(tree(folder).values()):
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)


def large(server: HostileServer) -> str:
    return server.on("/large.png", then_hang(answer(bytes(600_000), length=900_000)))


class Broken(Exception):  # noqa: N818
    pass


async def test_no_unfinished_file_has_a_final_name_and_leaving_early_removes_it(tmp_path: Path) -> None:
    told = Told()
    async with HostileServer() as server:

        async def run() -> None:
            async with downloads(tmp_path, told) as running:
                running.add(wanted(large(server)))
                await under_way(tmp_path)
                assert [name[: len(TEMPORARY_PREFIX)] for name in tree(tmp_path)] == [TEMPORARY_PREFIX]
                raise Broken

        with pytest.raises(Broken):
            await run()
    assert told.all == []
    assert everything(tmp_path) == []


async def test_a_cancelled_run_leaves_nothing_unfinished(tmp_path: Path) -> None:
    told = Told()
    async with HostileServer() as server:

        async def run() -> None:
            async with downloads(tmp_path, told) as running:
                running.add(wanted(large(server)))
                await running.finish()

        task = asyncio.create_task(run())
        await under_way(tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert told.all == []
    assert everything(tmp_path) == []


async def test_a_file_that_gets_its_name_as_the_run_is_cancelled_is_told_of(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(OutputFolder):
        def settle(self, temp: Path, file: Path, *, sha256: str, size: int) -> PlaceResult:
            begun.set()
            go_on.wait()
            return super().settle(temp, file, sha256=sha256, size=size)

    told = Told()
    async with HostileServer() as server:

        async def run() -> None:
            async with downloads(tmp_path, told) as running:
                running._folder = Slow(tmp_path)
                running.add(wanted(server.on("/1.png", answer())))
                await running.finish()

        task = asyncio.create_task(run())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert told.files == {(1, 0): tmp_path / "K1" / "Front.png"}
    assert everything(tmp_path) == ["K1", "K1/Front.png"]


async def test_an_error_of_the_one_who_is_told_ends_the_run_as_it_is(tmp_path: Path) -> None:
    def report(_: DownloadResult) -> None:
        raise Broken

    async with HostileServer() as server:

        async def run() -> None:
            async with downloads(tmp_path, Told(), report=report) as running:
                running.add(wanted(large(server)))
                running.add(wanted(server.on("/1.png", answer()), 2, key="K2"))
                await running.finish()
                raise AssertionError

        with pytest.raises(Broken):
            await run()
    assert tree(tmp_path) == {"K2/Front.png": PNG}
    assert hidden(tmp_path) == []


async def test_after_the_block_nothing_more_is_taken(tmp_path: Path) -> None:
    told = Told()
    async with downloads(tmp_path, told) as running:
        pass
    running.add(wanted("http://127.0.0.1:1/a.png"))
    assert running.left == 0


async def test_what_dead_runs_left_is_removed_and_what_live_ones_hold_is_kept(tmp_path: Path) -> None:
    dead, live = tmp_path / f"{TEMPORARY_PREFIX}dead", tmp_path / f"{TEMPORARY_PREFIX}live"
    for folder in (dead, live):
        folder.mkdir()
        (folder / "1.part").write_bytes(PNG)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "kept.png").write_bytes(PNG)
    (tmp_path / f"{TEMPORARY_PREFIX}link").symlink_to(outside, target_is_directory=True)
    (tmp_path / "users.part").write_bytes(PNG)
    held = os.open(live, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with HostileServer() as server:
            await bring(tmp_path, wanted(server.on("/1.png", answer())))
    finally:
        os.close(held)
    assert sorted(tree(tmp_path)) == [f"{TEMPORARY_PREFIX}live/1.part", "K1/Front.png", "users.part"]
    assert tree(outside) == {"kept.png": PNG}
    assert not dead.exists()


KILLED = """
import asyncio, sys
from lamina_batch.media.downloads import DownloadQueue, DownloadRequest
from lamina_batch.media.names import parse_pattern
from lamina_batch.runtime import system_runtime

async def main(url, folder):
    pattern = parse_pattern(folder + "/{key}/{label}.{ext}")
    async with DownloadQueue(pattern=pattern, report=print, taken={}, runtime=system_runtime()) as downloads:
        downloads.add(DownloadRequest(job_id=1, position=0, url=url, type="image", key="K1", variant="", label="Front"))
        await downloads.finish()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_run_leaves_no_partial_file_under_a_final_name_and_the_next_one_heals_it(tmp_path: Path) -> None:
    async with HostileServer() as server:
        url = large(server)
        process = subprocess.Popen([sys.executable, "-c", KILLED, url, str(tmp_path)])  # noqa: ASYNC220
        try:
            await under_way(tmp_path)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert [name[: len(TEMPORARY_PREFIX)] for name in tree(tmp_path)] == [TEMPORARY_PREFIX]
        server.on("/large.png", answer(bytes(900_000)))
        await bring(tmp_path, wanted(url))
    assert tree(tmp_path) == {"K1/Front.png": bytes(900_000)}
    assert hidden(tmp_path) == []
