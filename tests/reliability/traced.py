"""One operation in a child process under strace: which system calls it made, and what it does when one of them fails.

The child is forked from the running interpreter, so nothing is started or imported in it, and it waits for strace to
be attached before it begins: what strace counts is the operation alone.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import traceback
import warnings
from collections import Counter
from pathlib import Path

import attrs

from hydra_detect.errors import HydraDetectError

KILL = "signal=SIGKILL"
NO_SPACE = "error=ENOSPC"
IO_ERROR = "error=EIO"

_ANY_TRACER = (0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER, PR_SET_PTRACER_ANY: for kernels with Yama
_MUTATING = (
    "mkdir,mkdirat,mknod,mknodat,open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,"
    "copy_file_range,splice,truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,msync,link,linkat,symlink,"
    "symlinkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,"
    "utime,utimes,futimesat,utimensat,setxattr,lsetxattr,fsetxattr,ioctl,io_uring_enter"
)
_READING = "read,pread64,getdents64,flock,stat,lstat,fstat,newfstatat,statx,access,faccessat,readlink,readlinkat"
_KINDS = {
    "mkdirat": "mkdir", "creat": "create", "fdatasync": "fsync", "linkat": "link", "renameat": "rename",
    "renameat2": "rename", "getdents64": "list", "pread64": "read",
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx"), "look"),
    **dict.fromkeys(("access", "faccessat", "readlink", "readlinkat"), "look"),
}  # fmt: skip
_BY_DESCRIPTOR = frozenset(["write", "fsync", "list", "read", "flock", "ask", "clone", "fchmod", "ftruncate"])
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+|\?).*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")


@attrs.frozen
class Call:
    """A system call: its name, the how manyth of that name it was, what kind of step it is, and on which path."""

    name: str
    number: int
    kind: str
    path: str


@attrs.frozen(kw_only=True)
class Outcome:
    """How the child ended.

    Args:
        end: "done", "error" (one of ours), "bare" (any other) or "killed".
        text: The message of the error.
        returned: What the operation returned, if it was done.
        calls: The system calls that strace logged.
        was_injected: Whether a fault was injected.
        injected: The call that failed because of it; None if the process was killed.
        process: Number of the child.

    """

    end: str
    text: str = ""
    returned: object = None
    calls: tuple[Call, ...] = ()
    was_injected: bool = False
    injected: Call | None = None
    process: int = 0


def why_not():
    """Return why nothing can be traced here, or nothing."""
    if not shutil.which("strace"):
        return "strace is not installed"
    outcome = run(lambda: None, log="/dev/null")
    return outcome.text if outcome.end == "denied" else ""


def run(operation, *, log, inject="", path=None):
    """Run an operation in a child under strace and return its `Outcome`.

    Args:
        operation: What to run; what it returns has to be fit for JSON.
        log: The file for strace's log.
        inject: A fault, as strace takes it.
        path: The file that it is for, where it is not for all.

    Returns:
        How it ended; `end` is "denied" if tracing is.

    """
    go, begin = os.pipe()
    report, say = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs no other thread's code
        child = os.fork()
    if not child:
        os.close(begin)
        _child(operation, go, say)
    os.close(go)
    os.close(say)
    name = inject.partition(":")[0]
    wanted = name or ",".join(f"?{name}" for name in f"{_MUTATING},{_READING}".split(","))
    faults = [*(["-e", f"inject={inject}"] if inject else []), *(["-P", str(path)] if path else [])]
    command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={wanted}", *faults, "-o", str(log), "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        first = tracer.stderr.readline()
        is_attached = "attached" in first
        if is_attached:
            os.write(begin, b"g")
        os.close(begin)  # without a go, the child leaves
        text = _read_all(report)
        _, status = os.waitpid(child, 0)
        tracer.stderr.read()
    if not is_attached:
        return Outcome(end="denied", text=f"strace may not attach: {first.strip()}")
    return _outcome(child, status, text, log)


def _outcome(child, status, text, log):
    lines = Path(log).read_text(errors="replace").splitlines()
    facts = json.loads(text) if text else {"end": "silent"}
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"the child died of signal {os.WTERMSIG(status)}"
        facts = {"end": "killed"}
    hit = [call for line, call in zip(lines, map(_call, lines), strict=True) if call and "(INJECTED)" in line]
    return Outcome(
        **facts,
        calls=tuple(_calls(lines)),
        was_injected=facts["end"] == "killed" or bool(hit),
        injected=hit[0] if hit else None,
        process=child,
    )


def _child(operation, go, say):
    """Wait, run the operation, report, leave; never returns."""
    try:
        ctypes.CDLL(None).prctl(*_ANY_TRACER, 0, 0, 0)
        if os.readv(go, [bytearray(1)]):  # no read(2): those are counted
            try:
                facts = {"end": "done", "returned": operation()}
            except HydraDetectError as error:
                facts = {"end": "error", "text": str(error)}
            except BaseException:  # noqa: BLE001  whatever it is, it goes to the test
                facts = {"end": "bare", "text": traceback.format_exc()}
            os.writev(say, [json.dumps(facts).encode()])  # nor write(2)
    finally:
        os._exit(0)


def _read_all(descriptor):
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _calls(lines):
    counts = Counter()
    for call in filter(None, map(_call, lines)):
        counts[call.name] += 1
        yield attrs.evolve(call, number=counts[call.name])


def _call(line):
    """Return the call in a line of the log, without its number; None if it is no whole one."""
    found = _LINE.fullmatch(line)
    if not found:
        return None
    name, arguments, _result = found.groups()
    kind = _kind(name, arguments)
    by_descriptor = kind in _BY_DESCRIPTOR or ', "", ' in arguments  # of a look at what is open, which has no path
    path = (_DESCRIPTOR if by_descriptor else _QUOTED).search(arguments)
    return Call(name, 0, kind, path[1] if path else "")


def _kind(name, arguments):
    if name in {"open", "openat", "openat2"}:
        return "create" if "O_CREAT" in arguments else "truncate" if "O_TRUNC" in arguments else "open"
    if name == "unlinkat":
        return "rmdir" if "AT_REMOVEDIR" in arguments else "unlink"
    if name == "ioctl":
        return "clone" if "FICLONE" in arguments else "ask"
    return _KINDS.get(name, name)
