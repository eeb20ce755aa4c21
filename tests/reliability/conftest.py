"""What the reliability tests share: counting distinct cases, and judging measured figures."""

import subprocess
import tempfile
from pathlib import Path

import pytest

SLACK = 5
"""How many times what is promised a time may take: so that a slow or busy machine is no failing test."""


class Tally:
    """Distinct cases of one test: a case that is repeated counts once, and one that is skipped counts nothing."""

    def __init__(self, what):
        self.what, self.cases, self.required = what, set(), 0

    def __len__(self):
        return len(self.cases)

    def case(self, *facts):
        """Count a case: operation, step, prior state, fault, or what else makes it one."""
        self.cases.add(facts)

    def require(self, least):
        """Fail if there were fewer cases than promised."""
        self.required = least
        assert len(self.cases) >= least, f"{self.what}: {len(self.cases)} cases, {least} were promised"


@pytest.fixture(autouse=True)
def _untraced(untraced):
    """Measure no coverage here: these tests are about faults, not lines."""


@pytest.fixture
def tally(reported):
    """Return the tally of a test; `tally("what it counts")` names it. Its count is printed at the end of the run."""
    counts = []

    def name(what):
        counts.append(Tally(what))
        return counts[-1]

    yield name
    for counted in counts:
        least = f" (at least {counted.required:,})" if counted.required else ""
        reported("distinct cases", f"{len(counted):>9,}  {counted.what}{least}")


@pytest.fixture(scope="session")
def disk_folder():
    """Return a folder on a disk, where the others may lie in memory; without one the test is skipped."""
    for place in (Path(tempfile.gettempdir()), Path.cwd()):
        told = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=False)
        if told.stdout.strip() != "tmpfs":
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
            return
    pytest.skip("neither the temporary folder nor this one lies on a disk: name one with TMPDIR")


@pytest.fixture
def exhaustive(request):
    """Whether the larger figures were asked for."""
    return request.config.getoption("--exhaustive")


@pytest.fixture
def figure(reported):
    """Return the judge of measured figures: `figure("what it is", value, promised, unit)`; it is printed at the end."""

    def judge(what, value, promised, unit, *, slack=SLACK):
        reported("measured figures", f"{value:>9.3g} {unit:<5} {what} (promised: at most {promised:g})")
        assert value <= slack * promised, f"{what}: {value:.4g} {unit}, {promised:g} is promised, {slack} times allowed"

    return judge
