"""The lock: held by one at a time, given back however its holder ends, and done without where there is none."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import filelock
import pytest
from store_fixtures import open_descriptors

from hydra_detect.errors import ConflictError, StoreError
from hydra_detect.storage import locks

HOLD = """
import sys
from pathlib import Path
from hydra_detect.storage import locks

with locks.held(Path(sys.argv[1]), "hold it"):
    print("held", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys
from pathlib import Path
from hydra_detect.storage import locks

with locks.held(Path(sys.argv[1]), "hold it"):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""
LEAVE = """
import os, sys
from pathlib import Path
from hydra_detect.storage import locks

parent = os.getpid()
with locks.held(Path(sys.argv[1]), "hold it"):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("held", flush=True)
        sys.stdin.read()
if os.getpid() != parent:
    with locks.held(Path(sys.argv[1] + ".other"), "hold another"):
        os._exit(0)
"""


@pytest.fixture
def path(tmp_path):
    """Give the path of a lock."""
    return tmp_path / "heads.owl.lock"


@pytest.fixture
def impatient(monkeypatch):
    """Let nobody wait for a lock for long."""
    monkeypatch.setattr(locks, "SECONDS", 0.05)


def holder(code, path):
    """Return a process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def take(path):
    """Take the lock and give it back."""
    with locks.held(path, "lock 'owl'"):
        pass


def refused(path):
    """Return the error of whoever cannot get the lock."""
    with pytest.raises(ConflictError, match=r"^cannot lock 'owl': another process has held ") as caught:
        take(path)
    return caught.value


def elsewhere(act, *arguments):
    """Return what comes of something in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(act(*arguments)))
    thread.start()
    thread.join()
    return found[0]


def unlocked(number, *, unlock=False):
    """Return what takes the place of `fcntl.flock` and fails, always or only when a lock is given back."""
    flock = fcntl.flock

    def fail(descriptor, operation):
        if unlock and operation != fcntl.LOCK_UN:
            return flock(descriptor, operation)
        raise OSError(number, os.strerror(number))

    return fail


# Held by one


@pytest.mark.usefixtures("impatient")
def test_a_lock_is_held_by_one_thread(path):
    """While a thread holds a lock no other gets it, and is told which file it is; when it is free, all is well."""
    with locks.held(path, "hold it"):
        error = elsewhere(refused, path)
        assert error.found == f"another process has held {path} for 0 s"
        assert error.remedy == "Try again later."
    elsewhere(take, path)
    take(path)


@pytest.mark.usefixtures("impatient")
def test_a_lock_is_held_by_one_process(path):
    """While a process holds a lock no other gets it; killed, it has given the lock back by that."""
    with holder(HOLD, path) as process:
        assert str(path) in refused(path).found
        process.kill()
        process.wait()
        take(path)


def test_who_waits_gets_the_lock(path):
    """Who has to wait gets the lock once it is free, and not before."""
    held, order = threading.Event(), []

    def wait():
        held.wait()
        with locks.held(path, "lock it"):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    with locks.held(path, "lock it"):
        held.set()
        time.sleep(0.2)  # time enough for the other one, who must not use it
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.usefixtures("impatient")
def test_a_thread_may_hold_a_lock_more_than_once(path):
    """What is done under a lock may take it again; it is free once the outermost has given it back."""
    with locks.held(path, "hold it"):
        with locks.held(path, "hold it again"), locks.held(Path(str(path)), "and again"):
            elsewhere(refused, path)
        elsewhere(refused, path)
    elsewhere(take, path)


@pytest.mark.usefixtures("impatient")
def test_two_locks_do_not_hinder_each_other(path):
    """Who holds one lock keeps nobody from another one."""
    with locks.held(path, "hold it"):
        elsewhere(take, path.with_name("heads.fox.lock"))


def test_errors_under_a_lock_are_not_those_of_the_lock(path):
    """What fails under a lock passes through as it is, a time that ran out too, and the lock is free again."""
    for error in (FileNotFoundError("lost"), filelock.Timeout("other"), KeyboardInterrupt("stop")):
        with pytest.raises(type(error), match=r"lost|other|stop") as caught, locks.held(path, "hold it"):
            raise error
        assert caught.value is error
        with filelock.FileLock(path, timeout=0) as lock:
            assert lock.is_locked


# Its file


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_the_lock_file_stays(path, umask):
    """The file is made with the mode that the umask leaves, and stays: a lock file that is deleted is no lock."""
    before = os.umask(umask)
    try:
        take(path)
    finally:
        os.umask(before)
    facts = path.stat()
    assert facts.st_mode & 0o777 == 0o666 & ~umask
    take(path)
    assert (path.stat().st_ino, path.stat().st_mode, path.stat().st_size) == (facts.st_ino, facts.st_mode, 0)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link(path, tmp_path, there):
    """A lock that someone replaced by a link is not followed, and nothing is made where it leads."""
    (tmp_path / "outside").mkdir()
    target = tmp_path / "outside" / "precious"
    if there:
        target.write_bytes(b"x")
    path.symlink_to(target)
    with pytest.raises(StoreError, match=r"^cannot lock 'owl': "):
        take(path)
    assert target.read_bytes() == b"x" if there else not target.exists()


def test_a_lock_leaks_nothing(path):
    """Taking a lock and giving it back, once or at the same time, leaves no descriptor open."""
    before = open_descriptors()
    for _ in range(3):
        with locks.held(path, "hold it"):
            take(path)
        elsewhere(take, path)
    assert open_descriptors() == before


# File systems without locks, and with broken ones


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(path, monkeypatch, number):
    """Where a file system has no locks writers go on without, quietly, and leave nothing that locks."""
    before, done = open_descriptors(), []
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(fcntl, "flock", unlocked(number))
        with locks.held(path, "hold it"):
            take(path)
            elsewhere(take, path)
            done.append("inside")
    assert done == ["inside"]
    assert open_descriptors() == before
    assert [(entry.name, entry.stat().st_size) for entry in path.parent.iterdir()] == [(path.name, 0)]
    take(path)


def test_a_filelock_that_has_none(path, monkeypatch):
    """Where filelock itself says that it has no lock for this system, writers go on without."""

    def lacking(*_arguments, **_options):
        raise NotImplementedError("no flock")

    done = []
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", lacking)
        with locks.held(path, "hold it"):
            done.append("inside")
    assert done == ["inside"]
    take(path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF, errno.EPERM])
def test_a_lock_that_fails(path, monkeypatch, number):
    """Any other error of the lock is one: nothing is done under a lock that is not held, and nothing is left."""
    before, done = open_descriptors(), []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unlocked(number))
        with (
            pytest.raises(StoreError, match=f"cannot lock 'owl': {os.strerror(number)}") as caught,
            locks.held(path, "lock 'owl'"),
        ):
            done.append("inside")
    assert (done, caught.value.facts) == ([], {"errno": number})
    assert open_descriptors() == before
    take(path)


def test_a_lock_that_cannot_be_given_back(path, monkeypatch):
    """An error in giving the lock back says that what was asked for may be done, and not that nothing was changed."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unlocked(errno.EIO, unlock=True))
        with pytest.raises(StoreError, match=r"cannot unlock heads\.owl\.lock: Input/output error") as caught:
            take(path)
    assert caught.value.remedy.startswith("Look whether what you asked for was done")
    with pytest.raises(StoreError, match=r"is in no known state: .* Start this process anew\.") as again:
        take(path)
    del caught, again
    take(path)


# Children


@pytest.mark.usefixtures("impatient")
def test_a_child_does_not_keep_the_lock_of_its_parent(path):
    """A process that was forked under a lock does not hold it: once its parent is killed the lock is free."""
    with holder(FORK, path) as process:
        refused(path)
        process.kill()
        process.wait()
        assert not process.stdout.closed
        take(path)
        os.set_blocking(process.stdout.fileno(), False)
        assert process.stdout.read() is None  # the child lives: it holds the other end


@pytest.mark.usefixtures("impatient")
def test_a_child_does_not_give_back_the_lock_of_its_parent(path):
    """A process that was forked under a lock may leave it, and take others: its parent holds the lock all the same."""
    with holder(LEAVE, path) as process:
        refused(path)
        process.stdin.close()
        process.wait()
        take(path)
