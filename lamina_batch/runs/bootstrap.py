"""Where a run meets the world: which pipeline file and which service are meant, real clocks, and chance.

The command line and the Python API both come in here, so that both mean the same by the same words. It is also the one
place that enters the embedded sandbox.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamina_batch.pipeline.spec import Pipeline, PipelineLocation
    from lamina_batch.runs.context import Access

#: The embedded sandbox is so much faster than the service, its window included, that each example ends in a minute.
SANDBOX_SPEED = 20.0
SANDBOX_WINDOW = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Which service is meant."""

    sandbox: bool = False
    #: None: LAMINA_BASE_URL or the vendor's
    base_url: str | None = None
    #: None: LAMINA_API_KEY, or the official tool's file
    api_key: str | None = field(default=None, repr=False)

    @contextmanager
    def open(self, sandbox_data: Path | None) -> Iterator[Access]:
        """Access to it while the block runs. Raises CredentialsError if no key is found."""
        from lamina_batch.client.credentials import find_credentials
        from lamina_batch.runs.context import Access

        if self.sandbox:
            if self.base_url:
                raise UsageError("the sandbox and a base URL are two services", hint="give one of them")
            from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded

            options = SandboxOptions(window=SANDBOX_WINDOW, speed=SANDBOX_SPEED, data=sandbox_data)
            with embedded(options) as url:
                yield Access(base_url=url, api_key=SANDBOX_KEY, service="sandbox", speed=SANDBOX_SPEED)
            return
        found = find_credentials(self._environ(), _home(), now=datetime.now(UTC), base_url=self.base_url)
        yield Access(
            base_url=found.base_url, api_key=found.api_key, service=found.base_url, key_source=found.key_source
        )

    def name(self) -> str:
        """What ledgers know it by. Needs no key."""
        from lamina_batch.client.credentials import find_base_url

        if self.sandbox:
            return "sandbox"
        return find_base_url(self._environ(), _home(), now=datetime.now(UTC), base_url=self.base_url)

    def _environ(self) -> Mapping[str, str]:
        return os.environ if self.api_key is None else {**os.environ, "LAMINA_API_KEY": self.api_key}


def _home() -> Path:
    """The home folder, where the official tool keeps its file. A container may have none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineTarget:
    """A pipeline file, the service that it is to run at, and what is said beside it."""

    file: Path
    service: ServiceOptions
    #: KEY=VALUE each, as for --set
    overrides: tuple[str, ...] = ()

    def load(self) -> Pipeline:
        """Read and check the pipeline file. Raises PipelineError, UsageError."""
        from lamina_batch.pipeline.load import load_pipeline

        return load_pipeline(self.file, **self._load_arguments())

    def locate(self) -> PipelineLocation:
        """What is known of it without looking at the rest of the file, which may be wrong."""
        from lamina_batch.pipeline.load import locate_pipeline

        return locate_pipeline(self.file, **self._load_arguments())

    def _load_arguments(self) -> dict[str, Any]:
        return {
            "overrides": self.overrides,
            "environ": os.environ,
            "today": date.today(),  # noqa: DTZ011  # {date} is the local date, as people name their files
            "sandbox": self.service.sandbox,
        }

    @contextmanager
    def access(self, pipeline: Pipeline) -> Iterator[Access]:
        """Access to the service while the block runs. Raises StateError if the sandbox cannot keep what it made."""
        if self.service.sandbox:
            from lamina_batch.ledger.state_folder import make_folder

            make_folder(pipeline.state / "service")
        with self.service.open(pipeline.state / "service") as access:
            yield access
