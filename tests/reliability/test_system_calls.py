"""kill -9, a full disk and an I/O error at the real system calls of every operation, injected from outside by strace.

The other tests stop at the steps of `storage.disk.Disk`. Here the system itself fails, below Python, so that nothing
that bypasses those steps can hide; and that nothing does is a test of its own. Done in `faults`, counted here.
"""

import apart
import pytest
import traced
from traced import IO_ERROR


@pytest.fixture(scope="module", autouse=True)
def _traceable():
    problem = traced.why_not()
    if problem:
        pytest.skip(f"no system call can be made to fail: {problem}")


def test_every_call_is_a_step(tally):
    """What strace saw an operation change is, call by call and path by path, what the steps of `Disk` say it changed.

    So a fault, a kill or a power loss at each step is one at each call, and no write, link or removal of its own
    passes by. The folder of locks aside: its files are the lock library's, and hold nothing.
    """
    cases = tally("system calls that are steps of the disk, one for one")
    cases.cases.update(apart.cases("faults", "compare_calls_with_steps"))
    cases.require(300)


def test_fault_at_every_call(tally, exhaustive):
    """Whatever call is killed or fails: old world or new, acknowledged is there, only our errors, it goes on."""
    cases = tally("kill -9, ENOSPC and EIO at real system calls")
    cases.cases.update(apart.cases("faults", "fault_at_every_call", exhaustive=exhaustive))
    cases.require(4000 if exhaustive else 900)


def test_fault_while_a_store_is_made(tally):
    """A store whose making was cut off at any call is no foreign folder: the next one who tries makes it."""
    cases = tally("kill -9, ENOSPC and EIO at real system calls while a store is made")
    cases.cases.update(apart.cases("faults", "fault_while_a_store_is_made"))
    cases.require(30)


@pytest.mark.parametrize(
    ("state", "fault"), [("six, promoted", "error=EACCES"), ("damaged version", IO_ERROR)], ids=["rights", "disk"]
)
def test_file_that_cannot_be_read(state, fault, tally):
    """What the system refuses to read proves no damage: a repair leaves it in its place, and decides nothing by it."""
    cases = tally(f"files that cannot be read while a store is repaired: {fault}")
    cases.cases.update(apart.cases("faults", "files_that_cannot_be_read", state=state, fault=fault))
    cases.require(25)
