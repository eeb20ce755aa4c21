"""Which heads there are: on a Hub for a backbone, and in a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.errors import InputError, NotFoundError
from hydra_detect.hub import documents, layout
from hydra_detect.hub.client import Hub
from hydra_detect.hub.documents import Index
from hydra_detect.hub.refs import HubRef, check_repo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.hub.client import FoundRepo
    from hydra_detect.hub.documents import Glance

_MOST = 1_000


def search(
    text: str = "", *, backbone: str | None = None, most: int = 50, endpoint: str | None = None
) -> list[FoundRepo]:
    """Return the heads on a Hub that fit a backbone, or all there are; the most downloaded first.

    Args:
        text: What their names contain.
        backbone: Repository of the backbone that they were made on: "org/backbone".
        most: How many at most, up to 1,000.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NameInvalidError: If `backbone` is no repository's name.
        InputError: If `most` is no whole number from 1 to 1,000.
        HubError: If there was no answer.

    """
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST:
        raise InputError("search the Hub", f"most is {most!r:.40}", f"Give a whole number from 1 to {_MOST}.")
    made_on = [f"base_model:adapter:{check_repo(backbone)}"] if backbone else []
    return Hub(endpoint).search(layout.HEAD_TAG, *made_on, text=text, most=most)


def list_pack(ref: str | HubRef, *, endpoint: str | None = None) -> Mapping[str, Glance]:
    """Return the heads of a pack by name, each with its newest release.

    Args:
        ref: "org/pack"; after an "@" any tag, branch or commit.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NotFoundError: If there is no such repository, or it is no pack.
        CorruptError: If its index is damaged.
        HubError: If there was no answer.

    """
    wanted, limit = HubRef.parse(ref), layout.LIMITS[layout.INDEX]
    try:
        data = Hub(endpoint).glance(wanted.repo, wanted.revision, layout.INDEX, limit=limit)
    except NotFoundError as error:
        remedy = f"{error.remedy} Only a pack of many heads has an {layout.INDEX}."
        raise NotFoundError(f"list the heads of {wanted}", error.found, remedy, **error.facts) from None
    index = documents.read(Index, data, f"{layout.INDEX} of {wanted}", limit=limit)
    return dict(sorted(index.heads.items()))
