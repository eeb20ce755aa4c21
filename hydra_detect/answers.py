"""From what heads found to `Detections`: calibrated scores, and what counts at which threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect.detections import Detections, Timing
from hydra_detect.errors import InputError, NotFoundError, near_matches
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.policy import accepted
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect import batches
    from hydra_detect.engine.found import Found
    from hydra_detect.names import HeadRef
    from hydra_detect.nets.heads import HeadOutput
    from hydra_detect.records import VersionRecord


_MARGIN = 1e-6  # more than float32 and the way to a logit and back can move a score


@attrs.frozen
class LoadedHead:
    """A head in memory: the version it is, its network as the engine runs it, and whether it follows the store."""

    version: VersionRecord
    network: Any
    follows: bool


@attrs.frozen
class Reading:
    """How a caller wants scores to be read.

    Args:
        score_threshold: Calibrated score above which a box counts, for all heads or by name; None for each head's
            operating policy, where a box counts from its threshold on.
        raw_scores: Whether the scores that are given back are the network's own.

    """

    score_threshold: float | Mapping[str, float] | None = None
    raw_scores: bool = False

    def given(self, name: str) -> float | None:
        """Return the threshold that was given for a head, if one was."""
        if isinstance(self.score_threshold, Mapping):
            value = self.score_threshold.get(name)
            return None if value is None else float(value)
        return None if self.score_threshold is None else float(self.score_threshold)

    def least_raw(self, name: str, head: LoadedHead) -> float:
        """Return a raw score that every box that counts is above: what the network need not look at any further."""
        given, record = self.given(name), head.version.record
        policy, floor = record.operating_policy, record.settings.score_threshold
        if policy is None:
            return floor if given is None else given
        if given is not None:
            return given if policy.temperature == 1 else _raw(given, policy.temperature)
        least = min([policy.score_threshold, *policy.class_thresholds.values()])
        # Thresholds are chosen, and figures taken, on boxes above the floor: others would be nobody's measure.
        return max(floor, _raw(least, policy.temperature))

    def read(self, found: Detections, name: str, head: LoadedHead) -> Detections:
        """Return what counts of what a head found, scores calibrated unless raw ones are wanted."""
        given, policy = self.given(name), head.version.record.operating_policy
        if policy is None:
            return found
        calibrated = apply_temperature(found.scores, policy.temperature)
        counts = accepted(found.scores, found.label_names, policy=policy) if given is None else calibrated > given
        read = found if self.raw_scores else attrs.evolve(found, scores=calibrated)
        return read[counts]


def _raw(calibrated: float, temperature: float) -> float:
    """Return a raw score below every one that is calibrated to at least this."""
    if calibrated < _MARGIN:
        return 0.0
    raw = float(apply_temperature([calibrated], 1 / temperature)[0])  # the way back
    return max(0.0, raw - _MARGIN * max(1.0, temperature))


def of_batch(
    jobs: Sequence[batches.Job], heads: Mapping[str, LoadedHead], found: Found, encoded: float, reading: Reading
) -> list[Detections]:
    """Return what heads found in each picture of a batch, which took `encoded` seconds to encode."""
    share = 1.0 / len(jobs)
    spans = {name: seconds * share for name, seconds in zip(heads, found.seconds, strict=True)}
    return [
        _of_picture(
            job,
            [(head, output[place]) for head, output in zip(heads.values(), found.outputs, strict=True)],
            Timing(job.seconds, encoded * share, spans, found.shared * share),
            reading,
        )
        for place, job in enumerate(jobs)
    ]


def _of_picture(
    job: batches.Job, found: Sequence[tuple[LoadedHead, HeadOutput]], timing: Timing, reading: Reading
) -> Detections:
    """Return what all heads found in one picture as one value."""
    size = job.prepared.original_size
    parts = [Detections(image_size=size, source=job.source)]
    for head, output in found:
        names, ref = head.version.record.class_names, head.version.ref
        one = of_head(output, names, ref=ref, image_size=size, source=job.source)
        parts.append(reading.read(one, ref.name, head))
    return attrs.evolve(Detections.concat(parts), timing=timing)


def of_head(
    output: HeadOutput,
    class_names: Sequence[str],
    *,
    ref: HeadRef,
    image_size: tuple[int, int],
    source: str | None = None,
) -> Detections:
    """Return what one head found in one picture."""
    labels = output.labels.cpu().numpy()
    return Detections(
        boxes=output.boxes.float().cpu().numpy(),
        scores=output.scores.float().cpu().numpy(),
        labels=labels,
        label_names=[class_names[label - 1] for label in labels],  # label 0 is the background, which no head returns
        heads=[ref.name] * len(labels),
        head_versions=[ref.version or 0] * len(labels),
        image_size=image_size,
        source=source,
    )


def check_thresholds(given: float | Mapping[str, float] | None, heads: Mapping[str, LoadedHead]) -> None:
    """See that thresholds are probabilities, each of a loaded head.

    Raises:
        NotFoundError: If a head is not loaded.
        InputError: If a threshold is no number from 0 to 1.

    """
    if given is None:
        return
    named: Mapping[str, Any] = given if isinstance(given, Mapping) else {"all heads": given}
    for name, value in named.items():
        if named is given and name not in heads:
            raise NotFoundError(f"set the threshold of {shown(name)}", "it is not loaded", near_matches(name, heads))
        if not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
            found = f"the score threshold of {name} is {shown(value)}"
            raise InputError("predict", found, "Give a number from 0 to 1.")


def listed_heads(heads: Sequence[str]) -> list[str]:
    """Return the heads that are to be run.

    Raises:
        InputError: If it is no list of names.

    """
    if isinstance(heads, str) or not all(isinstance(name, str) for name in heads):
        raise InputError("predict", f"heads is {shown(heads)}", "Give a list of names of loaded heads, as ['owl'].")
    return list(heads)
