"""Tests of the tests: break the library in one place, and one of the safety tests has to fail.

Every sync of the storage room is found by reading its source, so that a new one cannot be forgotten; renames,
verifications and locks are listed in mutants.toml. Each is removed alone, in a copy of the package, and tried by the
shortest test that should notice.
"""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

import hydra_detect

PACKAGE = Path(hydra_detect.__file__).parent
HERE = Path(__file__).parent
TESTS = HERE.parent


@attrs.frozen
class Mutant:
    """One place that is broken, and the tests of which one must fail: suites of safety.py, or pytest's own names."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    place: int = 0  # of several equal ones


# Which short tests to try on a sync of a file, the likeliest first; one has to fail.
SYNCED_FOR = {
    "renaming.py": ("power, rename",),
    "repair.py": ("power, repair",),
    "files.py": ("power, create", "new store", "kill and power"),
    "store.py": ("power, create", "power, promote newest", "new store", "kill and power"),
}


def syncs():
    """Every statement in the storage room that waits for the disk, removed."""
    found = []
    for path in sorted((PACKAGE / "storage").glob("*.py")):
        if path.name == "disk.py":
            continue
        text = path.read_text()
        seen = {}
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                continue
            call = node.value
            if isinstance(call.func, ast.Attribute) and call.func.attr in {"sync", "sync_folder"}:
                old = ast.get_source_segment(text, node)
                place = seen[old] = seen.get(old, -1) + 1
                tests = SYNCED_FOR.get(path.name, ("power, create", "power, promote newest", "kill and power"))
                found.append(Mutant(f"no {old}", f"storage/{path.name}", old, "pass", tests, place))
    return found


def listed():
    """The renames, verifications and locks of mutants.toml."""
    facts = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    return [Mutant(**{**fact, "tests": tuple(fact["tests"])}) for fact in facts]


MUTANTS = [*syncs(), *listed()]


def run(test, environment, folder):
    """Run one suite or test file against the package of the environment; return the exit code and what it said."""
    if test.endswith(".py") or "::" in test:
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'pytest'}"]
        command = [sys.executable, "-P", "-m", "pytest", *options, str(TESTS / test)]
    else:
        command = [sys.executable, str(HERE / "safety.py"), test]
    done = subprocess.run(
        command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=500, check=False
    )
    return done.returncode, done.stdout + done.stderr


def environment_of(package):
    """Return an environment in which `hydra_detect` is the package in this folder."""
    path = os.pathsep.join([str(package), str(HERE), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package that may be broken, without the demo's data."""
    folder = tmp_path_factory.mktemp("mutant")
    shutil.copytree(PACKAGE, folder / "hydra_detect", ignore=shutil.ignore_patterns("__pycache__", "data"))
    return folder


@pytest.fixture(scope="module")
def cases():
    """Which mutants were caught."""
    return set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what.replace(" ", "-"))
def test_broken_safety_is_noticed(mutant, copy, cases, tmp_path):
    """With one guard removed, one of the tests that should notice fails."""
    path = copy / "hydra_detect" / mutant.file
    whole = path.read_text()
    parts = whole.split(mutant.old)
    assert len(parts) > mutant.place + 1, f"{mutant.file} has no {mutant.old!r} to break: bring this list up to date"
    broken = mutant.old.join(parts[: mutant.place + 1]) + mutant.new + mutant.old.join(parts[mutant.place + 1 :])
    compile(broken, mutant.file, "exec")
    path.write_text(broken)
    try:
        for test in mutant.tests:
            code, said = run(test, environment_of(copy), tmp_path)
            assert code in {0, 1}, said[-2000:]
            if code:
                assert "Error" in said or "FAILED" in said, said[-2000:]
                cases.add(mutant)
                return
    finally:
        path.write_text(whole)
    pytest.fail(f"nobody noticed: {mutant.what}")


def test_the_safety_tests_pass_unbroken(copy, tmp_path):
    """The same tests pass on the unbroken copy: what they notice above is the breakage."""
    for test in sorted({test for mutant in MUTANTS for test in mutant.tests if not test.endswith(".py")}):
        code, said = run(test, environment_of(copy), tmp_path)
        assert code == 0, said[-3000:]


def test_all_mutants_were_caught(cases, tally, request):
    """At least 25 guards were removed, and each removal was noticed."""
    counted = tally("guards removed and noticed (syncs, renames, verifications, locks)")
    for mutant in cases:
        counted.case(mutant.file, mutant.what, mutant.place)
    if len(request.session.items) > len(MUTANTS):  # not where a few of them were chosen by hand
        counted.require(25)
        assert cases == set(MUTANTS)
