"""What the reliability tests share: counting distinct cases, judging measured figures, and printing both."""

import sys

import pytest

_COUNTS, _FIGURES = [], []
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
def _untraced():
    """Measure no coverage here: it would double the time, and these tests are about faults, not lines."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture
def tally():
    """Return the tally of a test; `tally("what it counts")` names it. Its count is printed at the end of the run."""

    def name(what):
        counted = Tally(what)
        _COUNTS.append(counted)
        return counted

    return name


@pytest.fixture
def exhaustive(request):
    """Whether the larger figures were asked for."""
    return request.config.getoption("--exhaustive")


@pytest.fixture
def figure():
    """Return the judge of measured figures: `figure("what it is", value, promised, unit)`; it is printed at the end."""

    def judge(what, value, promised, unit, *, slack=SLACK):
        _FIGURES.append((what, value, promised, unit))
        assert value <= slack * promised, f"{what}: {value:.4g} {unit}, {promised:g} is promised, {slack} times allowed"

    return judge


def pytest_terminal_summary(terminalreporter):
    """Print the counts and figures before pytest's own summary."""
    if _COUNTS:
        terminalreporter.section("reliability: distinct cases")
        for counted in _COUNTS:
            least = f" (at least {counted.required:,})" if counted.required else ""
            terminalreporter.write_line(f"{len(counted):>9,}  {counted.what}{least}")
    if _FIGURES:
        terminalreporter.section("reliability: measured figures")
        for what, value, promised, unit in _FIGURES:
            terminalreporter.write_line(f"{value:>9.3g} {unit:<5} {what} (promised: at most {promised:g})")
