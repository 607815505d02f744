"""Which mount a folder is on, whether that is a network's, whether there is room, and the reserve."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from lamina_batch.errors import StateError
from lamina_batch.ledger.state_folder import (
    BASE_BYTES,
    JOB_BYTES,
    RESERVE_BYTES,
    DiskReserve,
    Mount,
    ensure_disk_space,
    estimate_ledger_bytes,
    is_network,
    mount_of,
    read_mounts,
    refuse_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: As real kernels write them: a desk with network homes, a container, WSL, and mounts over mounts.
DESK = r"""
sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
/dev/mapper/vg0-root / ext4 rw,relatime,errors=remount-ro 0 0
tmpfs /run tmpfs rw,nosuid,nodev,size=3246080k,mode=755 0 0
/dev/nvme0n1p2 /home ext4 rw,relatime 0 0
nas:/export/home/mia /home/mia nfs4 rw,vers=4.2,hard,proto=tcp,addr=192.0.2.7 0 0
/dev/nvme0n1p2 /home/mia/local ext4 rw,relatime 0 0
//nas/Team\040Share /mnt/Team\040Share cifs rw,relatime,vers=3.1.1,addr=192.0.2.7 0 0
mia@build:/srv/work /mnt/work fuse.sshfs rw,nosuid,nodev,user_id=1000 0 0
https://dav.example.com/files /mnt/dav fuse rw,nosuid,nodev,user_id=0 0 0
s3fs /mnt/bucket fuse.s3fs rw,nosuid,nodev 0 0
mountpoint-s3 /mnt/bucket3 fuse ro,nosuid,nodev 0 0
drive: /mnt/drive fuse.rclone rw,nosuid,nodev 0 0
disk1:disk2 /mnt/pool fuse.mergerfs rw,relatime 0 0
/dev/sdb1 /mnt/usb fuseblk rw,nosuid,nodev,user_id=0 0 0
tank/my:data /mnt/tank zfs rw,xattr 0 0
/dev/sdc1:/dev/sdd1 /mnt/bc bcachefs rw,relatime 0 0
/dev/nvme0n1p3 /srv/over ext4 rw 0 0
nas:/export/over /srv/over nfs rw,vers=3 0 0
nas:/export/under /srv/under nfs rw,vers=3 0 0
tmpfs /srv/under tmpfs rw 0 0
/dev/nvme0n1p2 /srv/bind ext4 rw,relatime 0 0
"""
CONTAINER = r"""
overlay / overlay rw,relatime,lowerdir=/var/lib/docker/l/A:/var/lib/docker/l/B,upperdir=/u,workdir=/w 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0
/dev/vda1 /etc/hosts ext4 rw,relatime 0 0
/run/host_mark/Users /work fakeowner rw,nosuid,nodev,relatime,fakeowner 0 0
share /host virtiofs rw,relatime 0 0
:/exports/vol1 /data nfs4 rw,relatime,vers=4.1 0 0
10.0.0.5:6789,10.0.0.6:6789:/ /ceph ceph rw,relatime,name=admin 0 0
"""
WSL = r"""
/dev/sdc / ext4 rw,relatime,discard,errors=remount-ro 0 0
C:\134 /mnt/c 9p rw,noatime,dirsync,aname=drvfs;path=C:\134;uid=1000;symlinkroot=/mnt/,trans=fd,rfd=5,wfd=5 0 0
drvfs /mnt/d 9p rw,noatime,dirsync,aname=drvfs;path=D:\134,trans=virtio 0 0
none /usr/lib/wsl/drivers 9p ro,nosuid,nodev,noatime,trans=fd,rfd=7,wfd=7 0 0
"""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], list[Mount]]]:
    """What `read_mounts` finds where the kernel tells this."""

    def tell(text: str) -> list[Mount]:
        (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/self/mounts").write_text(text.lstrip())
        psutil.PROCFS_PATH = str(tmp_path / "proc")
        return read_mounts()

    yield tell
    psutil.PROCFS_PATH = "/proc"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(
    ("text", "folder", "kind", "network"),
    [
        (DESK, "/home/jo/p/.lamina-batch/p", "ext4", False),
        (DESK, "/home/mia/p", "nfs4", True),
        (DESK, "/home/mia", "nfs4", True),
        (DESK, "/home/miami", "ext4", False),
        (DESK, "/home/mia/local/p", "ext4", False),
        (DESK, "/mnt/Team Share/catalogs", "cifs", True),
        (DESK, "/mnt/Team", "ext4", False),
        (DESK, "/mnt/work/p", "fuse.sshfs", True),
        (DESK, "/mnt/dav/p", "fuse", True),
        (DESK, "/mnt/bucket/p", "fuse.s3fs", True),
        (DESK, "/mnt/bucket3/p", "fuse", True),
        (DESK, "/mnt/drive/p", "fuse.rclone", True),
        (DESK, "/mnt/pool/p", "fuse.mergerfs", False),
        (DESK, "/mnt/usb/p", "fuseblk", False),
        (DESK, "/mnt/tank/p", "zfs", False),
        (DESK, "/mnt/bc/p", "bcachefs", False),
        (DESK, "/srv/over/p", "nfs", True),
        (DESK, "/srv/under/p", "tmpfs", False),
        (DESK, "/srv/bind/p", "ext4", False),
        (CONTAINER, "/root/p", "overlay", False),
        (CONTAINER, "/work/p", "fakeowner", False),
        (CONTAINER, "/host/p", "virtiofs", False),
        (CONTAINER, "/data/p", "nfs4", True),
        (CONTAINER, "/ceph/p", "ceph", True),
        (WSL, "/home/mia/p", "ext4", False),
        (WSL, "/mnt/c/Users/mia/p", "9p", True),
        (WSL, "/mnt/d/p", "9p", True),
        (WSL, "/usr/lib/wsl/drivers/p", "9p", False),
    ],
)
def test_a_folder_is_on_the_deepest_mount_above_it(
    mounted: Callable[[str], list[Mount]], text: str, folder: str, kind: str, network: bool
) -> None:
    mount = mount_of(Path(folder), mounted(text))
    assert mount is not None
    assert (mount.kind, is_network(mount)) == (kind, network)


@pytest.mark.parametrize(
    ("mount", "network"),
    [
        (Mount("/Volumes/share", "smbfs", "//mia@nas/share"), True),
        (Mount("/Volumes/dav", "webdav", "https://dav.example.com/"), True),
        (Mount("/Volumes/work", "macfuse", "mia@build:/srv/work"), True),
        (Mount("/Volumes/work", "macfuse", "encfs"), False),
        (Mount("/System/Volumes/Data", "apfs", "/dev/disk3s5"), False),
        (Mount("/afs", "afs", "AFS"), True),
        (Mount("/mnt/lustre", "lustre", "10.0.0.1@tcp:/fs"), True),
        (Mount("/mnt/gcs", "fuse.gcsfuse", "bucket"), True),
        (Mount("/", "9p", ""), False),
        (Mount("/mnt/new", "somethingfs", "/dev/sda1"), False),
    ],
)
def test_other_systems_and_kinds(mount: Mount, network: bool) -> None:
    assert is_network(mount) is network


def test_no_mount_is_no_answer() -> None:
    assert mount_of(Path("/home"), []) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_network_folder_is_refused_before_it_exists_and_through_a_link(
    tmp_path: Path, mounted: Callable[[str], list[Mount]]
) -> None:
    """The kernel of this test says that the folder behind the link is a network's."""
    share, link = tmp_path / "share", tmp_path / "link"
    share.mkdir()
    link.symlink_to(share)
    mounted(f"/dev/sda1 / ext4 rw 0 0\nnas:/export {share} nfs4 rw 0 0\n")
    for folder in (share, share / "not/yet", link / "not/yet"):
        with pytest.raises(StateError, match=r"network file system \(nfs4 at .*share\)") as raised:
            refuse_network(folder)
        assert raised.value.where == str(folder)
    refuse_network(tmp_path / "beside")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_where_the_kernel_does_not_say_nothing_is_refused(
    tmp_path: Path, mounted: Callable[[str], list[Mount]]
) -> None:
    mounted("")
    psutil.PROCFS_PATH = str(tmp_path / "nothing")
    assert read_mounts() == []
    refuse_network(tmp_path)


def test_this_machine_says_what_is_mounted() -> None:
    assert any(mount.point == "/" for mount in read_mounts())


def test_the_room_a_run_needs_grows_with_its_jobs_and_their_inputs() -> None:
    assert estimate_ledger_bytes(0, 0) == BASE_BYTES
    assert estimate_ledger_bytes(1000, 500_000) == BASE_BYTES + 1000 * JOB_BYTES + 1_000_000


def test_too_little_room_is_told_with_both_numbers(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    ensure_disk_space(tmp_path / "not/yet", 1)
    with pytest.raises(StateError, match=r"has [\d.]+ MiB left and this run may need [\d.]+ MiB") as raised:
        ensure_disk_space(tmp_path / "not/yet", 2 * free + 1)
    assert raised.value.where == str(tmp_path / "not/yet")
    assert "nothing was submitted" in (raised.value.hint or "")


def test_a_folder_below_a_file_is_judged_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ensure_disk_space(tmp_path / "file" / "state", 1)


# -- the reserve -------------------------------------------------------------------------------------------------


def test_a_reserve_is_really_on_the_disk_and_gone_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "reserve"
    with DiskReserve(tmp_path) as reserve:
        assert file.stat().st_size == RESERVE_BYTES
        assert file.stat().st_blocks * 512 >= RESERVE_BYTES, "a hole would hold nothing back"
        assert file.read_bytes().count(0) < RESERVE_BYTES // 100, "zeros are nothing to a disk that compresses"
        assert not reserve.released
    assert not file.exists()
    assert not reserve.released, "the end of a run is no emergency"


def test_a_reserve_is_released_once(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path)
    assert not reserve.release(), "there is nothing to release yet"
    reserve.take()
    reserve.take()
    assert reserve.release()
    assert reserve.released
    assert not (tmp_path / "reserve").exists()
    assert not reserve.release()
    reserve.close()
    assert reserve.released


def test_what_a_killed_run_left_is_used_again_and_never_grows(tmp_path: Path) -> None:
    file = tmp_path / "reserve"
    file.write_bytes(b"x" * (RESERVE_BYTES + 5))
    before = file.stat().st_ino
    with DiskReserve(tmp_path):
        assert (file.stat().st_size, file.stat().st_ino) == (RESERVE_BYTES, before)


@pytest.mark.parametrize("what", ["folder", "link", "nothing"])
def test_a_reserve_that_cannot_be_taken_is_a_clear_error(tmp_path: Path, what: str) -> None:
    """And a link is not followed: what it names stays as it is."""
    other = tmp_path / "other"
    other.write_text("mine")
    folder = tmp_path / "state"
    if what == "folder":
        (folder / "reserve").mkdir(parents=True)
    elif what == "link":
        folder.mkdir()
        (folder / "reserve").symlink_to(other)
    with pytest.raises(StateError, match="cannot be kept back") as raised:
        DiskReserve(folder).take()
    assert raised.value.where == str(folder / "reserve")
    assert other.read_text() == "mine"


def test_a_reserve_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    """The size limit of a process stands in for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVE_BYTES // 2, before[1]))
    try:
        with pytest.raises(StateError, match=r"4.0 MiB cannot be kept back.*: File too large"):
            DiskReserve(tmp_path).take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "reserve").exists()
