"""The proof that a split changed nothing: original and rebuilt side by side, stage by stage.

Equal means difference 0 in every number of every stage, on inputs that all give detections. An input without
detections, a stage of another shape or another number of boxes is a failure, never a pass.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect.checkpoints.trace import FINAL_STAGES, Trace
from hydra_detect.codec import Record
from hydra_detect.names import Digest
from hydra_detect.nets.devices import environment
from hydra_detect.records import Environment, ParitySummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hydra_detect.checkpoints.noise import ProofInput


# Stands for a difference that is no number (a NaN, another shape), since JSON has neither NaN nor infinity.
_BEYOND_MEASURE = torch.finfo(torch.float32).max


@attrs.frozen(kw_only=True)
class StageResult(Record):
    """One stage over all inputs.

    `first_difference` names the first input in which it differed, and how; None if it never did.
    """

    name: str
    numbers: int
    max_absolute_difference: float
    max_relative_difference: float
    first_difference: str | None = None


@attrs.frozen(kw_only=True)
class InputResult(Record):
    """One input batch: how many pictures, how many boxes the original found, the digest of its outputs."""

    name: str
    pictures: int
    detections: int
    outputs: Digest
    seeded: bool


@attrs.frozen(kw_only=True)
class ParityReport(Record):
    """The whole comparison; it is a proof exactly when `equal`."""

    stages: tuple[StageResult, ...]
    inputs: tuple[InputResult, ...]
    environment: Environment

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per thing that was not equal or proved nothing."""
        empty = [f"{item.name} gave no detections and proves nothing" for item in self.inputs if not item.detections]
        differing = [f"{stage.name}: {stage.first_difference}" for stage in self.stages if stage.first_difference]
        nothing = [] if self.inputs and self.stages else ["there was no input to compare on"]
        return (*nothing, *empty, *differing)

    @property
    def equal(self) -> bool:
        """Whether every number of every stage was equal on every input."""
        return not self.failures

    @property
    def numbers_compared(self) -> int:
        """Numbers compared over all stages."""
        return sum(stage.numbers for stage in self.stages)

    @property
    def max_absolute_difference(self) -> float:
        """The largest difference anywhere; 0.0 for a proof."""
        return max((stage.max_absolute_difference for stage in self.stages), default=0.0)

    def summary(self) -> ParitySummary:
        """Return what the head's record keeps of it."""
        return ParitySummary(
            equal=self.equal,
            stages=len(self.stages),
            numbers_compared=self.numbers_compared,
            max_absolute_difference=self.max_absolute_difference,
            outputs={item.name: item.outputs for item in self.inputs if item.seeded},
            environment=self.environment,
        )

    def __str__(self) -> str:
        """Return a table of the stages, then what failed or one line of success."""
        rows = [f"{'stage':<14}{'numbers':>14}{'max difference':>18}"]
        rows += [f"{s.name:<14}{s.numbers:>14,}{s.max_absolute_difference:>18.3g}" for s in self.stages]
        found = sum(item.detections for item in self.inputs)
        pictures = sum(item.pictures for item in self.inputs)
        if self.equal:
            rows.append(f"equal in every number, on {pictures} pictures with {found} detections")
        return "\n".join([*rows, *(f"NOT EQUAL: {failure}" for failure in self.failures)])


def compare(
    inputs: Sequence[ProofInput],
    original: Callable[[Sequence[torch.Tensor]], Trace],
    rebuilt: Callable[[Sequence[torch.Tensor]], Trace],
    *,
    seeded: int,
    progress: Callable[[int, int], None] | None = None,
) -> ParityReport:
    """Run both detectors on every input and compare all stages.

    Args:
        inputs: Batches; the first `seeded` of them are the seeded ones.
        original: Runs the original on a batch.
        rebuilt: Runs the rebuilt detector on a batch.
        seeded: How many of `inputs` are seeded, so that their outputs can be recomputed anywhere.
        progress: Called with inputs done and inputs in all.

    """
    stages: dict[str, StageResult] = {}
    results = []
    for place, item in enumerate(inputs):
        pictures = item.tensors()
        theirs, ours = original(pictures), rebuilt(pictures)
        for name in dict.fromkeys((*theirs, *ours)):
            result = _compare_stage(name, item.name, theirs.get(name, []), ours.get(name, []))
            stages[name] = _joined(stages[name], result) if name in stages else result
        counts = [len(boxes) for boxes in theirs["boxes"]]
        results.append(
            InputResult(
                name=item.name,
                pictures=len(pictures),
                detections=sum(counts) if all(counts) else 0,  # one picture without any proves nothing either
                outputs=outputs_digest(theirs),
                seeded=place < seeded,
            )
        )
        if progress:
            progress(place + 1, len(inputs))
    return ParityReport(stages=tuple(stages.values()), inputs=tuple(results), environment=environment())


def outputs_digest(trace: Trace) -> Digest:
    """Return the SHA-256 over shape and bytes of a batch's final boxes, scores and labels."""
    total = hashlib.sha256()
    for stage in FINAL_STAGES:
        for tensor in trace[stage]:
            total.update(f"{stage}{list(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return Digest(total.hexdigest())


@contextlib.contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Compute with so many threads, as a recorded proof did; the process's own number is restored after."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compare_stage(stage: str, name: str, theirs: Sequence[torch.Tensor], ours: Sequence[torch.Tensor]) -> StageResult:
    shapes = [list(tensor.shape) for tensor in theirs], [list(tensor.shape) for tensor in ours]
    numbers = sum(tensor.numel() for tensor in theirs)
    if shapes[0] != shapes[1] or not theirs:
        said = f"on {name} the original gives shapes {shapes[0]} and the rebuilt {shapes[1]}"
        return _stage(stage, numbers, (_BEYOND_MEASURE, _BEYOND_MEASURE), said)
    pairs = list(zip(theirs, ours, strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return _stage(stage, numbers, (0.0, 0.0), None)
    absolute = max(_largest((a.double() - b.double()).abs()) for a, b in pairs)
    relative = max(_largest((a.double() - b.double()).abs() / a.double().abs().clamp(min=1e-12)) for a, b in pairs)
    count = sum(int((a != b).sum()) for a, b in pairs)
    said = f"on {name} {count} of {numbers} numbers differ, by up to {absolute:.3g}"
    return _stage(stage, numbers, (absolute, relative), said)


def _largest(values: torch.Tensor) -> float:
    # A NaN in one of the two must not hide behind max(), and JSON has no NaN.
    values = torch.nan_to_num(values, nan=_BEYOND_MEASURE, posinf=_BEYOND_MEASURE)
    return float(values.max()) if values.numel() else 0.0


def _stage(name: str, numbers: int, differences: tuple[float, float], first: str | None) -> StageResult:
    return StageResult(
        name=name,
        numbers=numbers,
        max_absolute_difference=differences[0],
        max_relative_difference=differences[1],
        first_difference=first,
    )


def _joined(first: StageResult, second: StageResult) -> StageResult:
    return _stage(
        first.name,
        first.numbers + second.numbers,
        (
            max(first.max_absolute_difference, second.max_absolute_difference),
            max(first.max_relative_difference, second.max_relative_difference),
        ),
        first.first_difference or second.first_difference,
    )
