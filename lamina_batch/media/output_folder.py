"""The folder of downloads. Files are written aside first, then moved into place, and never overwrite another file.

All of it is disk work that blocks; `disk.Disk` runs it in threads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import stat
import tempfile
import threading
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.media.disk import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Begins the name of the folder of unfinished files. No name made from a row begins with a dot (names.py).
TEMPORARY_PREFIX = ".lamina-downloads-"

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: How file systems without hard links (FAT, SMB, some of FUSE) say so.
_NO_HARD_LINK_ERRORS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class PlaceResult(Enum):
    """What became of a finished file."""

    PLACED = auto()
    #: the same bytes stood there already: a run before this one was killed before it wrote that down
    SAME = auto()
    #: another file has this name, and stays
    OCCUPIED = auto()


class OutputFolder:
    """One run's hold on an output folder, which is made when the first file is written.

    Unfinished files stand in a hidden folder inside it, locked while this process lives. What other, dead processes
    left there is removed; where the file system has no locks it stays.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._aside: tuple[Path, int] | None = None
        self._links = True

    def temporary(self) -> Path:
        """A path for an unfinished file, with nothing there yet. Raises OSError if the folder cannot be made."""
        with self._guard:
            if self._aside is None:
                self.root.mkdir(parents=True, exist_ok=True)
                self._sweep()
                self._aside = self._make_aside()
            return self._aside[0] / f"{next(self._numbers)}.part"

    def settle(self, temp: Path, file: Path, *, sha256: str, size: int) -> PlaceResult:
        """Give the finished `temp` its final name, unless something stands there; its bytes are on the disk already.

        Raises DiskError if a symbolic link or a file stands in place of a folder below the root, and OSError.
        """
        with self._opened(file.parent) as at:
            try:
                self._put(temp, file.name, at)
            except FileExistsError:
                if not _has_content(at, file.name, sha256=sha256, size=size):
                    return PlaceResult.OCCUPIED
                temp.unlink()
                return PlaceResult.SAME
            _fsync_folder(at)
        return PlaceResult.PLACED

    def close(self) -> None:
        """Remove what is unfinished."""
        with self._guard:
            if self._aside is not None:
                path, descriptor = self._aside
                with suppress(OSError):
                    _remove_stale(path, descriptor)
                os.close(descriptor)
                self._aside = None

    def _put(self, temp: Path, name: str, at: int) -> None:
        if self._links:
            try:
                # A rename would replace what stands there; a link cannot.
                os.link(temp, name, dst_dir_fd=at)
            except OSError as error:
                if error.errno not in _NO_HARD_LINK_ERRORS:
                    raise
            else:
                temp.unlink()
                return
        # An empty file claims the name, and only who made it may replace it.
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=at))
        try:
            os.rename(temp, name, dst_dir_fd=at)
        except OSError:
            os.unlink(name, dir_fd=at)
            raise
        self._links = False

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[int]:
        """`folder`, made and opened one name after the other, so that no symbolic link leads elsewhere.

        The root itself may be one, or stand behind one: the user chose it.
        """
        here = self.root
        at = os.open(here, _FOLDER_FLAGS)
        try:
            for name in folder.relative_to(self.root).parts:
                here /= name
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=at)
                    _fsync_folder(at)
                try:
                    below = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=at)
                except OSError as error:
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                        raise
                    link = stat.S_ISLNK(os.lstat(name, dir_fd=at).st_mode)
                    what = "is a symbolic link, and nothing is written through one" if link else "is not a folder"
                    raise DiskError(f"{here} {what}") from error
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _make_aside(self) -> tuple[Path, int]:
        while True:
            path = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.root))
            try:
                descriptor = os.open(path, _FOLDER_FLAGS)
            except FileNotFoundError:
                continue  # list_answered away by another run, just before it could be locked
            if _lock(descriptor) is not False and path.exists():
                return path, descriptor
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove the unfinished files of dead runs: their lock is free."""
        left: list[Path] = []
        with suppress(PermissionError), os.scandir(self.root) as entries:
            left = [Path(entry.path) for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
        for path in left:
            try:
                descriptor = os.open(path, _FOLDER_FLAGS | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                if _lock(descriptor):
                    _remove_stale(path, descriptor)
            except OSError:
                continue  # whoever may not remove it leaves it
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """True: this process has the lock. False: another one has it. None: the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_stale(path: Path, descriptor: int) -> None:
    for name in os.listdir(descriptor):
        os.unlink(name, dir_fd=descriptor)
    path.rmdir()


def _has_content(at: int, name: str, *, sha256: str, size: int) -> bool:
    """Whether `name` in the folder `at` is a plain file of exactly these bytes."""
    try:
        # Not blocking: a pipe that somebody named so must not be waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        with os.fdopen(descriptor, "rb", closefd=False) as there:
            return hashlib.file_digest(there, "sha256").hexdigest() == sha256
    finally:
        os.close(descriptor)


def _fsync_folder(folder: int) -> None:
    """Make names in this folder durable, where the file system can."""
    with suppress(OSError):
        os.fsync(folder)
