"""The state folder: is the file system safe for a ledger, is there room, and a reserve for a disk that fills up.

All of it is asked before anything is sent. A disk that fills up in the middle of a burst would otherwise cost the
answers of the POSTs that are open: they have been paid for, and the ledger could not take them.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from lamina_batch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterable

RESERVE_FILE_NAME = "reserve"
#: Bytes kept back: 16 POSTs and 100 polls may be open, and each answer changes up to six pages of 4 KiB.
RESERVE_BYTES = 4 << 20
#: Bytes that one job takes in the ledger beside its inputs: 2.5 KiB over 1000 rows, and room for long answers.
JOB_BYTES = 4 << 10
#: Bytes of the write-ahead log between two checkpoints (1000 pages), and of what else the folder gets.
BASE_BYTES = 6 << 20
#: Files that a run may make in the folder.
MAX_LEDGER_FILES = 16


class Mount(NamedTuple):
    """A mounted file system, as the kernel names it."""

    #: absolute, symlinks resolved
    point: str
    #: nfs4, ext4, fuse.sshfs, …
    kind: str
    #: device, host:/path or //host/share
    source: str = ""


# -- network file systems ------------------------------------------------------------------------------------

#: Locks and shared memory do not hold between hosts, and SQLite's write-ahead log needs both.
_NETWORK_TYPES = re.compile(
    r"""(fuse\.)?(
      nfs[34]? | cifs | smb[23] | smbfs | afpfs | ncpfs? | webdav | davfs2?                    # file servers
    | sshfs | ftpfs | curlftpfs | gvfsd-fuse | rclone | hdfs | fuse_dfs
    | afs | auristorfs | coda | kafs | ceph(-fuse)? | glusterfs | lustre | gpfs | beegfs      # clusters
    | fhgfs | acfs | panfs | pvfs2 | mfs | moosefs | seaweedfs | juicefs
    | s3fs | s3ql | goofys | mount(point)?-s3 | gcsfuse | blobfuse2? | ossfs | cosfs | obsfs  # object stores
    | drvfs | vboxsf | vmhgfs(-fuse)? | prl_fs                                                # a virtual machine's host
    )""",
    re.VERBOSE | re.IGNORECASE,
)
#: host:/path, user@host:, C:\, https://host: what a file system says it is a view of, where its kind does not tell
_REMOTE_SOURCE = re.compile(r"//|[a-z][a-z0-9+.-]*://|[^/]+:([/\\]|$)", re.IGNORECASE)
#: FUSE may be anything at all, and 9p is the root of some sandboxes and, under WSL, the way to C:
_MAYBE_NETWORK_TYPES = re.compile(r"fuse(\..*)?|macfuse|osxfuse|9p", re.IGNORECASE)


def refuse_network(folder: Path) -> None:
    """Raise StateError if `folder`, which need not exist yet, is on a network file system."""
    there = nearest_existing_folder(folder)
    mount = mount_of(there, read_mounts())
    if mount is not None and is_network(mount):
        hint = "its locks cannot be trusted there: give the pipeline a `state` on a local disk"
        if mount.kind in {"9p", "drvfs"}:
            hint += " (under WSL one of Linux, such as below /home, not below /mnt/c)"
        raise StateError(
            f"the state folder is on a network file system ({mount.kind} at {mount.point})",
            where=str(folder),
            hint=f"{hint}; nothing was submitted",
        )


def is_network(mount: Mount) -> bool:
    """Whether other hosts may share it. An unknown kind counts as a local disk."""
    if _NETWORK_TYPES.fullmatch(mount.kind):
        return True
    source = mount.source
    return bool(
        _MAYBE_NETWORK_TYPES.fullmatch(mount.kind)
        and (_REMOTE_SOURCE.match(source) or _NETWORK_TYPES.fullmatch(source))
    )


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that an absolute path without symlinks is on: the deepest, and of several in one place the last."""
    found: Mount | None = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (
            found is None or len(Path(mount.point).parts) >= len(Path(found.point).parts)
        ):
            found = mount
    return found


def read_mounts() -> list[Mount]:
    """What is mounted, in the kernel's order; empty if it does not say."""
    import psutil  # noqa: PLC0415  # 35 ms that only a run should pay

    try:
        return [Mount(part.mountpoint, part.fstype, part.device) for part in psutil.disk_partitions(all=True)]
    except (OSError, RuntimeError):
        return []


# -- room ----------------------------------------------------------------------------------------------------


def estimate_ledger_bytes(jobs: int, input_bytes: int) -> int:
    """The bytes that a run may need beside its reserve: `jobs` to submit, whose inputs come to `input_bytes`."""
    return BASE_BYTES + jobs * JOB_BYTES + 2 * input_bytes


def ensure_disk_space(folder: Path, needed_bytes: int) -> None:
    """Raise StateError if the disk under `folder`, which need not exist yet, has less room than that."""
    try:
        disk = os.statvfs(nearest_existing_folder(folder))
    except OSError as error:
        raise StateError(f"the state folder cannot be read: {error.strerror}", where=str(folder)) from error
    free = disk.f_bavail * disk.f_frsize
    # A disk without a size (some FUSE) or without numbered files (btrfs) has no number to hold against.
    if disk.f_blocks and free < needed_bytes:
        raise StateError(
            f"the disk has {_format_mib(free)} left and this run may need {_format_mib(needed_bytes)} for its ledger",
            where=str(folder),
            hint="make room, or give the pipeline a `state` on another disk; nothing was submitted",
        )
    if disk.f_files and disk.f_favail < MAX_LEDGER_FILES:
        raise StateError(
            f"the disk can hold only {disk.f_favail} more files (it has room left, but no inodes)",
            where=str(folder),
            hint="delete files, or give the pipeline a `state` on another disk; nothing was submitted",
        )


def make_folder(folder: Path) -> None:
    """Make the state folder, with those above it, if it is not there. Raises StateError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"the state folder cannot be made in {nearest_existing_folder(folder)}: {error.strerror}",
            where=str(folder),
            hint="give the pipeline a `state` in a folder that may be written; nothing was submitted",
        ) from error


def refuse_unwritable(folder: Path) -> None:
    """Raise StateError if nothing can be written in `folder`, or where it would have to be made. Leaves no trace."""
    there = nearest_existing_folder(folder)
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
        # A file without a name, where the system has such. A read-only disk is known by nothing less.
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise StateError(
            f"nothing can be written in {there}: {error.strerror}",
            where=str(folder),
            hint="see that the folder may be written by who runs this, and the disk has room",
        ) from error


def nearest_existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists; symlinks are resolved."""
    path = Path(os.path.realpath(folder))
    while path != path.parent:
        try:
            path.stat()  # this also mounts what is mounted on demand
        except OSError:
            path = path.parent
        else:
            break
    return path


def _format_mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


# -- the reserve ---------------------------------------------------------------------------------------------


class DiskReserve:
    """Room on the disk that is kept back, and given up when there is no other.

    `with Reserve(folder) as reserve:` takes it and removes it at the end. When the ledger cannot be written,
    `release` makes room for what must still be written down; from then on nothing new may be sent.
    """

    def __init__(self, folder: Path, size: int = RESERVE_BYTES) -> None:
        self._file = folder / RESERVE_FILE_NAME
        self._size = size
        self._held = False
        self._released = False

    @property
    def released(self) -> bool:
        """Whether it had to be given up: the disk is full, and what is left of it is for what is known already."""
        return self._released

    def take(self) -> None:
        """Take the room, if it is not taken; what a killed run left behind is used again.

        The folder must exist. Raises StateError if the disk, or a quota that no other question shows, has none.
        """
        if self._held:
            return
        try:
            # Not truncated first: on a full disk what a killed run left behind would go to somebody else.
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._cannot(error) from error
        try:
            _fill_with_zeros(descriptor, self._size)
        except OSError as error:
            self._remove()
            raise self._cannot(error) from error
        finally:
            os.close(descriptor)
        self._held = True
        self._released = False

    def release(self) -> bool:
        """Give the room to others. Returns whether there was any to give: the second time there is not."""
        if not self._held:
            return False
        self._held = False
        self._released = True
        return self._remove()

    def close(self) -> None:
        """Remove it: the run is over. Whether it had to be released stays known."""
        if self._held:
            self._held = False
            self._remove()

    def _remove(self) -> bool:
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def _cannot(self, error: OSError) -> StateError:
        return StateError(
            f"{_format_mib(self._size)} cannot be kept back in the state folder: {error.strerror}",
            where=str(self._file),
            hint="make room, or see that the folder may be written; nothing was submitted",
        )

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fill_with_zeros(descriptor: int, size: int) -> None:
    """Make the file take `size` bytes of the disk, in fact and at once."""
    # Bytes that do not compress, and written: a hole or a run of zeros takes no room on some disks.
    left = memoryview(os.urandom(size))
    while left:
        left = left[os.write(descriptor, left) :]
    os.ftruncate(descriptor, size)
    os.fsync(descriptor)
