"""What /proc says about processes and their sockets.

Daemons forbid their own user to look into them, so their sockets show to nobody without CAP_SYS_PTRACE. Who sees nothing
finds nothing wrong: a check that looks for sockets asks `must_see` first.
"""

import os
import socket
import struct

from report import Skip


def rss_mb(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def must_see(*pids):
    """Ends the check, as one that cannot be made here, unless the sockets of these processes show."""
    for pid in pids:
        try:
            # Whoever may list them need not be allowed to see what they are.
            for fd in os.listdir(f"/proc/{pid}/fd")[:1]:
                os.readlink(f"/proc/{pid}/fd/{fd}")
        except PermissionError:
            raise Skip(f"the sockets of process {pid} do not show without CAP_SYS_PTRACE; run as root") from None
        except FileNotFoundError:
            pass  # It has ended.


def inodes(pid):
    """Inodes of the sockets of a process; none of one that has ended, or of which nothing shows (`must_see`)."""
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def _address(text):
    host, port = text.split(":")
    if len(host) == 8:
        host = socket.inet_ntop(socket.AF_INET, struct.pack("<I", int(host, 16)))
    else:
        words = [int(host[i : i + 8], 16) for i in range(0, 32, 8)]
        host = socket.inet_ntop(socket.AF_INET6, struct.pack("<4I", *words))
    return host, int(port, 16)


def table(protocol):
    """Rows (local, remote, inode) of /proc/net/{tcp,udp} and the same of IPv6."""
    for name in (protocol, protocol + "6"):
        try:
            with open(f"/proc/net/{name}") as f:
                lines = f.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            yield _address(fields[1]), _address(fields[2]), fields[9]


def udp_sockets(pid):
    """UDP sockets of a process, as (local, remote)."""
    mine = inodes(pid)
    return [(local, remote) for local, remote, inode in table("udp") if inode in mine]


def udp_owner(port, pids):
    """Which of `pids` (name -> pid) has the UDP socket with this local port."""
    wanted = {inode for local, _, inode in table("udp") if local[1] == port}
    for name, pid in pids.items():
        if wanted & inodes(pid):
            return name
    return None


def tcp_sources(pid):
    """Local addresses of the connections of a process that it dialled or accepted."""
    mine = inodes(pid)
    return [(local, remote) for local, remote, inode in table("tcp") if inode in mine and remote[1]]


def descends_from(text):
    """Processes whose command line has this text in it."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    line = f.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line and alive(int(entry)):
                found.append((int(entry), line))
    return found
