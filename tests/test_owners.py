"""Who writes: what history calls them, and whether whoever staged something is still at work."""

import ast
import os
import re
import socket
import subprocess
import sys
import time
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from store_fixtures import dead_name

from hydra_detect.storage import owners

DAY = 24 * 3600
NAMED = """
import os, sys
from pathlib import Path
from hydra_detect.storage import owners

print(owners._began(os.getpid()))
Path("/proc/self/comm").write_bytes(os.fsencode(sys.argv[1]))
print(owners._began(os.getpid()))
print(ascii(os.fsdecode(Path("/proc/self/stat").read_bytes().strip())))
"""
FORKED = """
import os
from hydra_detect.storage import owners

owners.staging_name()
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    print(os.getpid(), owners.staging_name(), flush=True)
"""


@pytest.fixture
def nobody(monkeypatch):
    """Let no variable of the environment name who is at work."""
    for variable in (owners.ACTOR_VARIABLE, "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def child():
    """Give a process of this machine that lives until it is told to end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process  # whose input is closed in the end, which ends it


def end(process):
    """Let a process end."""
    process.stdin.close()
    process.wait()


def name_of(process, *, began=None, here=None):
    """Return a staging name of a process, as it would give itself one; with another start or place, if one is given."""
    began = owners._began(process) if began is None else began
    return f"{here or owners._here()}.{process}.{began}.{uuid.uuid4().hex}"


def stage(folder, name, *, age=0.0):
    """Make a staged file of that name, as old as that in seconds."""
    path = folder / name
    path.touch()
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.usefixtures("nobody")
def test_actor_is_the_user_and_the_host(monkeypatch):
    """Without further ado history names the user and the host."""
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "Lab-3.example.org")
    assert owners.actor() == "ada@Lab-3.example.org"


@pytest.mark.parametrize(("value", "expected"), [("CI run 7", "CI run 7"), ("  nightly \n", "nightly")])
def test_actor_of_the_environment(monkeypatch, value, expected):
    """What the variable says is who is at work, without white space around it."""
    monkeypatch.setenv(owners.ACTOR_VARIABLE, value)
    assert owners.actor() == expected


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_names_nobody(monkeypatch, value):
    """An empty variable is as good as none."""
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv(owners.ACTOR_VARIABLE, value)
    assert owners.actor().startswith("ada@")


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no database")])
def test_a_user_without_a_name(monkeypatch, error):
    """A container whose user has no name gives the number, rather than no history."""
    import pwd

    def fail(_uid):
        raise error

    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert owners.actor().startswith(f"uid{os.getuid()}@")


def test_staging_names_say_whose_they_are_and_never_repeat():
    """A staging name holds place, process and when that began, and two are never the same."""
    names = {owners.staging_name() for _ in range(1000)}
    assert len(names) == 1000
    began = owners._began(os.getpid())
    assert all(re.fullmatch(rf"{owners._here()}\.{os.getpid()}\.{began}\.[0-9a-f]{{32}}", name) for name in names)


def test_when_a_process_began(child):
    """A process that began later says so; one that there is not, or that the system tells nothing of, says nothing."""
    assert 0 < owners._began(1) <= owners._began(os.getpid()) < owners._began(child.pid)
    assert owners._began(os.getpid()) == owners._began(os.getpid())
    assert owners._began(10**9) == 0


@pytest.mark.parametrize("name", ["python", "a b", "x) y", "(((", ") 1 2 3 4 5", "cut in letter \udcc3"], ids=ascii)
def test_a_process_may_have_any_name(name):
    """Whatever a process calls itself, when it began is read from the right place; the system cuts long names."""
    run = subprocess.run([sys.executable, "-c", NAMED, name], capture_output=True, text=True, check=True)
    before, after, facts = run.stdout.splitlines()
    facts = ast.literal_eval(facts)
    assert f" ({name}) " in facts
    assert before == after == facts.partition(f"({name}) ")[2].split()[19]


def test_a_child_stages_under_its_own_name(tmp_path):
    """A process that was forked has names of its own: what it leaves behind is not taken for its parent's."""
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    child, name = run.stdout.split()
    assert name.split(".")[1] == child
    assert owners.is_abandoned(stage(tmp_path, name))


@given(st.text(max_size=300))
@example("")
@example("a" * 300)
def test_staging_names_are_plain_whatever_the_host_is_called(host):
    """Whatever a host is called, its staging names are short file names of plain letters, and are known again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: host)
        name = owners.staging_name()
    assert owners._STAGED.fullmatch(name)
    assert len(name) <= 100


@pytest.mark.parametrize("age", [0, 9 * DAY])
def test_what_a_living_process_staged(tmp_path, child, age):
    """What this process or another living one of this host stages is never abandoned, however old it is."""
    theirs = name_of(child.pid)
    for name in (owners.staging_name(), theirs):
        assert not owners.is_abandoned(stage(tmp_path, name, age=age))
    end(child)
    assert owners.is_abandoned(tmp_path / theirs)


@pytest.mark.parametrize("shift", [-1, 1, 10**6])
def test_a_process_that_got_the_number_of_a_dead_one(tmp_path, child, shift):
    """What a living process would have staged at another start was a dead one's of the same number: it is abandoned."""
    for process in (child.pid, os.getpid()):
        assert owners.is_abandoned(stage(tmp_path, name_of(process, began=owners._began(process) + shift)))


def test_a_process_of_which_the_start_is_not_known(tmp_path, child, monkeypatch):
    """Where a name or the system does not say when a process began, its number alone decides, to the safe side."""
    theirs, unknown = name_of(child.pid), name_of(child.pid, began=0)
    assert not owners.is_abandoned(stage(tmp_path, unknown, age=9 * DAY))
    monkeypatch.setattr(owners, "_began", lambda _process: 0)
    assert not owners.is_abandoned(stage(tmp_path, theirs, age=9 * DAY))
    assert owners.staging_name().split(".")[2] == "0"
    end(child)
    assert owners.is_abandoned(tmp_path / unknown)
    assert owners.is_abandoned(tmp_path / theirs)


@pytest.mark.parametrize("age", [0, 9 * DAY])
def test_what_a_dead_process_staged(tmp_path, age):
    """What a process of this host left behind is abandoned as soon as it has ended."""
    assert owners.is_abandoned(stage(tmp_path, dead_name(), age=age))


def test_a_process_of_somebody_else(tmp_path, monkeypatch):
    """A process that may not be asked is alive."""

    def refuse(_process, _signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not owners.is_abandoned(stage(tmp_path, dead_name(), age=9 * DAY))


def test_a_process_number_that_there_cannot_be(tmp_path):
    """A number beyond all processes is that of none."""
    assert owners.is_abandoned(stage(tmp_path, name_of(10**30)))


@pytest.mark.parametrize(("age", "expected"), [(0, False), (DAY - 600, False), (DAY + 600, True), (-DAY, False)])
def test_what_another_host_staged(tmp_path, age, expected):
    """A process of another host cannot be asked, so what it staged is left alone for a day, whatever its number is."""
    for process in (os.getpid(), 10**30):
        assert owners.is_abandoned(stage(tmp_path, name_of(process, here="elsewhere"), age=age)) == expected


def test_what_vanished(tmp_path):
    """What another process took away meanwhile is nobody's to clear away."""
    assert not owners.is_abandoned(tmp_path / name_of(1, here="elsewhere"))


@pytest.mark.parametrize(
    "name",
    [
        "README", "000001", ".DS_Store", "host.1.1", "host.1." + "0" * 32, "host.x.1." + "0" * 32,
        "host.1.x." + "0" * 32, "host.1.1." + "0" * 31, "Host.1.1." + "0" * 32, "host.-1.1." + "0" * 32,
        "host.1.-1." + "0" * 32, "host.1.1." + "0" * 33, "host.1.1." + "g" * 32, ".1.1." + "0" * 32,
        "host.\u0663.1." + "0" * 32, "host.1.1." + "0" * 32 + ".old", "a b.1.1." + "0" * 32, "host.1.." + "0" * 32,
    ],
)  # fmt: skip
def test_what_is_not_ours_is_never_abandoned(tmp_path, name):
    """What has another name than ours belongs to somebody else, however old it is."""
    assert not owners.is_abandoned(stage(tmp_path, name, age=9 * DAY))
