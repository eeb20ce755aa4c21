"""Promotion: whether a candidate should replace the active version; a decision with its reason, and no act.

Figures count only if they were measured now, here, on the same test samples for both. What a version claims about
itself counts for nothing, so a version that was split from an original or pulled from elsewhere, without figures, can
be replaced, and cannot replace by boasting.
"""

from __future__ import annotations

import enum
import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs

from hydra_detect.errors import InputError
from hydra_detect.names import Digest

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)  # numpy's numbers are Real, too
    return is_number and 0 <= value <= 1


def _f1(_instance: object, _attribute: object, value: Any) -> None:
    # NaN is a legal outcome of a measurement that went wrong, and never promotes; 1.2 is a mistake of the caller.
    if not (_is_share(value) or (isinstance(value, Real) and math.isnan(value))):
        raise InputError("judge a version", f"its F1 is {value!r:.60}", "Give a share from 0 to 1.")


def _share(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_share(value):
        raise InputError(f"set {attribute.name}", f"it is {value!r:.60}", "Give a share from 0 to 1.")


def _digest(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Digest):
        raise InputError(f"set {attribute.name}", f"it is {value!r:.60}", "Give a Digest, as by Digest.parse.")


class Standing(enum.Enum):
    """What there is to compare with, where there is nothing."""

    NONE_ACTIVE = "no version is active"


NONE_ACTIVE = Standing.NONE_ACTIVE
"""Given in place of a measurement, says that no version is active; None says that the active one was not measured."""


@attrs.frozen(kw_only=True)
class Measurement:
    """What a version reached on labelled samples.

    Args:
        f1: F1 at the version's operating point, 0 to 1; NaN if it could not be measured.
        samples: Digest of the test samples, labels included: figures of other samples are never compared with these.

    """

    f1: float = attrs.field(validator=_f1)
    samples: Digest = attrs.field(validator=_digest)


@attrs.frozen(kw_only=True)
class PromotionPolicy:
    """When a candidate replaces the active version.

    Args:
        high_f1: From this F1 of the active version on, a candidate has only to be no worse.
        least_gain: Below it, a candidate has to be better by this much.

    """

    high_f1: float = attrs.field(default=0.95, validator=_share)
    least_gain: float = attrs.field(default=0.02, validator=_share)


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an F1 that is not a number is null."""
        return {"promote": self.promote, "reason": self.reason, **_plain(self.candidate, self.active)}

    def __str__(self) -> str:
        """One line."""
        return f"{'promote' if self.promote else 'keep'}: {self.reason}"


def _plain(candidate: Measurement | None, active: Measurement | None) -> dict[str, Any]:
    figures = {"candidate": candidate, "active": active}
    return {
        name: figure and {"f1": None if math.isnan(figure.f1) else float(figure.f1), "samples": str(figure.samples)}
        for name, figure in figures.items()
    }


def decide(
    candidate: Measurement | None,
    active: Measurement | Literal[Standing.NONE_ACTIVE] | None,
    *,
    is_pulled: bool = False,
    policy: PromotionPolicy = DEFAULT_POLICY,
) -> Decision:
    """Decide whether a candidate replaces the active version; nothing is done.

    Args:
        candidate: Its measurement; None if it was not measured.
        active: The active version's, on the same samples; None if it was not measured; `NONE_ACTIVE` if no version is
            active, and there is nothing to compare with.
        is_pulled: Whether the candidate came from elsewhere: then being the first is not enough.
        policy: The numbers.

    Raises:
        InputError: If one of these is something else.

    """
    for name, value, kinds in (
        ("candidate", candidate, (Measurement, type(None))),
        ("active", active, (Measurement, Standing, type(None))),
        ("policy", policy, (PromotionPolicy,)),
    ):
        if not isinstance(value, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise InputError("decide on a promotion", f"{name} is {value!r:.60}", f"Give one of: {names}.")
    measured = active if isinstance(active, Measurement) else None
    obstacle = _obstacle(candidate, active, is_pulled=is_pulled)
    if obstacle:
        promote, reason = False, obstacle
    elif candidate is None or measured is None:  # where a version is active both are obstacles
        promote, reason = True, "no version is active yet"
    else:
        promote, reason = _compared(candidate.f1, measured.f1, policy)
    return Decision(promote=promote, reason=reason, candidate=candidate, active=measured)


def _obstacle(candidate: Measurement | None, active: Measurement | Standing | None, *, is_pulled: bool) -> str:
    """Return what forbids a promotion before any figures are compared, or nothing."""
    if candidate is not None and math.isnan(candidate.f1):
        return "the candidate's F1 is not a number"
    if isinstance(active, Standing):
        if candidate is not None and candidate.f1 == 0:
            return "nothing that it found is right (F1 0): look at its test samples, or promote it by hand"
        return "it came from elsewhere and no version is active here: promote it by hand" if is_pulled else ""
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
    if candidate > active and candidate - active >= policy.least_gain - 1e-9:
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
    standing = NONE_ACTIVE if active is None else measure(active)
    if active is not None and standing is NONE_ACTIVE:  # which would promote whatever comes
        found = "measure says of the active version that none is active"
        raise InputError("decide on a promotion", found, "Let it return a Measurement, or None.")
    return decide(measure(candidate), standing, is_pulled=is_pulled, policy=policy)
