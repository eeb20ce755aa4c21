"""From labelled samples to a promoted version: all of it happens, in order, and nothing else does."""

import re

import attrs
import lifecycle_fixtures
import numpy as np
import pytest
import torch
from lifecycle_fixtures import BADLY, HARDLY, QUICK, give, light, lights, role_of, runs_of, teach, with_backbone

from hydra_detect import HydraDetector
from hydra_detect.data.duplicates import group_near_duplicates
from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.data.splits import given, split
from hydra_detect.errors import InputError, TrainingError
from hydra_detect.lifecycle import attempts, beside, train
from hydra_detect.lifecycle.cautions import torn_duplicates
from hydra_detect.lifecycle.judging import evaluate
from hydra_detect.lifecycle.plans import Plan
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT, measure
from hydra_detect.measure.promotion import decide
from hydra_detect.storage import heads, layout
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.tools import Tools
from hydra_detect.versions import VersionManager

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught

BESIDE = {layout.SPLIT, layout.TRAINING, layout.CALIBRATION, layout.OUTCOMES, layout.EVALUATION}


def take(store, version, samples, role):
    """Return the samples that had this role for a version."""
    return beside.split_of(store, version).take(samples, role)


def digest_of(store, ref):
    """Return the digest of the tensors of a version, as they are read."""
    return tensors_digest(heads.tensors(store, heads.find(store, ref)))


# Too few


@pytest.mark.parametrize("labelled", [0, 4])
def test_fewer_than_five_labelled_samples_are_refused(bare, labelled):
    """From fewer than five labelled samples nothing is learnt, however many are dark, and nothing is written."""
    with pytest.raises(InputError, match=f"{labelled} of {labelled + 30} have a box, and 5 are the least") as caught:
        teach(bare, samples=lights(labelled, 30))
    assert caught.value.facts == {"labelled": labelled}
    assert heads.names(bare) == ["moth"]
    assert not bare.layout.every_run.exists()


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5])
def test_what_is_no_seed_is_refused_at_once(bare, seed):
    """Nothing is learnt from a seed that is none, whether the split is given or made."""
    for parts in (None, split(lights())):
        with pytest.raises(InputError, match=rf"the seed is {seed}\. Give a whole number from 0 to"):
            teach(bare, seed=seed, split=parts)
    assert not bare.layout.every_run.exists()


# A version and what lies beside it


def test_a_first_version_has_everything_beside_it(taught):
    """The new version is active, and split, training, calibration, outcomes and evaluation lie beside it as told."""
    store, report = taught
    version = heads.find(store, "lamp")
    assert (version.number, version.parent, report.version, report.head) == (1, None, 1, "lamp")
    assert version.files.keys() == {layout.TENSORS, layout.RECORD, *BESIDE}
    assert beside.training_of(store, version) == report.training
    assert beside.calibration_of(store, version) == report.calibration
    assert beside.evaluation_of(store, version) == report.metrics
    assert beside.split_of(store, version).digest == report.training.samples.split
    calibrate = take(store, version, lights(), Role.CALIBRATE)
    outcomes = beside.outcomes_of(store, version)
    assert outcomes.truths.sum() == calibrate.box_counts["lamp"]
    assert (len(outcomes), int(outcomes.hits.sum())) == (report.calibration.candidates, report.calibration.hits)


def test_the_record_says_what_was_measured(taught):
    """The record has classes, samples that were trained on, figures, and the policy that they were measured with."""
    store, report = taught
    record = heads.find(store, "lamp").record
    roles = list(role_of(store, heads.find(store, "lamp")).values())
    assert record.class_names == ("lamp",)
    assert record.sample_count == roles.count(Role.TRAIN) == report.training.samples.counts["train"]
    assert record.claimed_metrics == report.metrics.figures()
    assert record.claimed_metrics["f1"] == 1.0
    assert record.operating_policy == report.metrics.policy
    assert record.operating_policy.temperature == report.calibration.temperature
    assert record.notes == "trained from fresh; figures by held-out"
    assert record.tensors == digest_of(store, "lamp@1")


def test_the_report_tells_how_it_went(taught):
    """Samples by role, the course of the training and what stayed as it was are in the report, and in its text."""
    store, report = taught
    use, course = report.training.samples, report.training.course
    assert use.counts == {"train": 13, "select": 4, "calibrate": 4, "test": 3}
    assert (use.labelled, use.backgrounds, use.boxes, use.digest) == (20, 4, {"lamp": 20}, lights().digest)
    assert (course.started_from, len(course.history), course.early_stopped) == ("fresh", 4, False)
    assert course.history[course.best_epoch - 1].is_best
    assert course.seconds.keys() == {"training", "calibration", "measuring"}
    assert (report.is_promoted, report.reason) == (True, "no version is active yet")
    event = [event for event in VersionManager(store).history("lamp") if event.what == "promoted"][-1]
    assert event.reason == report.reason
    text = str(report)
    assert text.startswith("lamp@1: promoted: no version is active yet\n  samples    13 train, 4 select, 4 calibrate")
    assert f"\n  anchors    {course.anchor_coverage:.0%} of the labels resemble one\n" in text
    assert "unchanged  backbone" in text
    assert report.training.warnings == ()


@pytest.mark.parametrize("options", [{}, BADLY], ids=["well", "badly"])
def test_the_detector_finds_exactly_what_was_measured(bare, options):
    """Through `HydraDetector` every figure on the test role comes out as the report has it."""
    store, report = bare, teach(bare, **options)
    version = heads.find(store, "lamp")
    test = take(store, version, lights(), Role.TEST)
    detector = HydraDetector.from_store(store, ["lamp"], device="cpu", engine="exact")
    policy, floor = version.record.operating_policy, version.record.settings.score_threshold
    least = float(apply_temperature([floor], policy.temperature)[0])
    pictures = [sample.picture for sample in test]
    found = detector.predict(pictures, score_threshold=least, raw_scores=True)
    facts = {
        "class_names": ("lamp",), "policy": policy, "groups": [sample.group for sample in test],
        "samples_digest": test.digest,
    }  # fmt: skip
    assert measure(found, [sample.truth for sample in test], **facts) == report.metrics
    counted = detector.predict(pictures)
    assert sum(map(len, counted)) == report.metrics.micro.true_positives + report.metrics.micro.false_positives > 0


# The decision


def test_what_is_not_better_is_kept(taught):
    """A candidate that does worse than the active version becomes a version, says why, and is not promoted."""
    store, first = taught
    report = teach(store, **BADLY)
    assert (report.version, report.outcome, report.is_promoted) == (2, "kept", False)
    assert report.reason.startswith(f"F1 {report.metrics.micro.rates.f1.value:.4f} against 1.0000: worse")
    assert heads.find(store, "lamp").number == 1
    version = heads.find(store, "lamp@2")
    assert (version.parent, version.record.operating_policy) == (1, report.metrics.policy)
    assert report.metrics.policy.temperature == report.calibration.temperature != 1
    assert report.metrics.samples_digest == first.metrics.samples_digest


def test_promoted_anyway(taught):
    """Who says so has it promoted whatever the figures say, and the history tells that."""
    store, _report = taught
    report = teach(store, **BADLY, promote_anyway=True)
    assert report.is_promoted
    assert report.reason.startswith("promoted anyway: F1 ")
    assert heads.find(store, "lamp").number == 2
    assert VersionManager(store).history("lamp")[-1].reason == report.reason


def test_what_is_as_good_at_the_top_is_promoted(taught):
    """Where the active version is all but perfect, not to be worse is enough; that few samples say so is told."""
    store, _report = taught
    report = teach(store, init="auto", config=HARDLY)
    assert report.training.course.started_from == "lamp@1"
    assert (report.is_promoted, report.reason) == (
        True, "F1 1.0000 against 1.0000: not worse, from 0.95 on that is enough, on only 3 samples",
    )  # fmt: skip
    assert heads.find(store, "lamp").number == 2


def test_both_are_measured_on_the_same_samples(taught, monkeypatch):
    """Candidate and active version are decided on by figures of one set of samples, the test role's."""
    store, _report = taught
    asked = []
    monkeypatch.setattr(train, "decide", lambda *both: asked.append(both) or decide(*both))
    report = teach(store, **BADLY)
    ((candidate, active),) = asked
    test = take(store, heads.find(store, "lamp@2"), lights(), Role.TEST)
    assert candidate.samples == active.samples == test.digest
    assert candidate.f1 == report.metrics.micro.rates.f1.value
    assert active.f1 == evaluate(store, "lamp@1", test, draws=0).micro.rates.f1.value


def test_a_version_that_finds_other_classes_is_not_compared(taught):
    """Where the active version finds other classes nothing can be compared: the candidate is kept, and told why."""
    store, _report = taught
    report = teach(store, samples=lights(40, names=("lamp", "ember")))
    assert (report.version, report.outcome) == (2, "kept")
    told = "the active lamp@1 finds lamp, and this one ember, lamp: the two cannot be compared, promote it by hand"
    assert report.reason.startswith(told)
    assert heads.find(store, "lamp").record.class_names == ("lamp",)
    assert heads.find(store, "lamp@2").record.class_names == ("lamp", "ember")


def test_a_version_of_another_backbone_is_not_compared(taught, tmp_path):
    """A head that moves to another backbone is kept: its active version does not run on that one."""
    store, _report = taught
    with_backbone(tmp_path, name="second", store=store)
    report = teach(store, backbone="second")
    assert (report.version, report.outcome, report.backbone) == (2, "kept", "second")
    told = "the active lamp@1 belongs to another backbone: the two cannot be compared, promote it by hand"
    assert report.reason.startswith(told)
    assert heads.find(store, "lamp").number == 1


def test_nothing_to_measure_promotes_nothing(bare):
    """Where no test sample has a label F1 is no number, and not even a first version is promoted."""
    samples = lights()
    ids = [sample.id for sample in samples]
    lists = {"train": ids[:14], "calibrate": ids[14:20], "test": ids[20:]}
    report = teach(bare, samples=samples, split=given(samples, lists))
    assert (report.version, report.outcome, report.reason) == (1, "kept", "the candidate's F1 is not a number")
    assert heads.find(bare, "lamp@1").record.claimed_metrics == {}
    assert bare.head("lamp").pointer().active is None


@pytest.mark.parametrize("anyway", [False, True])
def test_another_promotion_meanwhile_is_not_overridden(taught, anyway):
    """Who promotes another version while a training runs has the last word: the decision was against an older one."""
    store, _report = taught
    manager = VersionManager(store)
    other = manager.create("lamp", heads.tensors(store, heads.find(store, "lamp")), heads.find(store, "lamp").record)

    def promote(_state):
        manager.promote("lamp", other.number)

    report = teach(store, init="lamp@1", config=HARDLY, progress=promote, promote_anyway=anyway)
    assert (report.version, report.outcome) == (3, "kept")
    assert report.reason == "version 2 is active and not version 1: look again, then promote it by hand"
    assert heads.find(store, "lamp").number == 2


def test_a_first_promotion_meanwhile_is_not_overridden(bare):
    """That no version was active when the training began does not make the new one active when another is by then."""
    report = teach(bare, progress=lambda _state: give(bare, "lamp", classes=("lamp",)))
    assert (report.outcome, heads.find(bare, "lamp").number) == ("kept", QUICK["epochs"])
    assert report.reason == "version 4 is active and not none: look again, then promote it by hand"


# What is published, and what is not


def test_without_publishing_there_is_a_run_and_no_version(bare):
    """`publish=False` measures and reports, and leaves the store's heads as they are."""
    report = teach(bare, publish=False)
    assert (report.version, report.outcome, report.reason) == (None, "not published", "publish=False")
    assert report.metrics.figures()["f1"] == 1.0
    assert heads.names(bare) == ["moth"]
    (folder,) = runs_of(bare)
    assert report.run == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "report.json"]


def spoilt(at):
    """Return a loss whose step number `at` leaves weights that are no numbers, though the loss itself is one."""
    steps = []

    def loss(predictions, context):
        steps.append(1)
        parts = dict(torchvision_loss(predictions, context))
        if len(steps) == at:
            nothing = predictions.class_logits.sum() * 0
            parts["class"] = parts["class"] + torch.sqrt(nothing)  # 0, and its slope is 0 times infinity
        return parts

    return loss


@pytest.mark.parametrize("at", [3, 13 * 4])
def test_weights_that_are_no_numbers_are_never_published(bare, at):
    """A head whose weights became NaN half-way, or with the very last step, is no version, and the error says why."""
    samples = lights()
    roles = split(samples).roles
    kept = Samples(items=[sample for sample in samples if roles[sample.id] != Role.SELECT], class_names=("lamp",))
    lists = {role: [s.id for s in kept if roles[s.id] == role] for role in (Role.TRAIN, Role.CALIBRATE, Role.TEST)}
    options = {"config": {**QUICK, "loss": "spoilt", "gradient_clip": 0.0}, "split": given(kept, lists)}
    with pytest.raises((TrainingError, InputError), match=r"finite|NaN|detections") as caught:
        teach(bare, samples=kept, tools=Tools(losses={"spoilt": spoilt(at)}), **options)
    assert caught.value.remedy
    assert heads.names(bare) == ["moth"]


# Samples


def test_several_classes_in_one_head(bare):
    """A head learns two classes, each with a row of its own in the figures."""
    report = teach(bare, samples=lights(40, names=("lamp", "ember")))
    assert heads.find(bare, "lamp").record.class_names == ("lamp", "ember")
    assert {one.name: one.labels for one in report.metrics.classes} == {"lamp": 2, "ember": 2}
    assert report.training.samples.boxes == {"lamp": 20, "ember": 20}
    assert all(one.average_precision.ap50.value > 0.3 for one in report.metrics.classes)


def test_merged_classes_are_one(bare):
    """Classes that were merged on reading are one class to the head."""
    merged = lights(20, names=("lamp", "ember")).choose({"light": ("lamp", "ember")})
    report = teach(bare, samples=merged)
    assert heads.find(bare, "lamp").record.class_names == ("light",)
    assert report.training.samples.boxes == {"light": 20}
    detector = HydraDetector.from_store(bare, ["lamp"], device="cpu")
    found = detector.predict([light(number, "lamp", "ember").picture for number in range(900, 905)])
    assert {name for one in found for name in one.label_names} == {"light"}


def test_what_a_person_should_know_is_said(bare):
    """A head without backgrounds is warned about, and boxes that were left out on reading are reported."""
    samples = attrs.evolve(lights(dark=0), skipped={"boxes without area": 3})
    report = teach(bare, samples=samples)
    assert report.training.samples.skipped == {"boxes without area": 3}
    assert report.training.samples.backgrounds == 0
    assert list(report.training.warnings) == [
        "no sample to learn from is without labels: a head that never saw a background finds something everywhere",
        "left out on reading: 3 boxes without area",
    ]
    assert "\n  warning: left out on reading: 3 boxes without area" in str(report)


def test_copies_on_both_sides_are_told_of(bare):
    """Pictures that were measured on, and look almost like others that were learnt from, make figures too good."""
    own = [*lights(30, 0)]
    brighter = [np.minimum(one.picture.astype(int) + 20, 255).astype(np.uint8) for one in own]
    copies = [
        attrs.evolve(one, id=f"x{one.id}", picture=new, group=f"x{one.id}")
        for one, new in zip(own, brighter, strict=True)
    ]
    samples = Samples(items=[*own, *copies], class_names=("lamp",))
    options, crossed = ({"config": {**QUICK, "validation": how}} for how in ("held-out", "cross-validation"))
    (said,) = [text for text in teach(bare, samples=samples, **options).training.warnings if "look almost" in text]
    tested = teach(bare, samples=samples, **options).training.samples.counts["test"]
    assert re.match(rf"\d of the {tested} samples measured on look almost like others that were learnt from", said)
    grouped = teach(bare, samples=group_near_duplicates(samples), **options)
    assert not [text for text in grouped.training.warnings if "look almost" in text]
    crosswise = teach(bare, "other", samples[[*range(12), *range(30, 42)]], **crossed)
    assert any("16 of the 24 samples measured on look almost" in text for text in crosswise.training.warnings)


def test_likeness_is_that_of_each_picture():
    """Of a recording one copy makes one picture doubtful, and what nothing learns from makes none."""
    pictures = {one.id: one for one in lights(12, 0, first=2)}
    twin = next(iter(pictures.values()))
    copy = attrs.evolve(twin, id="copy", picture=np.minimum(twin.picture.astype(int) + 20, 255).astype(np.uint8))
    items = [attrs.evolve(one, group="recording") for one in pictures.values()]
    samples = Samples(items=[*items, attrs.evolve(copy, group="copy")], class_names=("lamp",))
    tested = {"test": list(pictures), "train": ["copy"]}
    for method, roles, told in (
        (HELD_OUT, tested, ["1 of the 12"]),
        (CROSS_VALIDATION, {"train": list(pictures), "test": ["copy"]}, []),
    ):
        made = Plan(method=method, split=given(samples, roles), samples=samples)
        assert [text[: len("1 of the 12")] for text in torn_duplicates(made)] == told


# Roles


def test_classes_with_few_labels_or_none(bare):
    """A class of which next to nothing is labelled is warned of, and so is one that the data set only lists."""
    samples = lights(20, names=("lamp",))
    odd = light(90, "ember", name="odd")
    report = teach(bare, samples=Samples(items=[*samples, odd], class_names=("lamp", "ember", "unused")), publish=False)
    assert "very few labels: 1 of ember" in report.training.warnings
    assert "no box to learn from is of unused: the head cannot learn to find any" in report.training.warnings


def test_the_test_role_is_used_once_and_last(bare, monkeypatch):
    """All pictures are looked through first, twice; then each test picture is opened once, after all others."""
    opened, look = [], Sample.open

    def watched(self, **options):
        opened.append(self.id)
        return look(self, **options)

    monkeypatch.setattr(Sample, "open", watched)
    report = teach(bare)
    roles = role_of(bare, heads.find(bare, "lamp"))
    test = sorted(name for name, role in roles.items() if role == Role.TEST)
    assert opened[: 2 * len(roles)] == 2 * sorted(roles)
    del opened[: 2 * len(roles)]
    assert sorted(opened[-len(test) :]) == test
    assert not set(opened[: -len(test)]) & set(test)
    assert {roles[name] for name in opened[: -len(test)]} == {Role.TRAIN, Role.SELECT, Role.CALIBRATE}
    assert report.metrics.samples == len(test) > 0


def test_each_role_serves_its_own_work(bare, monkeypatch):
    """Weights come of train, the epoch of select, the policy of calibrate: each call is given its own role alone."""
    given_to = {}

    def watch(name, place):
        act = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, **k: given_to.setdefault(name, (a, k)) and act(*a, **k))

    for name in ("learn", "calibrated_on", "measured"):
        watch(name, attempts)
    teach(bare)
    _positional, learnt = given_to["learn"]
    assert (learnt["train"].role, learnt["select"].role) == (Role.TRAIN, Role.SELECT)
    assert given_to["calibrated_on"][0][2].role == Role.CALIBRATE
    assert given_to["measured"][0][1].role == Role.TEST
    parts = [learnt["train"], learnt["select"], given_to["calibrated_on"][0][2], given_to["measured"][0][1]]
    ids = [sample.id for part in parts for sample in part]
    assert sorted(ids) == sorted(sample.id for sample in lights())


def test_progress_is_heard(bare):
    """A callback is called after each epoch, also where nothing is published."""
    heard = []
    teach(bare, progress=heard.append, publish=False)
    assert [state.latest.epoch for state in heard] == [1, 2, 3, 4]
