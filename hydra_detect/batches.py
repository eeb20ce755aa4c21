"""Pictures on their way through the network: read a few at a time, grouped by padded size.

Knows nothing of heads. At most one chunk of pictures is held, and a picture that cannot be read does not take those
before it down with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from hydra_detect.errors import HydraDetectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hydra_detect.nets.backbones import Prepared
    from hydra_detect.pictures import Picture

T = TypeVar("T")


@attrs.frozen
class Job:
    """One picture, ready for the backbone.

    Args:
        source: Path or name, if known.
        prepared: Normalised, resized, padded.
        seconds: What that took.

    """

    source: str | None
    prepared: Prepared
    seconds: float


@attrs.frozen
class Chunk:
    """Pictures that are held together, and what was wrong with the one after them."""

    jobs: Sequence[Job]
    problem: HydraDetectError | None = None


def chunks(source: Iterator[Picture], prepare: Callable[[Picture], Job], *, size: int) -> Iterator[Chunk]:
    """Read and prepare pictures, `size` at a time; the first that cannot be read ends the last chunk."""
    jobs: list[Job] = []
    while True:
        try:
            picture = next(source, None)
            if picture is not None:
                jobs.append(prepare(picture))
        except HydraDetectError as problem:
            yield Chunk(jobs, problem)
            return
        if picture is None or len(jobs) == size:
            full, jobs = Chunk(jobs), []
            yield full
            del full  # whoever took it decides how long its pictures are held
        if picture is None:
            return


def by_size(jobs: Sequence[Job], run: Callable[[Sequence[Job]], Sequence[T]]) -> list[T]:
    """Return what each job comes to, in their order: those of one padded size are run together.

    Padding pictures of several sizes to a common one would change what is found.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(job.prepared.padded_size, []).append(place)
    found: dict[int, T] = {}
    for places in groups.values():
        found.update(zip(places, run([jobs[place] for place in places]), strict=True))
    return [found[place] for place in range(len(jobs))]
