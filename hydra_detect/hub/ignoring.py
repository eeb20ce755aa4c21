"""What the Hub's client would leave out of a commit, and say nothing of it: see that there is no such thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.errors import ConflictError
from hydra_detect.hub import layout

if TYPE_CHECKING:
    from hydra_detect.hub.snapshots import Snapshot


def check_takes_all(snapshot: Snapshot, folder: str, asked: str) -> None:
    """See that a commit onto this one will hold every file that it is given.

    Args:
        snapshot: The commit that it is to follow.
        folder: Where its files lie; "" is the top.
        asked: What it is for, as a phrase.

    Raises:
        ConflictError: If there is a .gitignore: the client leaves out what that covers, and the rest is committed.
        HubError: If access was refused, or there was no answer.

    """
    for path in (layout.IGNORE, layout.path_of(folder, layout.IGNORE)):
        if snapshot.listed(path) is not None:
            found = f"it holds {path}, and whatever that covers would be left out of the commit"
            raise ConflictError(asked, found, f"Delete {path} there, and run it again.")
