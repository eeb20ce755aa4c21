"""Who writes: the process that stages something, and the person or program that history names."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import time
import uuid
from pathlib import Path

ACTOR_VARIABLE = "HYDRA_DETECT_ACTOR"
_LONGEST_HOST = 24
_HERE_DIGITS = 12
_DAY = 24 * 3600.0
_STAGED = re.compile(r"([a-z0-9-]+)\.([0-9]+)\.([0-9]+)\.[0-9a-f]{32}", re.ASCII)
_BEGAN_FIELD = 22  # of /proc/PID/stat, counted from 1; the name, field 2, may hold spaces and brackets


def actor() -> str:
    """Return who is at work, as history will name them: $HYDRA_DETECT_ACTOR, else user@host."""
    named = os.environ.get(ACTOR_VARIABLE, "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name; before Python 3.13 a KeyError
        user = f"uid{os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return f"{user}@{_host()}"


def staging_name() -> str:
    """Return a new name for something that is being written, which says whose it is: <here>.<pid>.<began>.<uuid>."""
    return f"{_here()}.{os.getpid()}.{_began(os.getpid())}.{uuid.uuid4().hex}"


def is_abandoned(path: Path) -> bool:
    """Whether whoever staged this is gone: a process of this machine that ended, or one of another machine a day ago.

    A process of another machine, container or run of the system cannot be asked, so its things are left alone for a
    day. What has another name is not ours, and is never abandoned.
    """
    found = _STAGED.fullmatch(path.name)
    if not found:
        return False
    if found[1] == _here() and os.name != "nt":  # on Windows the question would end the process
        return not _is_alive(int(found[2]), int(found[3]))
    try:
        return time.time() - path.lstat().st_mtime > _DAY
    except OSError:  # somebody else took it away
        return False


def _host() -> str:
    return socket.gethostname()


def _here() -> str:
    """Return where process numbers mean what they mean here: this machine since it started, this container.

    Two pods may have names that begin alike, or one name; a process number says nothing across that line.
    """
    facts = [_host()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            facts.append(path.read_text() if path.name == "boot_id" else str(path.readlink()))
        except OSError:  # no Linux: the host alone has to do
            continue
    word = re.sub(r"[^a-z0-9-]+", "-", _host().lower())[:_LONGEST_HOST] or "host"
    return f"{word}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:_HERE_DIGITS]}"


def _is_alive(process: int, began: int) -> bool:
    """Whether a process lives that has this number and began then: in a container most have one of a few numbers."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # alive, and somebody else's
        pass
    return not began or _began(process) in {began, 0}


def _began(process: int) -> int:
    """Return when a process began, in ticks since the system did; 0 where the system does not say."""
    try:
        facts = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return 0
    return int(facts.rpartition(b")")[2].split()[_BEGAN_FIELD - 3])
