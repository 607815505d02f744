"""What others do: three clients without a ledger, to hold ours against. Each prints its numbers as JSON.

    python tests/bench/baselines.py afternoon URL --rows 100 --in-flight 20 --poll 0.25
    python tests/bench/baselines.py sequential URL --rows 10 --poll 0.25
    python tests/bench/baselines.py bare URL --rows 1000 --in-flight 100

`afternoon` is what one writes in an afternoon: one session, a semaphore, POST, a poll every five seconds (scaled),
and a sleep of Retry-After on 429. `sequential` does one row after the other. `bare` is no client but a measure: one
POST and one GET for each row, both answers parsed, and nothing is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import aiohttp

APP = "bbb17293-5fe7-4645-8c6e-0745bc28254d"
HEADERS = {"x-api-key": "lma_baseline"}


def inputs(number: int) -> dict[str, object]:
    return {
        "inputs": {
            "Front": f"https://images.example.com/{number:05}.jpg",
            "Back": "https://images.example.com/back.jpg",
            "Prompt": f"Dress {number} in soft light",
            "Model Gender": "Female",
        }
    }


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.requests: Counter[str] = Counter()

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """One request, repeated after Retry-After for as long as it is refused."""
        while True:
            self.requests["total"] += 1
            async with self.session.request(method, self.url + path, json=body) as response:
                if response.status == 429:
                    self.requests["rate_limited"] += 1
                    await asyncio.sleep(float(response.headers.get("Retry-After", "5")))  # noqa: TID251
                    continue
                data: dict[str, object] = json.loads(await response.read())["data"]
                return data

    async def start(self, number: int) -> str:
        return str((await self.ask("POST", f"/v1/apps/{APP}/executions", inputs(number)))["executionId"])

    async def read(self, execution_id: str) -> str:
        return str((await self.ask("GET", f"/v1/executions/{execution_id}"))["status"])

    async def row(self, number: int, poll: float) -> None:
        execution_id = await self.start(number)
        while True:
            await asyncio.sleep(poll)  # noqa: TID251
            if await self.read(execution_id) in {"completed", "failed"}:
                return


async def run(options: argparse.Namespace) -> dict[str, object]:
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session, options.url)
        slots = asyncio.Semaphore(1 if options.kind == "sequential" else options.in_flight)

        async def one(number: int) -> None:
            async with slots:
                if options.kind == "bare":
                    await client.read(await client.start(number))
                else:
                    await client.row(number, options.poll)

        began, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(one(number) for number in range(options.rows)))
        return {
            "rows": options.rows,
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mib": _peak_mib(),
            "requests": client.requests["total"],
            "rate_limited": client.requests["rate_limited"],
        }


def _peak_mib() -> float:
    [peak] = [line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in line]
    return int(peak.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["afternoon", "sequential", "bare"])
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--poll", type=float, default=5.0)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
