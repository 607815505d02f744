"""Saves the files of completed jobs while the run goes on, and writes down what became of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lamina_batch.errors import StateError
from lamina_batch.ledger.ledger import Download
from lamina_batch.media.downloads import DownloadQueue, DownloadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from lamina_batch.ledger.ledger import Ledger, OutputFile
    from lamina_batch.media.downloads import DownloadResult
    from lamina_batch.media.names import PathPattern
    from lamina_batch.runtime import Runtime


@dataclass(slots=True, kw_only=True)
class OutputDownloader:
    """Use as `async with`; what is not saved when the block is left is for the next run."""

    ledger: Ledger
    pattern: PathPattern
    runtime: Runtime
    note: Callable[[str], None]
    #: how many were saved, and how many could not be
    saved: int = 0
    failed: int = 0
    _downloads: DownloadQueue = field(init=False)
    #: what the ledger could not take yet
    _unwritten: list[Download] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        known = {(f.job_id, f.position): self._place(f.file) for f in self.ledger.files() if f.file is not None}
        self._downloads = DownloadQueue(pattern=self.pattern, report=self._ended, taken=known, runtime=self.runtime)
        await self._downloads.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._downloads.__aexit__(kind, error, trace)
        self._write_down()
        if self._unwritten:
            self.note(
                f"{len(self._unwritten)} files are saved, but the ledger could not be told; the next run tells it"
            )

    def completed(self, job_id: int) -> None:
        """A job has completed: save its files."""
        self._want(self.ledger.files(job_id))

    def missing(self, job_ids: Collection[int]) -> int:
        """Save what these jobs have no file of. Returns how many files that is."""
        wanted = set(job_ids)
        return self._want([file for file in self.ledger.files() if file.job_id in wanted])

    @property
    def left(self) -> int:
        """How many are neither saved nor given up."""
        return self._downloads.left

    async def finish(self) -> None:
        """Wait until all is saved or given up."""
        await self._downloads.finish()

    def _want(self, files: list[OutputFile]) -> int:
        missing = [file for file in files if file.file is None or not self._place(file.file).exists()]
        for file in missing:
            self._downloads.add(
                DownloadRequest(
                    job_id=file.job_id,
                    position=file.position,
                    url=file.url,
                    type=file.type,
                    key=file.key,
                    variant=file.variant,
                    label=file.label,
                )
            )
        return len(missing)

    def _place(self, file: str) -> Path:
        return Path(os.path.normpath(self.ledger.folder / file))

    def _ended(self, ended: DownloadResult) -> None:
        if ended.file is None:
            self.failed += 1
            if self.failed == 1:
                self.note(
                    f"a file could not be saved: {ended.error}; the manifest names each, and `results` tries again"
                )
        else:
            self.saved += 1
        file = None if ended.file is None else os.path.relpath(ended.file, self.ledger.folder)
        self._unwritten.append(
            Download(job_id=ended.job_id, position=ended.position, file=file, sha256=ended.sha256, error=ended.error)
        )
        self._write_down()

    def _write_down(self) -> None:
        try:
            self.ledger.put_downloads(self._unwritten, at=self.runtime.wall())
        except StateError:
            # The files are there, and found again by their bytes; the engine tells what is wrong with the ledger.
            return
        self._unwritten.clear()
