"""What tests of the command line share: a store named by the environment, and running commands in it."""

import json

import pytest
from store_fixtures import create

from hydra_detect.cli.commands import run
from hydra_detect.storage.owners import ACTOR_VARIABLE

STORE_VARIABLE = "HYDRA_DETECT_STORE"

ERROR = ["error", "asked", "found", "remedy", "facts"]
"""The keys of an error as JSON."""


@pytest.fixture
def owl(filled, monkeypatch):
    """The manager of a store with `owl`, versions 1 to 8 of which 1 is active, named by the environment."""
    for seed in range(3, 9):
        create(filled, "owl", seed)
    monkeypatch.setenv(STORE_VARIABLE, str(filled.store.root))
    monkeypatch.setenv(ACTOR_VARIABLE, "ann")
    return filled


def said(capsys, *arguments, code=0):
    """Run a command, see its exit code and that it complains of nothing, and return what it printed."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def told(capsys, *arguments, code=0):
    """Run a command that prints one line of JSON; return what it says."""
    (line,) = said(capsys, *arguments, "--json", code=code).splitlines()
    return json.loads(line)


def refused(capsys, *arguments, code=2):
    """Run a command that must be refused: its exit code, a sentence on standard error, nothing else; return it."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err
