"""Promotion: a decision with its reason, from figures that were measured now on the same samples, and no act."""

import inspect
import json
import math
from pathlib import Path

import attrs
import numpy as np
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, shares
from store_fixtures import create, snapshot

from hydra_detect.errors import InputError
from hydra_detect.measure import promotion
from hydra_detect.measure.promotion import NONE_ACTIVE, Decision, Measurement, PromotionPolicy, decide, decide_now
from hydra_detect.names import Digest

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

SAMPLES, OTHERS = Digest("a" * 64), Digest("b" * 64)
NAN = Measurement(f1=math.nan, samples=SAMPLES)
figures = shares | st.integers(0, 100).map(lambda hundredths: hundredths / 100)
measured = st.builds(Measurement, f1=figures | st.just(math.nan), samples=digests | st.just(SAMPLES))
standings = st.none() | measured | st.just(NONE_ACTIVE)
policies = st.builds(PromotionPolicy, high_f1=shares, least_gain=shares)


def at(f1, samples=SAMPLES):
    """Return a measurement of this F1."""
    return Measurement(f1=f1, samples=samples)


# Laws


@given(st.none() | measured, standings, st.booleans(), policies)
def test_a_decision_always_has_its_reason(candidate, active, is_pulled, policy):
    """Whatever is known of two versions, the answer is a decision with its reason on one line, and its figures."""
    found = decide(candidate, active, is_pulled=is_pulled, policy=policy)
    assert isinstance(found, Decision)
    assert bool(found) == found.promote
    assert found.reason
    assert str(found) == f"{'promote' if found.promote else 'keep'}: {found.reason}"
    assert str(found).isprintable()
    assert (found.candidate, found.active) == (candidate, None if active is NONE_ACTIVE else active)


@given(st.none() | measured, standings, st.booleans(), policies)
def test_promoting_needs_figures_or_nothing_to_lose(candidate, active, is_pulled, policy):
    """A version is replaced only on figures of both from the same samples; first is only what was made here."""
    if not decide(candidate, active, is_pulled=is_pulled, policy=policy):
        return
    if active is NONE_ACTIVE:
        assert not is_pulled
        assert candidate is None or candidate.f1 > 0
    else:
        assert not math.isnan(candidate.f1 + active.f1)
        assert candidate.samples == active.samples
        assert candidate.f1 >= active.f1


@given(standings, st.booleans(), policies)
def test_nan_never_promotes(active, is_pulled, policy):
    """A candidate whose F1 is not a number is never promoted, not even as the first or over one that is NaN too."""
    found = decide(NAN, active, is_pulled=is_pulled, policy=policy)
    assert not found.promote
    assert found.reason == "the candidate's F1 is not a number"


@given(figures, policies)
def test_nothing_is_better_than_nan(f1, policy):
    """An active version whose F1 is not a number is not replaced on a comparison that cannot be made."""
    found = decide(at(f1), NAN, policy=policy)
    assert (found.promote, found.reason) == (False, "the active version's F1 is not a number")


@given(figures, policies)
def test_deciding_against_itself(f1, policy):
    """A version is no gain over itself: below the high mark it is kept out, from there on it is not worse."""
    assert decide(at(f1), at(f1), policy=policy).promote == (f1 >= policy.high_f1)


@given(figures, figures)
def test_at_most_one_way(one, other):
    """Of two versions that differ, not both replace each other: promotions cannot go round in circles."""
    there, back = decide(at(one), at(other)), decide(at(other), at(one))
    assert not (there and back) or one == other


@given(figures, figures, figures)
def test_better_is_never_worse_off(worse, better, active):
    """If a candidate is promoted, so is one that measures higher."""
    worse, better = sorted([worse, better])
    assert decide(at(better), at(active)) or not decide(at(worse), at(active))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_figures_are_decimal_fractions(candidate, active):
    """In thousandths, the rule is exact: not worse from 0.950 on, better by 0.020 or more below, whatever floats do."""
    expected = candidate >= active if active >= 950 else candidate - active >= 20
    assert decide(at(candidate / 1000), at(active / 1000)).promote == expected


@given(measured, digests.filter(lambda digest: digest != SAMPLES), policies)
def test_figures_of_different_samples_are_never_compared(candidate, samples, policy):
    """However good a figure is, it counts for nothing against one of other samples."""
    candidate = attrs.evolve(candidate, samples=samples, f1=1.0)
    found = decide(candidate, at(0.0), policy=policy)
    assert not found.promote
    assert found.reason == f"the figures are of different samples ({samples.short}, {SAMPLES.short})"


# Cases


@pytest.mark.parametrize(
    ("candidate", "active", "promote", "reason"),
    [
        (0.72, 0.70, True, "F1 0.7200 against 0.7000: better by at least 0.02"),
        (0.70, 0.68, True, "F1 0.7000 against 0.6800: better by at least 0.02"),  # floats miss 0.02 here by 1e-16
        (0.7199, 0.70, False, "F1 0.7199 against 0.7000: not better by 0.02"),
        (0.70, 0.70, False, "F1 0.7000 against 0.7000: not better by 0.02"),
        (0.10, 0.70, False, "F1 0.1000 against 0.7000: not better by 0.02"),
        (0.02, 0.00, True, "F1 0.0200 against 0.0000: better by at least 0.02"),
        (0.96, 0.9499, False, "F1 0.9600 against 0.9499: not better by 0.02"),
        (0.97, 0.9499, True, "F1 0.9700 against 0.9499: better by at least 0.02"),
        (0.95, 0.95, True, "F1 0.9500 against 0.9500: not worse, from 0.95 on that is enough"),
        (0.9499, 0.95, False, "F1 0.9499 against 0.9500: worse"),
        (0.951, 0.95, True, "F1 0.9510 against 0.9500: not worse, from 0.95 on that is enough"),
        (1.0, 1.0, True, "F1 1.0000 against 1.0000: not worse, from 0.95 on that is enough"),
        (0.0, 1.0, False, "F1 0.0000 against 1.0000: worse"),
    ],
)
def test_below_at_and_above_the_high_mark(candidate, active, promote, reason):
    """Below 0.95 a gain of 0.02 is needed, from 0.95 on a candidate has only to be no worse; the reason has both."""
    found = decide(at(candidate), at(active))
    assert (found.promote, found.reason) == (promote, reason)


def test_a_first_version_that_finds_nothing():
    """Even the first is not promoted if it is measured and nothing that it found is right."""
    found = decide(at(0.0), NONE_ACTIVE)
    assert not found.promote
    assert found.reason.startswith("nothing that it found is right (F1 0)")


@pytest.mark.parametrize("candidate", [None, at(0.01), at(1.0)])
def test_the_first_version(candidate):
    """Where nothing is active the first version is promoted, measured or not; not measured is not nothing."""
    found = decide(candidate, NONE_ACTIVE)
    assert (found.promote, found.reason) == (True, "no version is active yet")
    assert not decide(candidate, None)


@pytest.mark.parametrize("candidate", [None, at(1.0)])
def test_what_was_pulled_is_never_first_by_itself(candidate):
    """What came from elsewhere is not promoted where nothing here is active, whatever it measures."""
    found = decide(candidate, NONE_ACTIVE, is_pulled=True)
    assert not found.promote
    assert found.reason == "it came from elsewhere and no version is active here: promote it by hand"


def test_what_was_pulled_is_judged_like_any_other():
    """Where a version is active, what came from elsewhere is measured here like any other candidate."""
    for candidate, promote in ((0.71, False), (0.72, True)):
        assert decide(at(candidate), at(0.70), is_pulled=True).promote == promote


@pytest.mark.parametrize(
    ("candidate", "active", "reason"),
    [
        (None, at(0.5), "the candidate was not measured"), (at(0.5), None, "the active version was not measured"),
        (None, None, "the candidate was not measured"),
    ],
)  # fmt: skip
def test_what_was_not_measured(candidate, active, reason):
    """Without a measurement of both nothing is decided against the version that is active."""
    found = decide(candidate, active)
    assert (found.promote, found.reason) == (False, reason)


@given(figures, figures, policies)
def test_all_numbers_are_configurable(candidate, active, policy):
    """The two numbers of the policy alone decide."""
    gain = candidate - active + 1e-9  # which people do not see
    enough = candidate >= active if active >= policy.high_f1 else candidate > active and gain >= policy.least_gain
    assert decide(at(candidate), at(active), policy=policy).promote == enough


def test_a_policy_of_ones_own():
    """A stricter and a laxer policy decide otherwise than the usual one, and say by which numbers."""
    strict, lax = PromotionPolicy(least_gain=0.1), PromotionPolicy(high_f1=0.5)
    assert decide(at(0.75), at(0.70))
    assert decide(at(0.75), at(0.70), policy=strict).reason == "F1 0.7500 against 0.7000: not better by 0.1"
    assert decide(at(0.70), at(0.70), policy=lax).reason.endswith("not worse, from 0.5 on that is enough")
    assert PromotionPolicy(high_f1=0.95, least_gain=0.02) == promotion.DEFAULT_POLICY


# For programs


def test_for_programs():
    """A decision is plain JSON values under these keys: figures with the digest of their samples, or null."""
    assert json.loads(json.dumps(decide(at(0.72), at(0.70)).to_dict(), allow_nan=False)) == {
        "promote": True, "reason": "F1 0.7200 against 0.7000: better by at least 0.02",
        "candidate": {"f1": 0.72, "samples": str(SAMPLES)}, "active": {"f1": 0.70, "samples": str(SAMPLES)},
    }  # fmt: skip
    first = decide(None, NONE_ACTIVE).to_dict()
    assert first == {"promote": True, "reason": "no version is active yet", "candidate": None, "active": None}


@given(st.none() | measured, standings)
def test_whatever_was_measured_is_json(candidate, active):
    """Figures that are no numbers are null for programs, and nothing of a decision is NaN."""
    plain = json.loads(json.dumps(decide(candidate, active).to_dict(), allow_nan=False))
    assert list(plain) == ["promote", "reason", "candidate", "active"]
    for name, figure in (("candidate", candidate), ("active", None if active is NONE_ACTIVE else active)):
        assert (plain[name] is None) == (figure is None)
        assert figure is None or plain[name]["f1"] == (None if math.isnan(figure.f1) else figure.f1)


def test_figures_of_numpy():
    """Figures as numpy has them are figures, and plain ones for programs."""
    found = decide(at(np.float32(0.75)), at(np.float64(0.5)))
    assert found.promote
    assert json.dumps(found.to_dict()["candidate"]["f1"]) == "0.75"
    assert not decide(at(np.float32("nan")), NONE_ACTIVE)


# What is no figure


@pytest.mark.parametrize(
    "f1", [-0.01, 1.01, 95, math.inf, -math.inf, "0.9", None, [0.9], True, 1j, np.ones(2)], ids=repr
)
def test_what_is_no_share(f1):
    """A figure beyond 0 to 1 is a mistake of whoever measured, and is refused rather than compared."""
    with pytest.raises(InputError, match=r"cannot judge a version: its F1 is .*\. Give a share from 0 to 1\."):
        at(f1)


@pytest.mark.parametrize("samples", [None, "a" * 64, f"sha256:{'a' * 64}", 5])
def test_samples_are_a_digest(samples):
    """Samples that are no digest are refused: two texts may name the same samples and differ."""
    with pytest.raises(InputError, match=r"cannot set samples: it is .*\. Give a Digest, as by Digest\.parse\."):
        at(0.5, samples)


@pytest.mark.parametrize(
    "changes",
    [{"high_f1": 1.1}, {"least_gain": -0.1}, {"high_f1": math.nan}, {"least_gain": 2}, {"high_f1": None},
     {"least_gain": "0.02"}, {"high_f1": True}],
    ids=str,
)  # fmt: skip
def test_impossible_policies(changes):
    """A policy by which nothing could be decided is refused by the field."""
    (name,) = changes
    with pytest.raises(InputError, match=rf"cannot set {name}: it is .*\. Give a share from 0 to 1\."):
        PromotionPolicy(**changes)


@pytest.mark.parametrize("wrong", [0.9, "none", True, False, 0, {"f1": 0.9}, Measurement, promotion.Standing], ids=repr)
def test_what_is_no_measurement(wrong):
    """Something else in the place of a measurement or the policy is refused by name: no decision comes of a mistake."""
    for name, arguments in (("candidate", (wrong, at(0.5))), ("active", (at(0.5), wrong))):
        with pytest.raises(InputError, match=f"^cannot decide on a promotion: {name} is ") as caught:
            decide(*arguments)
        assert caught.value.remedy.startswith("Give one of: Measurement, ")
    with pytest.raises(InputError, match=r"^cannot decide on a promotion: policy is ") as caught:
        decide(at(0.9), at(0.5), policy=wrong)
    assert caught.value.remedy == "Give one of: PromotionPolicy."


def test_contradictions_cannot_be_said():
    """That nothing is active is said in place of the active version's figures, and so never beside them."""
    with pytest.raises(InputError, match=r"candidate is <Standing\.NONE_ACTIVE"):
        decide(NONE_ACTIVE, NONE_ACTIVE)
    with pytest.raises(InputError, match="policy is None"):
        decide(at(0.9), NONE_ACTIVE, policy=None)
    assert list(inspect.signature(decide).parameters) == ["candidate", "active", "is_pulled", "policy"]


# Measuring now


def test_both_are_measured_now():
    """Candidate and active version are both measured, each once, by the same measure."""
    asked = []

    def measure(version):
        asked.append(version)
        return at({"new": 0.9, "old": 0.5}[version])

    found = decide_now("new", "old", measure)
    assert (found.promote, found.candidate, found.active) == (True, at(0.9), at(0.5))
    assert sorted(asked) == ["new", "old"]
    assert not decide_now("new", "old", measure, policy=PromotionPolicy(least_gain=0.5))


def test_measuring_must_give_a_measurement():
    """A measure that returns a bare number is a mistake, and one that returns nothing decides nothing."""
    for wrong in (0.9, "0.9", NONE_ACTIVE):
        with pytest.raises(InputError, match=r"^cannot decide on a promotion: candidate is "):
            decide_now("new", "old", lambda version, wrong=wrong: at(0.5) if version == "old" else wrong)
    with pytest.raises(InputError, match="measure says of the active version that none is active"):
        decide_now("new", "old", lambda version: NONE_ACTIVE if version == "old" else at(0.5))
    found = decide_now("new", "old", lambda _version: None)
    assert (found.promote, found.reason) == (False, "the candidate was not measured")


def test_without_an_active_version_only_the_candidate_is_measured():
    """Where nothing is active there is nothing else to measure."""
    asked = []
    found = decide_now("new", None, lambda version: asked.append(version) or at(0.1))
    assert (found.promote, found.reason, asked) == (True, "no version is active yet", ["new"])
    assert (found.candidate, found.active) == (at(0.1), None)
    assert not decide_now("new", None, lambda _version: NAN)
    assert not decide_now("new", None, lambda _version: at(1.0), is_pulled=True)


def test_claims_count_for_nothing(filled):
    """What versions claim is not looked at, and deciding changes nothing in the store."""
    boasting = create(filled, "owl", seed=7, claimed_metrics={"f1": 1.0})
    before = snapshot(Path(filled.store.root))
    real = {boasting.number: at(0.3), 1: at(0.4)}
    found = decide_now(boasting, filled.active("owl"), lambda version: real[version.number])
    assert (found.promote, found.reason) == (False, "F1 0.3000 against 0.4000: not better by 0.02")
    assert decide_now(boasting, filled.active("owl"), lambda _version: at(0.96)).promote
    assert snapshot(Path(filled.store.root)) == before


def test_errors_of_measuring_rise():
    """A measurement that fails is an error, and no decision."""

    def fail(_version):
        raise ZeroDivisionError("no samples")

    with pytest.raises(ZeroDivisionError, match="no samples"):
        decide_now("new", "old", fail)
