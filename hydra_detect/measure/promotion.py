"""Promotion: whether a candidate should replace the active version; a decision with its reason, and no act.

Figures count only if they were measured now, here, on the same test samples for both. What a version claims about
itself counts for nothing, so a version that was split from an original or pulled from elsewhere, without figures, can
be replaced, and cannot replace by boasting.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from attrs import validators as check

from hydra_detect.errors import InputError
from hydra_detect.names import Digest

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

_SHARE = check.and_(check.ge(0.0), check.le(1.0))


def _f1(_instance: object, _attribute: object, value: Any) -> None:
    # NaN is a legal outcome of a measurement that went wrong, and never promotes; 1.2 is a mistake of the caller.
    is_number = isinstance(value, Real) and not isinstance(value, bool)  # numpy's numbers are Real, too
    if not (is_number and (math.isnan(value) or 0 <= value <= 1)):
        raise InputError("judge a version", f"its F1 is {value!r:.60}", "Give a share from 0 to 1.")


@attrs.frozen(kw_only=True)
class Measurement:
    """What a version reached on labelled samples.

    Args:
        f1: F1 at the version's operating point, 0 to 1; NaN if it could not be measured.
        samples: Digest of the test samples, labels included: figures of other samples are never compared with these.

    """

    f1: float = attrs.field(validator=_f1)
    samples: Digest = attrs.field(validator=check.instance_of(Digest))


@attrs.frozen(kw_only=True)
class PromotionPolicy:
    """When a candidate replaces the active version.

    Args:
        high_f1: From this F1 of the active version on, a candidate has only to be no worse.
        least_gain: Below it, a candidate has to be better by this much.

    """

    high_f1: float = attrs.field(default=0.95, validator=_SHARE)
    least_gain: float = attrs.field(default=0.02, validator=_SHARE)


DEFAULT_POLICY = PromotionPolicy()


@attrs.frozen(kw_only=True)
class Decision:
    """Whether to promote, and why; true or false as a condition.

    Args:
        promote: The decision.
        reason: Why, as a phrase for the history.
        candidate: What the candidate was measured at, if it was.
        active: What the active version was measured at, if there is one and it was.

    """

    promote: bool
    reason: str
    candidate: Measurement | None = None
    active: Measurement | None = None

    def __bool__(self) -> bool:
        return self.promote

    def __str__(self) -> str:
        """One line."""
        return f"{'promote' if self.promote else 'keep'}: {self.reason}"


def decide(
    candidate: Measurement | None,
    active: Measurement | None,
    *,
    has_active: bool = True,
    is_pulled: bool = False,
    policy: PromotionPolicy = DEFAULT_POLICY,
) -> Decision:
    """Decide whether a candidate replaces the active version.

    Args:
        candidate: Its measurement; None if it was not measured.
        active: The active version's, on the same samples; None if it was not measured.
        has_active: Whether any version is active; where none is, there is nothing to compare with.
        is_pulled: Whether the candidate came from elsewhere: then being the first is not enough.
        policy: The numbers.

    """
    obstacle = _obstacle(candidate, active, has_active=has_active, is_pulled=is_pulled)
    if obstacle:
        promote, reason = False, obstacle
    elif not has_active or candidate is None or active is None:  # the last two are obstacles where one is active
        promote, reason = True, "it is the first version"
    else:
        promote, reason = _compared(candidate.f1, active.f1, policy)
    return Decision(promote=promote, reason=reason, candidate=candidate, active=active)


def _obstacle(candidate: Measurement | None, active: Measurement | None, *, has_active: bool, is_pulled: bool) -> str:
    """Return what forbids a promotion before any figures are compared, or nothing."""
    if candidate is not None and math.isnan(candidate.f1):
        return "the candidate's F1 is not a number"
    if not has_active:
        return "it came from elsewhere and nothing here is active: promote it by hand" if is_pulled else ""
    if candidate is None or active is None:
        return f"{'the candidate' if candidate is None else 'the active version'} was not measured"
    if candidate.samples != active.samples:
        return f"the figures are of different samples ({candidate.samples.short}, {active.samples.short})"
    return "the active version's F1 is not a number" if math.isnan(active.f1) else ""


def _compared(candidate: float, active: float, policy: PromotionPolicy) -> tuple[bool, str]:
    figures = f"F1 {candidate:.4f} against {active:.4f}"
    if active >= policy.high_f1:
        if candidate >= active:
            return True, f"{figures}: not worse, from {policy.high_f1:g} on that is enough"
        return False, f"{figures}: worse"
    # The figures are decimal fractions to people: 0.72 - 0.70 must count as 0.02, which floats miss by 1e-17.
    if candidate > active and round(candidate - active, 9) >= policy.least_gain:
        return True, f"{figures}: better by at least {policy.least_gain:g}"
    return False, f"{figures}: not better by {policy.least_gain:g}"


def decide_now(
    candidate: T,
    active: T | None,
    measure: Callable[[T], Measurement],
    *,
    is_pulled: bool = False,
    policy: PromotionPolicy = DEFAULT_POLICY,
) -> Decision:
    """Measure both versions now and decide: `measure` has to use the same test samples for both.

    Args:
        candidate: A version, as `measure` takes it.
        active: The active version; None where none is.
        measure: Runs a version on the test samples.
        is_pulled: Whether the candidate came from elsewhere.
        policy: The numbers.

    """
    if active is None:
        return decide(measure(candidate), None, has_active=False, is_pulled=is_pulled, policy=policy)
    return decide(measure(candidate), measure(active), is_pulled=is_pulled, policy=policy)
