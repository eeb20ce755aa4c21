"""What a check found, told: severities and verdicts in a word, for people on lines and for programs as plain values."""

import json

import attrs
import pytest

from hydra_detect.storage import findings
from hydra_detect.storage.findings import CheckReport, Finding

FINDING = Finding(
    what=findings.VERSION, path="heads/owl/versions/000001", problem="it is damaged", kind="heads", name="owl"
)
SEVERITIES = {
    **dict.fromkeys(("version", "pointer", "state", "gap", "place", "extra"), "damage"),
    **dict.fromkeys(("index", "leftover", "unfinished", "unused", "claim", "foreign"), "note"),
    **dict.fromkeys(("content", "backbone", "reference"), "unusable"),
    "refused": "not read",
}


def report_of(*whats):
    """Return a report of findings of these kinds."""
    found = tuple(attrs.evolve(FINDING, what=what) for what in whats)
    return CheckReport(depth="full", findings=found, versions=3, nbytes=0)


def test_every_kind_is_known():
    """Each constant of the module has a severity here: a new kind of finding cannot be damage by mistake."""
    constants = {value for name, value in vars(findings).items() if name.isupper() and isinstance(value, str)}
    assert constants == set(SEVERITIES)


@pytest.mark.parametrize("what", SEVERITIES)
def test_severity(what):
    """What is damaged, what is whole and of no use, what could not be read, and what hurts nobody have a word each."""
    finding = attrs.evolve(FINDING, what=what)
    assert finding.severity == SEVERITIES[what]
    assert finding.is_harmless == (SEVERITIES[what] == "note")
    assert str(finding) == f"{SEVERITIES[what]}: heads/owl/versions/000001: it is damaged"


@pytest.mark.parametrize(
    ("whats", "verdict"),
    [
        ((), "sound"),
        (("leftover", "unused", "foreign"), "sound"),
        (("refused",), "unclear"),
        (("refused", "claim"), "unclear"),
        (("refused", "version"), "damaged"),
        (("refused", "content"), "damaged"),
        (("gap",), "damaged"),
        (("backbone",), "damaged"),
        (("content", "index"), "damaged"),
    ],
)
def test_verdict(whats, verdict):
    """Notes alone leave a store sound; if nothing worse was found than what could not be read, that is unclear."""
    report = report_of(*whats)
    assert (report.verdict, report.is_sound) == (verdict, verdict == "sound")
    assert report.to_dict()["verdict"] == verdict
    assert str(report).splitlines()[-1] == f"{verdict}: 3 versions, full check"


def test_a_report_for_people():
    """For people a report is a line for each finding and each mending, and the verdict last."""
    harmless = attrs.evolve(FINDING, what=findings.LEFTOVER, problem="a process left it behind")
    report = CheckReport(
        depth="full", findings=(FINDING, harmless), versions=3, nbytes=1_500_000, mended=("it was moved",)
    )
    assert str(report).splitlines() == [
        "damage: heads/owl/versions/000001: it is damaged",
        "note: heads/owl/versions/000001: a process left it behind",
        "mended: it was moved",
        "damaged: 3 versions, full check, 1.5 MB hashed",
    ]
    sound = CheckReport(depth="quick", findings=(harmless,), versions=0, nbytes=0)
    assert str(sound).splitlines()[-1] == "sound: 0 versions, quick check"


def test_a_report_for_programs():
    """For programs a report is plain JSON values with the verdict, and a finding tells its severity."""
    found = (FINDING, attrs.evolve(FINDING, what=findings.GAP, number=7))
    report = CheckReport(depth="full", findings=found, versions=3, nbytes=5, mended=("it was moved",))
    plain = {
        "severity": "damage", "what": "version", "path": "heads/owl/versions/000001", "problem": "it is damaged",
        "kind": "heads", "name": "owl", "number": None,
    }  # fmt: skip
    assert json.loads(json.dumps(report.to_dict())) == {
        "verdict": "damaged", "sound": False, "depth": "full", "versions": 3, "nbytes": 5,
        "findings": [plain, {**plain, "what": "gap", "number": 7}], "mended": ["it was moved"],
    }  # fmt: skip


@pytest.mark.parametrize("path", ["a\nsound: 9 versions", "\x1b[2J", "\u202e"])
def test_paths_are_told_on_one_line(path):
    """Whatever a stranger's file is called, its finding is one printable line."""
    assert str(attrs.evolve(FINDING, path=path)).isprintable()
