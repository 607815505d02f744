"""Every request counts: requests for each row and time over the least possible, on real sockets.

The service's windows are 3 s instead of 60, and durations and our intervals 20 times shorter, which leaves every ratio
as it is but for the time that requests take; the sandbox is a process of its own. Nothing else should run beside it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from process import APP, Service, environment, row, write_rows
from simulated_service import Clock, Limiter, Oracle, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


HERE = Path(__file__).parent
LIMIT, WINDOW = 100, 3.0
SPEED = 60.0 / WINDOW
#: seconds of the service, before they are scaled
HALF_A_WINDOW, A_THIRD = 30.0, 20.0

PIPELINE = f"""\
version: 1
app: {APP}
rows: {{from: rows.csv, key: sku}}
inputs:
  Front: {{column: front}}
  Back: {{value: https://images.example.com/back.jpg}}
  Prompt: {{template: "{{title}} in soft light"}}
  Model Gender: {{column: gender}}
"""
WEBHOOK = """\
run: {completion: webhook, webhook: {public_url: "http://127.0.0.1:%(port)d/", listen: "127.0.0.1:%(port)d"}}
"""


def lasting(folder: Path, *, median: float, shape: str = "lognormal", sigma: float = 0.0) -> Path:
    """The sandbox's apps, of which ours takes so long."""
    shipped = Path(sys.modules["lamina_batch"].__file__ or "").parent / "sandbox" / "apps.json"
    apps = json.loads(shipped.read_text(encoding="utf-8"))
    for app in apps:
        if app["appId"] == APP:
            app["seconds"] = {"median": median, "sigma": sigma, "shape": shape}
    file = folder / "apps.json"
    file.write_text(json.dumps(apps), encoding="utf-8")
    return file


def ours(folder: Path, service: Service, *overrides: str, speed: float = SPEED) -> dict[str, Any]:
    words = [word for override in overrides for word in ("--set", override)]
    return _printed(folder, "ours.py", "p.yaml", service.url, "--speed", f"{speed:g}", *words)


def baseline(folder: Path, kind: str, service: Service, *words: str) -> dict[str, Any]:
    return _printed(folder, "baselines.py", kind, service.url, *words)


def _printed(folder: Path, script: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / script), *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=800
    )
    assert done.returncode == 0, done.stderr
    numbers: dict[str, Any] = json.loads(done.stdout)
    return numbers


def least_possible(jobs: int, *, each: int, reads: int, shortest: float) -> float:
    """docs/budget.md, "Least possible time", to the letter."""
    return WINDOW * (math.ceil((jobs * each + reads) / LIMIT) - 1) + shortest


def oracle_seconds(service: Service, *, in_flight: int = 100) -> float:
    """How long one who knows every duration, and asks about each execution once, takes for the same ones."""
    durations = {str(n): line["seconds"] for n, line in enumerate(service.accepted)}
    clock = Clock()
    run = Run(
        clock=clock,
        limiter=Limiter(window=WINDOW),
        durations=durations,
        polling=Oracle(durations),
        max_in_flight=in_flight,
        latency=(0.001, 0.003),
    )
    run.begin()
    clock.run()
    return run.seconds


def tell(what: str, **numbers: float | str) -> None:
    print(
        f"\n{what}: "
        + ", ".join(f"{name} {value if isinstance(value, str) else f'{value:.3g}'}" for name, value in numbers.items())
    )


@pytest.fixture
def start(tmp_path: Path, serve: Callable[..., Service]) -> Callable[..., Service]:
    def service(*args: str, **durations: Any) -> Service:
        apps = lasting(tmp_path, **durations)
        return serve(
            *("--limit", str(LIMIT), "--window", f"{WINDOW:g}", "--speed", f"{SPEED:g}", "--apps", str(apps), *args)
        )

    return service


def rows(folder: Path, count: int, *, extra: str = "") -> None:
    (folder / "p.yaml").write_text(PIPELINE + extra, encoding="utf-8")
    write_rows(folder, [row(n) for n in range(count)])


def test_by_webhook_a_row_costs_one_request(tmp_path: Path, start: Callable[..., Service]) -> None:
    """Every tenth answer to a POST is dropped after acceptance; all complete, none is held, none bought twice."""
    service = start("--fault", "drop_after_accept:every=10", median=HALF_A_WINDOW)
    rows(tmp_path, 1000, extra=WEBHOOK % {"port": 18_793})
    summary = ours(tmp_path, service)
    requests = len([line for line in service.requests if line["kind"] != "media"])
    shortest = min(line["seconds"] for line in service.accepted)
    least = least_possible(1000, each=1, reads=3, shortest=shortest)
    tell(
        "webhook, 1,000 rows",
        requests_per_row=requests / 1000,
        seconds=summary["seconds"],
        over_least=summary["seconds"] / least,
    )
    assert summary["counts"]["completed"] == 1000
    assert summary["counts"]["held"] == 0
    assert set(service.bought().values()) == {1}
    assert requests / 1000 <= 1.02
    assert not [line for line in service.requests if line["status"] == 429]
    assert summary["seconds"] / least <= 1.05


SHAPES: dict[str, dict[str, Any]] = {
    "constant": {"sigma": 0.0},
    "uniform": {"shape": "uniform"},
    "lognormal": {"sigma": 1.0},
    "bimodal": {"shape": "bimodal"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_by_polling_a_row_costs_little_more_than_two(tmp_path: Path, start: Callable[..., Service], shape: str) -> None:
    service = start(median=HALF_A_WINDOW, **SHAPES[shape])
    rows(tmp_path, 1000)
    summary = ours(tmp_path, service)
    oracle = oracle_seconds(service)
    requests = len(service.requests)
    tell(
        f"poll, {shape}, 1,000 rows",
        requests_per_row=requests / 1000,
        seconds=summary["seconds"],
        over_oracle=summary["seconds"] / oracle,
    )
    assert summary["counts"]["completed"] == 1000
    assert requests / 1000 <= 2.3
    assert not [line for line in service.requests if line["status"] == 429]
    assert summary["seconds"] / oracle <= 1.15


def test_the_list_makes_a_row_cost_two(tmp_path: Path, start: Callable[..., Service]) -> None:
    service = start("--generation", "runs", median=HALF_A_WINDOW, sigma=1.0)
    rows(tmp_path, 1000)
    summary = ours(tmp_path, service)
    requests = len(service.requests)
    tell("runs generation, 1,000 rows", requests_per_row=requests / 1000, seconds=summary["seconds"])
    assert summary["counts"]["completed"] == 1000
    assert requests / 1000 <= 2.1
    assert not [line for line in service.requests if line["status"] == 429]


def per_window(numbers: Mapping[str, Any], count: int) -> float:
    return count / (float(numbers["seconds"]) / WINDOW)


#: in flight -> rows: enough of them that the last, half-used window hardly counts
AFTERNOONS = {10: 100, 20: 200, 40: 400, 100: 600}


def test_against_the_afternoon_client(tmp_path: Path, serve: Callable[..., Service]) -> None:
    apps = lasting(tmp_path, median=A_THIRD)

    def fresh() -> Service:
        return serve("--limit", str(LIMIT), "--window", f"{WINDOW:g}", "--speed", f"{SPEED:g}", "--apps", str(apps))

    poll = f"{5.0 / SPEED:g}"
    theirs = {
        slots: baseline(tmp_path, "afternoon", fresh(), "--rows", str(count), "--in-flight", str(slots), "--poll", poll)
        for slots, count in AFTERNOONS.items()
    }
    slow = baseline(tmp_path, "sequential", fresh(), "--rows", "8", "--poll", poll)
    rows(tmp_path, 200)
    polling = ours(tmp_path, fresh(), "run.max_in_flight=20")
    rows(tmp_path, 600, extra=WEBHOOK % {"port": 18_794})
    webhook = ours(tmp_path, fresh(), f"state={tmp_path / 'other'}", f"results.manifest={tmp_path / 'other.csv'}")
    speeds = {slots: per_window(numbers, AFTERNOONS[slots]) for slots, numbers in theirs.items()}
    their_requests, requests = theirs[20]["requests"] / 200, polling["requests"]["total"] / 200
    tell(
        "afternoon client, rows per window",
        **{f"at {slots}": speed for slots, speed in speeds.items()},
        sequential=per_window(slow, 8),
        ours_at_20=per_window(polling, 200),
        ours_by_webhook=per_window(webhook, 600),
        their_requests_per_row=their_requests,
        our_requests_per_row=requests,
    )
    assert per_window(polling, 200) >= 1.8 * speeds[20]
    assert requests <= 0.5 * their_requests
    assert per_window(webhook, 600) >= 1.7 * max(speeds.values())


def test_two_runs_on_one_address_share_the_limit(tmp_path: Path, start: Callable[..., Service]) -> None:
    service = start(median=HALF_A_WINDOW)
    running = []
    began = time.monotonic()
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "p.yaml").write_text(PIPELINE, encoding="utf-8")
        write_rows(folder, [row(n, title=f"{name} {n}") for n in range(400)])
        command = [sys.executable, str(HERE / "ours.py"), "p.yaml", service.url, "--speed", f"{SPEED:g}"]
        running.append(subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True))
    summaries = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    seconds = time.monotonic() - began
    answered = Counter(line["status"] for line in service.requests)
    refused = answered[429] / answered.total()
    shortest = min(line["seconds"] for line in service.accepted)
    least = least_possible(800, each=2, reads=6, shortest=shortest)
    together = max(summary["seconds"] for summary in summaries)
    tell("two runs of 400", refused=refused, seconds=seconds, over_least=together / least, requests=answered.total())
    assert sum(summary["counts"]["completed"] for summary in summaries) == 800
    assert refused < 0.01
    assert together / least <= 1.10


def test_the_price_of_the_ledger(tmp_path: Path, serve: Callable[..., Service]) -> None:
    """With no limit that matters: executions a second, against one POST and one GET for each row and nothing else.

    Durations and intervals are short enough (20 and 15 ms) that only work takes time.
    """
    speed = 10 * SPEED
    apps = lasting(tmp_path, median=0.02 * speed)

    def fresh() -> Service:
        return serve("--limit", "100000", "--window", f"{WINDOW:g}", "--speed", f"{speed:g}", "--apps", str(apps))

    bare = baseline(tmp_path, "bare", fresh(), "--rows", "3000", "--in-flight", "100")
    rows(tmp_path, 3000)
    mine = ours(tmp_path, fresh(), "run.max_in_flight=100", speed=speed)
    assert mine["counts"]["completed"] == 3000
    ratio = bare["seconds"] / mine["seconds"]
    tell(
        "no limit, 3,000 rows",
        bare_per_second=3000 / bare["seconds"],
        ours_per_second=3000 / mine["seconds"],
        ratio=ratio,
        cpu_seconds_per_1000=mine["cpu_seconds"] / 3,
        peak_mib=mine["peak_mib"],
        bare_cpu_seconds_per_1000=bare["cpu_seconds"] / 3,
    )
    assert ratio >= 0.35
