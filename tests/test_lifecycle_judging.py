"""Evaluating and calibrating: each on samples that are meant for it, and on none that a version was made from."""

import attrs
import lifecycle_fixtures
import pytest
from lifecycle_fixtures import BADLY, HARDLY, give, light, lights, on_disk, role_of, teach
from store_fixtures import snapshot

from hydra_detect import HydraDetector
from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.data.splits import given
from hydra_detect.errors import CorruptError, InputError, NotFoundError, RoleError
from hydra_detect.lifecycle import beside
from hydra_detect.lifecycle.judging import calibrate, evaluate
from hydra_detect.measure.calibration import fit_temperature
from hydra_detect.storage import heads, layout
from hydra_detect.versions import VersionManager

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught

NEW = {"first": 500, "names": ("lamp",)}
"""Which scenes are new to `lamp@1`; their ids are, too."""


def of_role(store, role):
    """Return the samples of a role of `lamp@1`."""
    return beside.split_of(store, heads.find(store, "lamp@1")).take(lights(), role)


def weights(store, ref):
    """Return the tensors of a version."""
    return heads.tensors(store, heads.find(store, ref))


# Evaluate


def test_nothing_to_evaluate_on(taught):
    """No samples are an ordinary case: no figures, and a note that says so."""
    store, _report = taught
    metrics = evaluate(store, "lamp", Samples(class_names=("lamp",)), device="cpu")
    assert (metrics.samples, metrics.labels, metrics.figures()) == (0, 0, {})
    assert "no labelled box of class lamp: its figures say nothing" in metrics.notes


def test_the_test_role_gives_the_figures_of_the_training(taught):
    """Evaluated on the samples of the test role a version has exactly the figures that were published with it."""
    store, report = taught
    told = []
    metrics = evaluate(store, "lamp@1", of_role(store, Role.TEST), progress=lambda *done: told.append(done))
    assert metrics == report.metrics
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_new_samples_are_evaluated_at_the_operating_point(taught):
    """Samples that the version never saw serve, and what counts is what the detector gives."""
    store, report = taught
    samples = lights(10, 5, **NEW)
    metrics = evaluate(store, "lamp", samples, draws=0)
    assert (metrics.policy, metrics.samples_digest) == (report.metrics.policy, samples.digest)
    assert metrics.micro.rates.f1.low is None
    found = HydraDetector.from_store(store, ["lamp"], device="cpu").predict([sample.picture for sample in samples])
    assert metrics.micro.true_positives + metrics.micro.false_positives == sum(map(len, found))
    assert metrics.micro.true_positives >= 9


def _one_known(store, role):
    (known, *_rest) = of_role(store, role)
    return known, Sample(id="renamed", picture=known.picture, truth=known.truth)


@pytest.mark.parametrize("role", [Role.TRAIN, Role.SELECT, Role.CALIBRATE])
def test_what_a_version_was_made_from_is_no_test(taught, role):
    """A sample of another role is refused by its id, and by its picture under another id; it is named."""
    store, _report = taught
    fresh = lights(3, 0, **NEW)
    for sample in _one_known(store, role):
        samples = Samples(items=[*fresh, sample], class_names=("lamp",))
        with pytest.raises(RoleError, match=f"1 of 4 samples were used to make it: {sample.id}") as caught:
            evaluate(store, "lamp", samples)
        assert caught.value.facts == {"seen": [sample.id]}


def test_an_id_that_is_known_is_known_in_the_same_data(taught):
    """A known id is refused even if its picture is another now, retouched; in another data set it says nothing."""
    store, _report = taught
    known, _renamed = _one_known(store, Role.TRAIN)
    retouched = light(700, "lamp", name=known.id)
    tested = beside.split_of(store, heads.find(store, "lamp")).take(lights(), Role.TEST)
    with pytest.raises(RoleError, match=f"1 of 4 samples were used to make it: {known.id}"):
        evaluate(store, "lamp", Samples(items=[retouched, *tested], class_names=("lamp",)))
    other = Samples(items=[retouched, light(701, "lamp", name=tested[0].id)], class_names=("lamp",))
    assert evaluate(store, "lamp", other, draws=0).samples == 2


def test_its_own_test_samples_are_picked_out(taught):
    """Of the data that a version was trained with, `own_test` measures on what was for testing; of others on none."""
    store, report = taught
    assert evaluate(store, "lamp", lights(), own_test=True) == report.metrics
    with pytest.raises(NotFoundError, match="of 9 samples none was for testing it"):
        evaluate(store, "lamp", lights(6, 3, **NEW), own_test=True)


def test_a_class_need_not_occur(taught):
    """A head is measured on samples in which its class does not occur: whatever it finds there is a false alarm."""
    store, _report = taught
    dark = evaluate(store, "lamp", attrs.evolve(lights(0, 9, **NEW), class_names=()), draws=0)
    assert (dark.samples, dark.labels, dark.classes[0].name) == (9, 0, "lamp")
    with pytest.raises(InputError, match="its classes are lamp, those of the samples ember"):
        evaluate(store, "lamp", lights(2, 0, first=950, names=("ember",)))


def test_who_looks_at_what_was_seen_is_told_so(taught):
    """With `allow_seen` there are figures, and the first note says that they are no evidence."""
    store, _report = taught
    metrics = evaluate(store, "lamp", lights(), allow_seen=True, draws=0)
    assert metrics.notes[0] == "21 of these samples were used to make lamp@1: no evidence of quality"
    assert evaluate(store, "lamp", lights(5, **NEW), allow_seen=True, draws=0).notes == (
        "intervals from 9 groups are too narrow, or missing: label pictures of more groups",
        "nothing is wrong in 9 groups: in up to 28% of others like them something may be",
    )


@pytest.mark.parametrize("role", [Role.TRAIN, Role.SELECT, Role.CALIBRATE])
def test_samples_of_another_role_are_not_evaluated_on(taught, role):
    """Samples that were taken for another work are refused as they are, seen or not, allowed or not."""
    store, _report = taught
    with pytest.raises(RoleError, match=f"cannot evaluate lamp@1: the samples have the role {role}"):
        evaluate(store, "lamp", lights(5, **NEW).with_role(role), allow_seen=True)


def test_another_picture_of_a_recording_that_was_learnt_from(bare):
    """A new picture of a group that the version learnt from is no new evidence; one of the test role's group is."""
    recorded = [attrs.evolve(one, group=f"recording of {one.id}") for one in lights()]
    teach(bare, samples=Samples(items=recorded, class_names=("lamp",)))
    roles = role_of(bare, heads.find(bare, "lamp"))
    for role in Role:
        group = next(one.group for one in recorded if roles[one.id] == role)
        samples = Samples(items=[attrs.evolve(lights(1, 0, first=700)[0], group=group)], class_names=("lamp",))
        if role == Role.TEST:
            assert evaluate(bare, "lamp", samples, draws=0).notes[0].startswith("intervals from 1 groups")
        else:
            with pytest.raises(RoleError, match="1 of 1 samples were used to make it: s700"):
                evaluate(bare, "lamp", samples)


def test_samples_of_other_classes_are_refused(taught):
    """The classes of the samples have to be those of the head, for either work."""
    store, _report = taught
    samples = lights(8, **NEW | {"names": ("lamp", "ember")})
    for work in (evaluate, calibrate):
        with pytest.raises(InputError, match="its classes are lamp, those of the samples ember, lamp") as caught:
            work(store, "lamp", samples)
        assert caught.value.remedy.startswith("Choose or merge classes: samples.choose(...), on the command line --")
    assert evaluate(store, "lamp", samples.choose(["lamp"]), draws=0).labels == 4


def test_a_calibrated_version_keeps_where_its_weights_came_from(taught):
    """Another operating policy changes nothing of what the weights were trained on."""
    store, report = taught
    version = calibrate(store, "lamp", objective="mcc")
    assert beside.training_of(store, version) == report.training
    assert beside.split_of(store, version).digest == report.training.samples.split


def test_a_version_of_which_nothing_is_known_can_be_evaluated(bare):
    """A head that keeps no split, as one that was split from an original, is measured on whatever is given."""
    samples = lights().choose({"moth": "lamp"})
    metrics = evaluate(bare, "moth", samples, draws=0)
    assert metrics.policy.score_threshold == heads.find(bare, "moth").record.settings.score_threshold
    assert (metrics.policy.temperature, metrics.samples) == (1.0, 24)


def test_what_is_not_there_is_not_judged(taught):
    """An unknown head or version, and a backbone that the store has no more, are said for what they are."""
    store, _report = taught
    for ref, match in (("lmap", "Did you mean 'lamp'"), ("lamp@9", "no version 9")):
        for work in (evaluate, calibrate):
            with pytest.raises(NotFoundError, match=match):
                work(store, ref, lights(5, **NEW))
    (store.root / "backbones" / "default").rename(store.root.parent / "away")
    with pytest.raises(NotFoundError, match="no backbone 'default' as it was made on"):
        evaluate(store, "lamp", lights(5, **NEW))


def test_a_picture_that_cannot_be_read_is_named(taught, tmp_path):
    """A picture that went meanwhile is said by its path."""
    store, _report = taught
    samples = on_disk(lights(3, **NEW), tmp_path / "pictures")
    assert samples.digest  # which reads them
    (tmp_path / "pictures" / "s501.png").unlink()
    with pytest.raises(InputError, match=r"s501\.png"):
        evaluate(store, "lamp", samples)


# Calibrate


def test_another_policy_is_fitted_without_a_look_at_any_picture(taught):
    """From the kept scores there is a new version with the same weights and another policy; it is not active."""
    store, report = taught
    before = heads.find(store, "lamp")
    version = calibrate(store, "lamp", objective="fbeta:2", actor="ann")
    policy = version.record.operating_policy
    assert (version.number, version.parent, version.actor) == (2, 1, "ann")
    assert heads.find(store, "lamp").number == 1
    assert weights(store, "lamp@2") == weights(store, "lamp@1")
    assert (policy.objective, before.record.operating_policy.objective) == ("fbeta:2.0", "f1")
    assert policy.temperature == report.calibration.temperature
    assert policy.chosen_on == before.record.operating_policy.chosen_on
    assert version.record.claimed_metrics == {}
    assert version.record.notes == "lamp@1 with another operating policy"
    assert beside.outcomes_of(store, version) == beside.outcomes_of(store, before)
    assert beside.split_of(store, version) == beside.split_of(store, before)
    assert beside.calibration_of(store, version) == report.calibration


@pytest.mark.parametrize("objective", ["f1", "fbeta:0.5", "mcc", "recall@precision:0.5"])
def test_every_objective_can_be_asked_for(taught, objective):
    """Each objective gives a policy that says what it was chosen for."""
    store, _report = taught
    assert calibrate(store, "lamp", objective=objective).record.operating_policy.objective == objective


def test_an_objective_that_is_none_or_out_of_reach_makes_no_version(bare):
    """What cannot be read or reached is refused with what can, and no version is made of it."""
    teach(bare, **BADLY)
    best = beside.outcomes_of(bare, heads.find(bare, "lamp"))
    assert not best.hits[best.scores == best.scores.max()].all()
    with pytest.raises(InputError, match=r"recall@precision:1.0 is out of reach .*the best precision is 0\.") as caught:
        calibrate(bare, "lamp", objective="recall@precision:1")
    assert 0 < caught.value.facts["best"] < 1
    with pytest.raises(InputError, match="read 'f2' as an objective"):
        calibrate(bare, "lamp", objective="f2")
    assert bare.head("lamp").numbers() == [1]


def test_calibrated_on_new_samples(taught):
    """On samples of its own the policy is fitted to what the head finds there, and these are remembered as seen."""
    store, report = taught
    samples, told = lights(12, 6, **NEW), []
    version = calibrate(store, "lamp", samples, progress=lambda *done: told.append(done))
    policy, outcomes = version.record.operating_policy, beside.outcomes_of(store, version)
    assert told[-1] == (18, 18)
    assert policy.chosen_on == f"18 samples, {samples.digest}"
    assert policy.temperature == fit_temperature(outcomes.scores, outcomes.hits)
    assert outcomes.truths.sum() == 12
    assert outcomes != beside.outcomes_of(store, heads.find(store, "lamp@1"))
    roles = role_of(store, version)
    assert {roles[sample.id] for sample in samples} == {Role.CALIBRATE}
    assert {name: roles[name] for name in role_of(store, heads.find(store, "lamp@1"))} == role_of(
        store, heads.find(store, "lamp@1")
    )
    with pytest.raises(RoleError, match="18 of 18 samples were used to make it"):
        evaluate(store, version.ref, samples)
    assert evaluate(store, "lamp@1", samples, draws=0).samples == 18
    assert evaluate(store, version.ref, of_role(store, Role.TEST), draws=0).policy == policy
    assert report.metrics.policy != policy


def test_a_version_without_a_split_remembers_what_it_was_calibrated_on(bare):
    """Also of a head of which nothing was known before it is known now on which samples its policy was chosen."""
    samples = lights(10, 4).choose({"moth": "lamp"})
    version = calibrate(bare, "moth", samples)
    assert set(role_of(bare, version).values()) == {Role.CALIBRATE}
    with pytest.raises(RoleError, match="14 of 14"):
        evaluate(bare, version.ref, samples)


def test_the_calibrate_role_may_be_used_again(taught):
    """The samples of the calibrate role serve for that as often as one likes, and come to the same policy."""
    store, _report = taught
    version = calibrate(store, "lamp", of_role(store, Role.CALIBRATE))
    one, other = version.record.operating_policy, heads.find(store, "lamp@1").record.operating_policy
    assert attrs.evolve(one, chosen_on="") == attrs.evolve(other, chosen_on="")
    assert beside.split_of(store, version).roles == role_of(store, heads.find(store, "lamp@1"))


@pytest.mark.parametrize("role", [Role.TRAIN, Role.SELECT, Role.TEST])
def test_what_had_another_role_is_not_calibrated_on(taught, role):
    """A sample that the version was trained, selected or tested on is refused by id and by picture."""
    store, _report = taught
    for sample in _one_known(store, role):
        samples = Samples(items=[*lights(10, **NEW), sample], class_names=("lamp",))
        with pytest.raises(RoleError, match=f"1 samples had another role when it was made: {sample.id}"):
            calibrate(store, "lamp", samples)
    with pytest.raises(RoleError, match=f"calibrate lamp@1: the samples have the role {role}"):
        calibrate(store, "lamp", lights(10, **NEW).with_role(role))
    assert store.head("lamp").numbers() == [1]


def test_without_kept_scores_samples_are_asked_for(bare):
    """A version that was made elsewhere keeps no scores: the error says to give samples."""
    with pytest.raises(NotFoundError, match=r"no calibration scores are kept with it\. Give samples to calibrate on"):
        calibrate(bare, "moth")


def test_damaged_scores_are_found(taught):
    """Kept scores that are not those of the manifest are damage, and no policy is fitted to them."""
    store, _report = taught
    path = store.root / "heads/lamp/versions/000001" / layout.OUTCOMES
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(CorruptError, match="outcomes"):
        calibrate(store, "lamp")


def test_nothing_to_calibrate_on(taught):
    """No samples, or none with a label, are refused with what to do, and change nothing."""
    store, _report = taught
    before = snapshot(store.root / "heads")
    for samples, found in ((lights(0, 0, **NEW), "no detections"), (lights(0, 5, **NEW), "no labelled boxes|no detec")):
        with pytest.raises(InputError, match=found):
            calibrate(store, "lamp", samples)
    assert snapshot(store.root / "heads") == before


def test_a_calibrated_version_goes_on_as_any_other(taught):
    """It can be promoted and detects by its policy; what is trained from it knows the roles of all samples."""
    store, _report = taught
    version = calibrate(store, "lamp", lights(12, 6, **NEW), objective="recall@precision:0.9")
    VersionManager(store).promote("lamp", version.number)
    detector = HydraDetector.from_store(store, ["lamp"], device="cpu")
    assert detector.heads["lamp"].record.operating_policy == version.record.operating_policy
    roles = role_of(store, version)
    report = teach(store, samples=Samples(items=[*lights(), *lights(12, 6, **NEW)]), init="auto", config=HARDLY)
    assert report.training.course.started_from == "lamp@2"
    assert role_of(store, heads.find(store, "lamp@3")) == roles
    assert len(roles) == 24 + 18
    assert report.training.warnings == ()


# Figures that are too good


def test_weights_that_knew_the_test_samples_are_told_of(taught):
    """Where another split tests on what the active version was made with, nothing is compared, and that is said."""
    store, _report = taught
    assert teach(store, init="active", config=HARDLY, publish=False).training.warnings == ()
    samples = lights()
    before = role_of(store, heads.find(store, "lamp@1"))
    names = [sample.id for sample in samples]
    turned = {
        Role.TEST: [name for name in names if before[name] == Role.CALIBRATE],
        Role.CALIBRATE: [name for name in names if before[name] == Role.TEST],
        Role.TRAIN: [name for name in names if before[name] in {Role.TRAIN, Role.SELECT}],
    }
    report = teach(store, split=given(samples, turned), init="active", config=HARDLY)
    told = "4 of the 4 samples measured on were used to make lamp@1"
    assert report.training.warnings[0].startswith("3 samples that were for testing before have another use now")
    assert report.reason == report.metrics.notes[0] == f"{told}, from which it starts: no evidence of quality"
    assert report.outcome == "kept"
    fresh = teach(store, split=given(samples, turned))
    assert fresh.outcome == "kept"
    assert fresh.reason.startswith("lamp@1 has seen 4 of these 4 samples, too many to compare with it")


def test_an_active_version_without_a_split_is_told_of(bare):
    """Of an active version that keeps no split it is not known what it was trained on, and that is said."""
    start = "moth@1, from which it starts, keeps no split: it may have learnt from these samples"
    sibling = teach(bare, "owl", init="auto", config=HARDLY, publish=False)
    assert sibling.training.warnings == sibling.metrics.notes[:1] == (start,)
    assert str(sibling).count(start) == 1
    give(bare, "lamp", classes=("lamp",))
    report = teach(bare)
    told = "lamp@1 keeps no split: it may have been trained on these test samples, and look too good"
    assert report.training.warnings == (told,)
    again = teach(bare, init="lamp@1", config=HARDLY, publish=False)
    assert again.training.warnings[0] == again.metrics.notes[0] == start.replace("moth", "lamp")
    assert (report.is_promoted, heads.find(bare, "lamp").number) == (True, 2)
