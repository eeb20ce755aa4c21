"""What a check of a store found: values, and how they are told."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from hydra_detect import codec

Depth = Literal["quick", "full", "deep"]

# What is wrong; `storage.repair` knows what to do about each.
VERSION, POINTER, STATE, GAP = "version", "pointer", "state", "gap"
PLACE, EXTRA, CONTENT, REFUSED = "place", "extra", "content", "refused"
BACKBONE, REFERENCE = "backbone", "reference"
LINKS = frozenset([BACKBONE, REFERENCE])
"""What a head needs beside itself, and is not here."""

INDEX, LEFTOVER, UNFINISHED, UNUSED, CLAIM, FOREIGN = "index", "leftover", "unfinished", "unused", "claim", "foreign"
HARMLESS = frozenset([INDEX, LEFTOVER, UNFINISHED, UNUSED, CLAIM, FOREIGN])
"""What no reader is hurt by."""

_WORDS = {REFUSED: "not read", CONTENT: "unusable", BACKBONE: "unusable", REFERENCE: "unusable"}


@attrs.frozen(kw_only=True)
class Finding:
    """Something that is not as it should be.

    Args:
        what: What kind of thing, one of the constants of this module.
        path: Where, from the store's root.
        problem: What is wrong, as a sentence without a stop.
        kind: "backbones" or "heads", where it belongs to one.
        name: Its name.
        number: Version or generation.

    """

    what: str
    path: str
    problem: str
    kind: str = ""
    name: str = ""
    number: int | None = None

    @property
    def is_harmless(self) -> bool:
        """Whether it hurts no reader."""
        return self.what in HARMLESS

    @property
    def severity(self) -> str:
        """In a word: "note", "damage", "not read", or "unusable": whole, and of no use."""
        return "note" if self.is_harmless else _WORDS.get(self.what, "damage")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return {"severity": self.severity, **plain}

    def __str__(self) -> str:
        path = self.path if self.path.isprintable() else ascii(self.path)
        return f"{self.severity}: {path}: {self.problem}"


@attrs.frozen(kw_only=True)
class CheckReport:
    """What a check found.

    Args:
        depth: How deep it looked.
        findings: What is not as it should be, now.
        mended: What a repair did, a sentence each.
        versions: Versions looked at.
        nbytes: Bytes read and hashed.

    """

    depth: Depth
    findings: tuple[Finding, ...]
    versions: int
    nbytes: int
    mended: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, now."""
        return all(finding.is_harmless for finding in self.findings)

    @property
    def verdict(self) -> str:
        """In a word: "sound", "damaged", or "unclear" if all that is wrong is that something could not be read."""
        harm = {finding.what for finding in self.findings if not finding.is_harmless}
        return "sound" if not harm else "unclear" if harm == {REFUSED} else "damaged"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "verdict": self.verdict,
            "sound": self.is_sound,
            "depth": self.depth,
            "versions": self.versions,
            "nbytes": self.nbytes,
            "findings": [finding.to_dict() for finding in self.findings],
            "mended": list(self.mended),
        }

    def __str__(self) -> str:
        """What was found and done, and the verdict."""
        lines = [*map(str, self.findings), *(f"mended: {text}" for text in self.mended)]
        read = f", {self.nbytes / 1e6:.1f} MB hashed" if self.nbytes else ""
        return "\n".join([*lines, f"{self.verdict}: {self.versions} versions, {self.depth} check{read}"])
