"""What a sandbox can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.sandbox.api_versions import GENERATIONS
from lamina_batch.sandbox.faults import parse_faults

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.sandbox.api_versions import SandboxApiVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How a sandbox behaves. Raises ValueError, with what to write instead, for a value that cannot be used."""

    #: requests that one address may make in a window
    limit: int = 100
    #: length of the rate limit's window, seconds; never divided by `speed`
    window: float = 60.0
    #: every duration of the service (executions, webhook retries) is divided by this
    speed: float = 1.0
    #: what durations and the chances of faults are drawn from
    seed: int = 0
    #: folder that keeps executions, logs and keys; None: nothing outlives the process, and nothing is logged
    data: Path | None = None
    #: faults as docs/sandbox.md lists them, such as "drop_after_accept:every=10"
    faults: tuple[str, ...] = ()
    #: send the RateLimit headers, and Retry-After with a 429
    headers: bool = True
    #: seconds that an output URL works after its execution ended
    url_lifetime: float = 3600.0
    #: Retry-After to the millisecond instead of in whole seconds
    fractional_retry_after: bool = False
    #: a file of apps to serve instead of the shipped ones
    apps: Path | None = None
    #: the generations of the API that are served: a value of `GENERATIONS`
    generations: frozenset[SandboxApiVersion] = GENERATIONS["executions"]

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is {self.limit}: it must be at least 1")
        for name in ("window", "speed", "url_lifetime"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}: it must be a number above 0")
        if self.generations not in GENERATIONS.values():
            raise ValueError(f"generations is {set(self.generations)}: it must be executions, runs or both of them")
        parse_faults(self.faults)
