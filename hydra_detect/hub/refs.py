"""What lies on the Hub, by name: a repository, of a pack one head, and of these one revision.

`parse(str(x)) == x`. No name can leave its folder, and none can be read as another part of an address.
"""

from __future__ import annotations

import re

import attrs

from hydra_detect.errors import NameInvalidError
from hydra_detect.names import check_name, shown

_PART = r"\w(?:\w|[.-](?=\w)){0,95}"
_REPO = re.compile(f"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_+]|[./-](?=[A-Za-z0-9_])){0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RELEASE = re.compile(r"v([1-9][0-9]{0,8})", re.ASCII)
_PARTS_OF_A_PACK = 3


def is_hub_ref(text: object) -> bool:
    """Whether a text can only mean something on the Hub: names here have no slash."""
    return isinstance(text, str) and "/" in text


def check_repo(value: str) -> str:
    """Return `value` if it may be a repository's name: "org/repo".

    Raises:
        NameInvalidError: With the rule.

    """
    if isinstance(value, str) and _REPO.fullmatch(value):
        return value
    found = "a repository is ORG/REPO, each of letters, digits, '_' and single '-', '.' between them, 96 at most"
    raise NameInvalidError(f"use {shown(value)} as a repository", found, "Write it as on the Hub.", name=value)


def is_commit(value: object) -> bool:
    """Whether this is a whole commit: 40 lower-case hex digits."""
    return isinstance(value, str) and _COMMIT.fullmatch(value) is not None


def check_commit(value: str) -> str:
    """Return `value` if it is a whole commit: 40 hex digits.

    Raises:
        NameInvalidError: For anything else.

    """
    if is_commit(value):
        return value
    found = "it is not 40 lower-case hex digits"
    raise NameInvalidError(f"read {shown(value)} as a commit", found, "Give the whole commit.", name=value)


@attrs.frozen
class HubRef:
    """One repository, or one head in a pack of many, at one revision.

    Args:
        repo: "org/hydra-whistle".
        head: Which head of a pack; "" for a repository of one.
        revision: A tag, branch or commit; "" for what is in production there.

    """

    repo: str = attrs.field(validator=lambda _i, _a, value: check_repo(value) and None)
    head: str = attrs.field(default="", validator=lambda _i, _a, value: value and check_name(value) and None)
    revision: str = attrs.field(default="")

    @revision.validator
    def _check(self, _attribute: object, value: str) -> None:
        if value and not (isinstance(value, str) and _REVISION.fullmatch(value)):
            found = "a revision is a tag, branch or commit: letters, digits and single '-', '_', '.', '/' between them"
            raise NameInvalidError(f"use {shown(value)} as a revision", found, "Write it as on the Hub.", name=value)

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        where = f"{self.repo}/{self.head}" if self.head else self.repo
        return f"{where}@{self.revision}" if self.revision else where

    @classmethod
    def parse(cls, text: str | HubRef) -> HubRef:
        """Read "org/repo", "org/pack/head", each with "@revision" or without.

        Raises:
            NameInvalidError: For anything else.

        """
        if isinstance(text, HubRef):
            return text
        asked = f"read {shown(text)} as something on the Hub"
        where, at, revision = text.partition("@") if isinstance(text, str) else ("", "", "")
        parts = where.split("/")
        if len(parts) not in {2, _PARTS_OF_A_PACK} or (at and not revision):
            remedy = "Write org/repo, org/repo@v3 or, of a pack of many heads, org/pack/head@v3."
            raise NameInvalidError(asked, "it is no ORG/REPO", remedy, name=text)
        head = parts[2] if len(parts) == _PARTS_OF_A_PACK else ""
        return cls("/".join(parts[:2]), check_name(head) if len(parts) == _PARTS_OF_A_PACK else "", revision)

    @property
    def tag(self) -> str:
        """The revision as the repository has it: v3 of a head in a pack is there "whistle-v3"."""
        release = self.release
        return self.revision if release is None else tag_of(self.head, release)

    @property
    def release(self) -> int | None:
        """The release that is meant, if the revision names one."""
        named = _RELEASE.fullmatch(self.revision)
        return int(named[1]) if named else None

    @property
    def is_fixed(self) -> bool:
        """Whether it means the same for ever: a release is published once, and a commit is its own digest."""
        return self.release is not None or is_commit(self.revision)


def tag_of(head: str, release: int) -> str:
    """Return the tag of a release, in a repository of one head or in a pack."""
    return f"{head}-v{release}" if head else f"v{release}"
