"""Who writes: what history calls them, and whether whoever staged something is still at work."""

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


@pytest.fixture
def nobody(monkeypatch):
    """Let no variable of the environment name who is at work."""
    for variable in (owners.ACTOR_VARIABLE, "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)


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
    """A staging name holds host and process, and two are never the same."""
    names = {owners.staging_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(re.fullmatch(rf"{owners._here()}\.{os.getpid()}\.[0-9a-f]{{32}}", name) for name in names)


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


def test_what_a_living_process_staged(tmp_path):
    """What this process or another living one of this host stages is never abandoned, however old it is."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        theirs = f"{owners._here()}.{child.pid}.{uuid.uuid4().hex}"
        for name in (owners.staging_name(), theirs):
            assert not owners.is_abandoned(stage(tmp_path, name))
            assert not owners.is_abandoned(stage(tmp_path, name, age=9 * DAY))
    finally:
        child.communicate(b"\n")
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
    assert owners.is_abandoned(stage(tmp_path, f"{owners._here()}.{10**30}.{uuid.uuid4().hex}"))


@pytest.mark.parametrize(("age", "expected"), [(0, False), (DAY - 600, False), (DAY + 600, True), (-DAY, False)])
def test_what_another_host_staged(tmp_path, age, expected):
    """A process of another host cannot be asked, so what it staged is left alone for a day."""
    assert owners.is_abandoned(stage(tmp_path, f"elsewhere.{os.getpid()}.{uuid.uuid4().hex}", age=age)) == expected


def test_what_vanished(tmp_path):
    """What another process took away meanwhile is nobody's to clear away."""
    assert not owners.is_abandoned(tmp_path / f"elsewhere.1.{uuid.uuid4().hex}")


@pytest.mark.parametrize(
    "name",
    [
        "README", "000001", ".DS_Store", "host.1", "host.x." + "0" * 32, "host.1." + "0" * 31, "Host.1." + "0" * 32,
        "host.-1." + "0" * 32, "host.1." + "0" * 33, "host.1." + "g" * 32, ".1." + "0" * 32, "host.\u0663." + "0" * 32,
        "host.1." + "0" * 32 + ".old", "a b.1." + "0" * 32,
    ],
)  # fmt: skip
def test_what_is_not_ours_is_never_abandoned(tmp_path, name):
    """What has another name than ours belongs to somebody else, however old it is."""
    assert not owners.is_abandoned(stage(tmp_path, name, age=9 * DAY))
