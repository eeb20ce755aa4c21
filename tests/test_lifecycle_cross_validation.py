"""Cross-validation: where samples are too few for four roles, each is judged by a head that never saw it."""

import threading

import lifecycle_fixtures
import pytest
from lifecycle_fixtures import BADLY, HARDLY, QUICK, give, lights, role_of, runs_of, teach, with_backbone

from hydra_detect.data.samples import Role, Samples
from hydra_detect.detections import Detections
from hydra_detect.errors import InputError, RoleError, TrainingStoppedError
from hydra_detect.lifecycle import attempts, beside
from hydra_detect.lifecycle.judging import evaluate
from hydra_detect.lifecycle.runs import compare_runs
from hydra_detect.measure.crosswise import as_read_by
from hydra_detect.measure.policy import accepted
from hydra_detect.records import OperatingPolicy
from hydra_detect.storage import heads
from hydra_detect.tensors import tensors_digest
from hydra_detect.training import loop
from hydra_detect.training.tools import Tools

bare = lifecycle_fixtures.bare

FEW = lights(8, 2)


# What is told


def test_few_samples_are_cross_validated(bare):
    """There is a version that was trained on all samples, and it is said that the figures are of heads like it."""
    report = teach(bare, samples=FEW)
    version = heads.find(bare, "lamp")
    assert (version.number, report.is_promoted) == (1, True)
    assert report.training.method == report.metrics.method == "cross-validation"
    assert report.training.samples.counts == {"train": 10, "select": 0, "calibrate": 0, "test": 0}
    assert version.record.sample_count == 10
    assert set(role_of(bare, version).values()) == {Role.TRAIN}
    assert (report.metrics.samples, report.metrics.labels) == (10, 8)
    assert report.metrics.samples_digest == FEW.digest
    assert version.record.notes == "trained from fresh; figures by cross-validation"
    (warning,) = report.training.warnings
    assert warning.startswith("there are too few labelled groups for four roles (8 of 'lamp'; 50 of each class are")
    assert "8 labelled boxes; cross-validation; IoU 0.5" in str(report)
    assert beside.outcomes_of(bare, version).truths.sum() == 8


def test_no_sample_is_left_to_evaluate_on(bare):
    """A version that was trained on all samples is measured on none of them again."""
    teach(bare, samples=FEW)
    with pytest.raises(RoleError, match="10 of 10 samples were used to make it"):
        evaluate(bare, "lamp", FEW)


def test_each_pass_of_the_backbone_is_told(bare):
    """The passes are those of all folds: one for each picture with a cache, one for each use of it without any."""
    without = teach(bare, "owl", samples=FEW, config={**QUICK, "cache_bytes": 0}).training.course
    assert without.backbone_passes > 4 * len(FEW)
    assert without.features_not_kept == len(FEW)
    course = teach(bare, samples=FEW).training.course
    assert course.backbone_passes == len(FEW)
    assert course.features_reused > 0
    seconds = course.seconds
    assert compare_runs(bare, ["lamp"])[0].seconds == seconds["cross-validation"] + seconds["training"]


def test_a_fold_for_which_nothing_can_be_chosen_counts_as_nothing(bare, monkeypatch):
    """Where the other folds give no threshold, a fold has no hits, which is said; the version has its policy."""
    calibrated, calls = attempts.calibrated, []

    def picky(detections, samples, **options):
        calls.append(len(samples))
        if len(calls) == 2:
            raise InputError("choose thresholds", "none of the 9 detections is a hit", "Label more.")
        return calibrated(detections, samples, **options)

    whole = teach(bare, "whole", samples=FEW).metrics.micro
    monkeypatch.setattr(attempts, "calibrated", picky)
    report = teach(bare, samples=FEW)
    assert report.metrics.notes[0].startswith("for 1 of 5 folds no thresholds can be chosen by the others")
    own = report.metrics.micro
    assert own.true_positives < whole.true_positives
    sure = Detections(boxes=[(0, 0, 9, 9)], scores=[1.0], labels=[1], label_names=["lamp"], heads=["lamp"],
                      head_versions=[1], image_size=(48, 64))  # fmt: skip
    common = OperatingPolicy(score_threshold=0.5)
    (read,) = as_read_by(attempts._NOTHING_COUNTS, [sure], common)
    assert not accepted(read.scores, read.label_names, policy=common).any()
    assert own.true_positives + own.false_negatives == whole.true_positives + whole.false_negatives


# Who saw what


@pytest.fixture
def watched(monkeypatch):
    """Give the list of what an attempt did: ("learn", ids), ("find", ids) or ("fit", ids), in order."""
    done = []

    def watch(name, what, samples_of):
        act = getattr(attempts, name)

        def watching(*arguments, **options):
            done.append((what, {sample.id for sample in samples_of(arguments, options)}))
            return act(*arguments, **options)

        monkeypatch.setattr(attempts, name, watching)

    watch("learn", "learn", lambda _arguments, options: options["train"])
    watch("candidates", "find", lambda arguments, _options: arguments[2])
    watch("calibrated", "fit", lambda arguments, _options: arguments[1])
    return done


def test_what_was_for_testing_is_neither_learnt_from_nor_judged(bare, watched):
    """Samples that an earlier version was tested on are in no fold, and not in what the version itself learns from."""
    teach(bare)
    before = beside.split_of(bare, heads.find(bare, "lamp@1")).roles
    tested = {name for name, role in before.items() if role == Role.TEST}
    both = Samples(items=[*lights(), *lights(6, 0, first=300, names=("ember",))], class_names=("lamp", "ember"))
    watched.clear()
    report = teach(bare, samples=both)
    assert report.training.method == "cross-validation"
    every = {sample.id for sample in both}
    for act in ("learn", "find", "fit"):
        assert set().union(*(ids for what, ids in watched if what == act)) == every - tested
    assert report.metrics.samples == len(every - tested)
    assert any("for testing before" in warning for warning in report.training.warnings)


def test_each_sample_is_judged_by_a_head_that_never_saw_it(bare, watched):
    """Five heads each find in what they were not trained on, each sample once; the last is trained on all."""
    teach(bare, samples=FEW)
    every = {sample.id for sample in FEW}
    heads_trained = [ids for what, ids in watched if what == "learn"]
    found_in = [ids for what, ids in watched if what == "find"]
    assert [what for what, _ids in watched][:10] == ["learn", "find"] * 5
    assert [trained | held for trained, held in zip(heads_trained, found_in, strict=False)] == [every] * 5
    assert not any(trained & held for trained, held in zip(heads_trained, found_in, strict=False))
    assert sum(map(len, found_in)) == len(every)
    assert heads_trained[5:] == [every]


def test_no_sample_has_a_say_in_how_it_is_judged(bare, watched):
    """The policy is fitted to all, and for the figures each fold is read with what was fitted to the others."""
    teach(bare, samples=FEW)
    every = {sample.id for sample in FEW}
    found_in = [ids for what, ids in watched if what == "find"]
    fitted = [ids for what, ids in watched if what == "fit"]
    assert fitted == [every, *(every - held for held in found_in)]


def test_the_active_version_is_measured_on_the_same_samples(bare, watched):
    """Where a version is active it finds in all samples, once, and is not better for having seen none of them."""
    give(bare, "lamp", classes=("lamp",))
    report = teach(bare, samples=FEW)
    assert [ids for what, ids in watched if what == "find"][5:] == [{sample.id for sample in FEW}]
    assert (report.is_promoted, report.version) == (True, 2)
    assert "better by at least 0.02" in report.reason


def test_samples_that_weights_knew_are_told_of(bare):
    """The active version was trained on the samples that it is measured on, and the report says so."""
    teach(bare, samples=FEW)
    report = teach(bare, samples=lights(9, 2), **BADLY)
    told = "lamp@1 has seen 10 of these 11 samples, too many to compare with it"
    assert (report.outcome, report.reason) == ("kept", f"{told}: promote by hand if the figures please you")


def test_two_versions_are_compared_on_what_is_new_to_the_active_one(bare, watched):
    """With enough new samples both are judged on these alone: on the others the active version knows the answers."""
    teach(bare, samples=FEW, **BADLY)
    watched.clear()
    more = Samples(items=[*FEW, *lights(6, 2, first=800)], class_names=("lamp",))
    report = teach(bare, samples=more)
    new = {one.id for one in more} - {one.id for one in FEW}
    assert [ids for what, ids in watched if what == "find"][5:] == [new]
    assert report.is_promoted
    assert report.reason.endswith(", on only 8 samples")
    assert report.metrics.samples == len(more)


def test_no_fold_starts_from_weights_that_knew_it(bare):
    """Trained again on the same few samples, "auto" takes another head: the weights of before saw every fold."""
    teach(bare, samples=FEW)
    assert teach(bare, samples=FEW, init="auto", publish=False).training.course.started_from == "moth@1"
    teach(bare, "moth", samples=FEW, promote_anyway=True)
    assert teach(bare, samples=FEW, init="auto", publish=False).training.course.started_from == "fresh"


def test_a_version_that_starts_from_what_knew_the_samples_is_not_promoted(bare):
    """Whoever names such weights gets them; the metrics say that they are no evidence, and nothing is promoted."""
    teach(bare, samples=FEW)
    report = teach(bare, samples=FEW, init="lamp@1", config=HARDLY)
    told = "10 of the 10 samples measured on were used to make lamp@1, from which it starts: no evidence of quality"
    assert report.metrics.notes[0] == told
    assert (report.outcome, report.reason, heads.find(bare, "lamp").number) == ("kept", told, 1)


# The same again


def test_a_cancelled_cross_validation_is_taken_up_again(bare, tmp_path, monkeypatch):
    """Folds that were done are not done again; what comes out is what would have come out, and no checkpoint stays."""
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    cancel, heard = threading.Event(), []

    def progress(state):
        heard.append((state.stage, state.latest.epoch))
        if heard[-1] == ("fold 3 of 5", 2):
            cancel.set()

    with pytest.raises(TrainingStoppedError, match="cancelled in epoch 3"):
        teach(bare, samples=FEW, progress=progress, tools=Tools(cancel=cancel))
    assert heads.names(bare) == ["moth"]
    report = teach(bare, samples=FEW, progress=lambda state: heard.append((state.stage, state.latest.epoch)))
    stages = [f"fold {number} of 5" for number in range(1, 6)] + [""]
    assert heard == [(stage, epoch) for stage in stages for epoch in range(1, QUICK["epochs"] + 1)]
    (folder,) = runs_of(bare)
    assert report.run == str(folder)
    folds = [f"fold-{number}-of-5" for number in range(1, 6)]
    assert sorted(path.name for path in folder.iterdir()) == [*folds, "metrics.csv", "report.json"]
    for fold in folds:
        assert [path.name for path in (folder / fold).iterdir()] == ["metrics.csv"]
        assert len((folder / fold / "metrics.csv").read_text().splitlines()) == 1 + QUICK["epochs"]
    whole = with_backbone(tmp_path / "whole")
    give(whole)
    assert teach(whole, samples=FEW).metrics == report.metrics
    one, other = (tensors_digest(heads.tensors(store, heads.find(store, "lamp"))) for store in (bare, whole))
    assert one == other
