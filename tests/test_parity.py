"""The proof itself: what it must catch, and that it never passes by proving nothing."""

import attrs
import numpy as np
import pytest
import torch

from hydra_detect import codec
from hydra_detect.checkpoints.noise import ProofInput, seeded_inputs, structured_noise
from hydra_detect.checkpoints.parity import ParityReport, compare, environment, outputs_digest, thread_count

STAGES = ("transform", "level 0", "objectness", "proposals", "boxes", "scores", "labels")


def trace(pictures, *, boxes=3, change=None):
    """A made-up trace with one tensor per picture and stage; `change` maps a stage to what is added there."""
    found = {}
    for stage in STAGES:
        values = [torch.full((boxes, 4), float(picture.mean())) for picture in pictures]
        found[stage] = [value + (change or {}).get(stage, 0.0) for value in values]
    return found


@pytest.fixture
def inputs():
    """Two batches, of one and of three pictures."""
    source = np.random.default_rng(0)
    make = lambda count: [source.random((3, 8, 8), dtype=np.float32) for _ in range(count)]  # noqa: E731
    return [ProofInput("one", make(1)), ProofInput("three", make(3))]


def test_equal_traces_are_a_proof(inputs):
    """With every number equal on inputs that give detections, the report is a proof and counts the numbers."""
    report = compare(inputs, trace, trace, seeded=2)
    assert report.equal
    assert report.numbers_compared == len(STAGES) * 4 * 3 * 4
    assert report.max_absolute_difference == 0
    assert [item.detections for item in report.inputs] == [3, 9]
    assert "equal in every number" in str(report)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, float("nan")])
def test_a_difference_at_any_stage_is_a_failure_that_names_it(inputs, stage, size):
    """However small, a difference at any one stage fails the proof and is reported with its first input."""
    report = compare(inputs, trace, lambda p: trace(p, change={stage: size}), seeded=2)
    assert not report.equal
    (failure,) = report.failures
    assert failure.startswith(f"{stage}: on one 12 of 12 numbers differ")
    codec.decode(ParityReport, codec.encode(report), "a report")  # a NaN must not make it unwritable


def test_a_difference_in_a_later_input_is_found(inputs):
    """The first differing input is named even when earlier ones were equal."""

    def later(pictures):
        return trace(pictures, change={"boxes": 0.5} if len(pictures) == 3 else None)

    (failure,) = compare(inputs, trace, later, seeded=2).failures
    assert failure.startswith("boxes: on three")


def test_no_detections_are_a_failure(inputs):
    """Two detectors that both find nothing have proved nothing."""
    empty = lambda pictures: trace(pictures, boxes=0)  # noqa: E731
    report = compare(inputs, empty, empty, seeded=2)
    assert not report.equal
    assert "one gave no detections and proves nothing" in report.failures


def test_one_picture_of_a_batch_without_detections_is_a_failure(inputs):
    """Even a single empty picture within a batch is not proof."""

    def partly(pictures):
        found = trace(pictures)
        if len(pictures) == 1:
            return found
        return {stage: [values[0][:0], *values[1:]] for stage, values in found.items()}

    report = compare(inputs, partly, partly, seeded=2)
    assert report.failures == ("three gave no detections and proves nothing",)


def test_another_number_of_boxes_is_a_failure(inputs):
    """A different count is a failure, never a comparison of what both have."""
    report = compare(inputs, trace, lambda p: trace(p, boxes=2), seeded=2)
    assert not report.equal
    assert report.max_absolute_difference > 1e30
    assert "shapes" in report.failures[0]


def test_a_stage_that_only_one_side_has_is_a_failure(inputs):
    """A stage missing on either side fails the proof."""

    def without(pictures):
        found = trace(pictures)
        del found["proposals"]
        return found

    assert not compare(inputs, trace, without, seeded=2).equal
    assert not compare(inputs, without, trace, seeded=2).equal


def test_no_inputs_are_no_proof():
    """A comparison on nothing is not equal."""
    report = compare([], trace, trace, seeded=0)
    assert not report.equal
    assert report.failures == ("there was no input to compare on",)


def test_output_digests_depend_on_boxes_scores_and_labels_alone():
    """The digest of a batch's outputs changes with any final number and with nothing else."""
    picture = [torch.ones(3, 4, 4)]
    same = outputs_digest(trace(picture))
    assert outputs_digest(trace(picture, change={"objectness": 1.0})) == same
    for stage in ("boxes", "scores", "labels"):
        assert outputs_digest(trace(picture, change={stage: 1e-6})) != same


def test_seeded_inputs_are_the_same_every_time_and_varied():
    """The seeded pictures never change, have batches of one and three, several shapes, and values in [0, 1]."""
    first, second = seeded_inputs(3), seeded_inputs(3)
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))
    assert {len(item.pictures) for item in first} == {1, 3}
    ratios = {round(item.pictures[0].shape[2] / item.pictures[0].shape[1], 2) for item in first}
    assert len(ratios) == 4
    for item in first:
        for picture in item.pictures:
            assert picture.dtype == np.float32
            assert 0 <= picture.min() < picture.max() <= 1
            assert picture.std() > 0.05
    assert seeded_inputs(1)[0].pictures[0].shape[0] == 1


def test_structured_noise_is_whole_numbers_over_255():
    """Every value is a whole number over 255, so that no maths library can change it."""
    picture = structured_noise(np.random.default_rng(1), 20, 30, channels=3)
    assert np.array_equal(np.round(picture * 255), picture * np.float32(255))


def test_thread_count_is_restored():
    """Computing with a recorded number of threads leaves the process with its own number, also after an error."""
    before = torch.get_num_threads()
    with thread_count(1):
        assert environment().threads == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), thread_count(1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before


def test_the_report_survives_writing(inputs):
    """A report is read back as it was written, and its summary holds the seeded outputs alone."""
    report = compare(inputs, trace, trace, seeded=1)
    assert codec.decode(ParityReport, codec.encode(report), "a report") == report
    assert list(report.summary().outputs) == ["one"]
    assert attrs.evolve(report, inputs=()).equal is False
