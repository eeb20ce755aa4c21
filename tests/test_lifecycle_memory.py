"""What is remembered of samples: roles stay, whatever samples are called, and names alone say nothing."""

import attrs
import lifecycle_fixtures
import pytest
from lifecycle_fixtures import HARDLY, QUICK, light, lights, plan_for, role_of, teach

from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.data.splits import given
from hydra_detect.errors import InputError, RoleError
from hydra_detect.lifecycle import beside
from hydra_detect.lifecycle.judging import calibrate, evaluate
from hydra_detect.lifecycle.memory import known_to, remembered
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT
from hydra_detect.storage import heads
from hydra_detect.versions import VersionManager

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught


# Before


def test_a_new_head_remembers_nothing(bare, taught):
    """Neither a head that is not there nor one that keeps no split has roles of before."""
    assert remembered(bare, "lamp", None) is None
    assert remembered(bare, "moth", None) is None
    store, _report = taught
    assert remembered(store, "lamp", None).roles == role_of(store, heads.find(store, "lamp@1"))


def test_what_was_test_stays_test(taught):
    """When samples are added, those that the head knew keep their roles, and the new ones are dealt to all four."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    more = lights(60, 10)
    made = plan_for(store, more, seed=7)
    assert {name: role for name, role in made.split.roles.items() if name in before} == before
    for role in Role:
        assert made.split.counts[role] > list(before.values()).count(role)


def test_what_was_test_stays_test_in_cross_validation(taught):
    """Where a new class has too few labels for four roles, what was for testing is left out, and that is said."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    tested = {name for name, role in before.items() if role == Role.TEST}
    assert tested
    more = Samples(items=[*lights(), *lights(3, 0, first=300, names=("ember",))], class_names=("lamp", "ember"))
    made = plan_for(store, more)
    assert made.method == CROSS_VALIDATION
    assert {name for name, role in made.split.roles.items() if role == Role.TEST} == tested
    assert len(made.judged) == len(more) - len(tested)
    assert f"{len(tested)} samples that were for testing before are left out" in made.doubts[-1]
    spent = more[[place for place, one in enumerate(more) if one.id in tested]]
    few = Samples(items=[*spent, *lights(4, 0, first=400)], class_names=("lamp", "ember"))
    with pytest.raises(InputError, match="4 of 4 have a box, and 5 are the least"):
        plan_for(store, few)


def test_a_picture_keeps_its_role_under_another_name(taught):
    """A sample that was renamed is the same sample: its picture says so."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    renamed = Samples(
        items=[Sample(id=f"new-{sample.id}", picture=sample.picture, truth=sample.truth) for sample in lights()]
    )
    made = plan_for(store, renamed, seed=7, validation=HELD_OUT)
    assert {name.removeprefix("new-"): role for name, role in made.split.roles.items()} == before


def test_what_any_version_learnt_from_is_for_learning_alone(taught):
    """A cross-validated version learnt from what was not for testing; those roles, and no others, are changed by it."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    teach(store, samples=lights(8), init="fresh", config=QUICK)
    learnt = role_of(store, heads.find(store, "lamp@2"))
    assert {(before[name], role) for name, role in learnt.items()} == {
        *((role, Role.TRAIN) for role in (Role.TRAIN, Role.SELECT, Role.CALIBRATE)), (Role.TEST, Role.TEST),
    }  # fmt: skip
    known = remembered(store, "lamp", None)
    assert {name: known.roles[name] for name in before} == {**before, **learnt}
    # Of the second four pictures are others under known names: those of before are known, too.
    assert [one.id.partition("#")[0] for one in known.samples if one.is_elsewhere] == ["s008", "s009", "s010", "s011"]
    old = heads.find(store, "lamp@1")
    VersionManager(store).create("lamp", heads.tensors(store, old), old.record)
    assert remembered(store, "lamp", None) == known


def test_what_was_learnt_from_is_known_by_its_picture_and_its_group(bare):
    """Under another id, or as another picture of a group that was learnt from, a sample is for learning alone."""
    grouped = Samples(
        items=[attrs.evolve(one, group=f"g{place // 2}") for place, one in enumerate(lights(80, 0))],
        class_names=("lamp",),
    )
    teach(bare, samples=grouped, init="fresh", config=HARDLY | {"epochs": 4, "learning_rate": 1e-2})
    before = role_of(bare, heads.find(bare, "lamp@1"))
    fitted = [one for one in grouped if before[one.id] == Role.CALIBRATE]
    renamed = attrs.evolve(fitted[0], id="renamed", group="g-renamed")
    few = Samples(items=[renamed, fitted[2], *lights(8, 2, first=300)], class_names=("lamp",))
    teach(bare, samples=few, init="fresh", config=QUICK)
    known = remembered(bare, "lamp", None).roles
    pair = next(one for one in fitted if one.group == fitted[2].group and one.id != fitted[2].id)
    assert {known[fitted[0].id], known["renamed"], known[fitted[2].id], known[pair.id]} == {Role.TRAIN}
    left = [one for one in fitted if one.group not in {fitted[0].group, fitted[2].group}]
    assert {known[one.id] for one in left} == {Role.CALIBRATE}
    assert plan_for(bare, grouped, validation=HELD_OUT).method == HELD_OUT  # no group has two roles


def test_groups_that_were_found_later(taught):
    """Samples that turn out to belong together keep one role: that which was learnt from, or else that of the test."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    first = {role: next(name for name, own in before.items() if own == role) for role in Role}

    def joined(*roles):
        names = {first[role] for role in roles}
        items = [attrs.evolve(one, group="joined") if one.id in names else one for one in lights(60, 10)]
        made = plan_for(store, Samples(items=items, class_names=("lamp",)), seed=7)
        others = before.keys() - names
        assert {name: made.split.roles[name] for name in others} == {name: before[name] for name in others}
        return {made.split.roles[name] for name in names}

    assert joined(Role.TRAIN, Role.TEST) == {Role.TRAIN}
    assert joined(Role.SELECT, Role.TEST) == {Role.TEST}
    assert joined(Role.SELECT, Role.CALIBRATE, Role.TEST, Role.TRAIN) == {Role.TRAIN}


def test_what_a_version_came_from_is_known_to_it(taught):
    """A version that went on from another on new samples knows those of the other, too: none are measured on."""
    store, _report = taught
    before = role_of(store, heads.find(store, "lamp@1"))
    new = lights(20, 4, first=400)
    teach(store, samples=new, init="lamp@1", promote_anyway=True)
    known = role_of(store, heads.find(store, "lamp@2"))
    assert known.items() >= before.items()
    assert len(known) == len(before) + len(new)
    learnt = [one for one in lights() if before[one.id] == Role.TRAIN]
    with pytest.raises(RoleError, match="were used to make it"):
        evaluate(store, "lamp@2", Samples(items=learnt, class_names=("lamp",)))
    report = teach(store, "owl", samples=lights(), init="auto", seed=3, publish=False)
    assert report.training.course.started_from == "moth@1"


def test_what_a_version_did_not_come_from_is_none_of_its(taught):
    """One that began at random knows its own samples alone."""
    store, _report = taught
    new = lights(20, 4, first=400)
    teach(store, samples=new, init="fresh")
    assert set(role_of(store, heads.find(store, "lamp@2"))) == {one.id for one in new}


def test_what_was_learnt_from_stays_so_whatever_it_is_used_for(taught):
    """A sample that the beginning learnt from is "train" beside the version, though it was tested on now."""
    store, _report = taught
    own = beside.split_of(store, heads.find(store, "lamp"))
    name = next(name for name, role in own.roles.items() if role == Role.TRAIN)
    turned = attrs.evolve(own, samples=[attrs.evolve(one, role="test") for one in own.samples])
    known = known_to(turned, [own]).roles
    assert known[name] == Role.TRAIN
    assert {known[other] for other, role in own.roles.items() if role != Role.TRAIN} == {Role.TEST}
    assert known_to(own, []) == own


# Names say nothing in another data set


def numbered(samples):
    """Return the same pictures under the names that every data set has."""
    items = [Sample(id=f"{n:04}.png", picture=one.picture, truth=one.truth) for n, one in enumerate(samples)]
    return Samples(items=items, class_names=("lamp",))


def test_the_same_names_in_another_data_set(bare):
    """Pictures of equal names are no samples that were learnt from: new ones get four roles, and nothing is forgotten.

    What a version's beginning learnt from stays known by its picture, though its names are those of others now.
    """
    first, second = numbered(lights(24)), numbered(lights(60, first=1000))
    teach(bare, samples=first, config={**QUICK, "validation": "cross-validation"})
    made = plan_for(bare, second)
    assert (made.method, made.doubts) == (HELD_OUT, ())
    teach(bare, samples=second, init="lamp@1")
    roles = role_of(bare, heads.find(bare, "lamp@2"))
    assert {name: roles[name] for name in made.split.roles} == made.split.roles
    assert len(roles) == len(first) + len(second)
    with pytest.raises(RoleError, match=f"{len(first)} of {len(first)} samples were used to make it"):
        evaluate(bare, "lamp@2", first)
    assert evaluate(bare, "lamp@2", made.take(Role.TEST), draws=0).samples == len(made.judged)
    again = plan_for(bare, numbered([*lights(24), *lights(60, first=3000)][:50]))  # the first set, and it has grown
    assert {again.split.roles[sample.id] for sample in first} == {Role.TRAIN}
    assert again.method == CROSS_VALIDATION


def test_calibrated_on_another_data_set_of_the_same_names(bare):
    """What a version learnt from is refused after a calibration too, though others have the same names."""
    own, others = numbered(lights()), numbered(lights(12, 6, first=1000))
    teach(bare, samples=own)
    learnt = beside.split_of(bare, heads.find(bare, "lamp@1")).take(own, Role.TRAIN).with_role(None)
    ref = calibrate(bare, "lamp@1", others).ref
    for samples in (learnt, others):
        with pytest.raises(RoleError, match=f"{len(samples)} of {len(samples)} samples were used to make it"):
            evaluate(bare, ref, samples)
    assert evaluate(bare, ref, own, own_test=True, draws=0).samples == 3


def test_a_third_data_set_of_the_same_names():
    """What is known from elsewhere is not forgotten when its name there turns up here, for another picture."""
    first, second, third = (numbered(lights(3, 0, first=start)) for start in (0, 100, 200))
    own, other, new = (given(samples, {"train": [one.id for one in samples]}) for samples in (first, second, third))
    both = known_to(own, [other])
    assert {one.picture for one in both.samples} == {one.picture_digest for one in (*first, *second)}
    assert [one.is_elsewhere for one in both.samples] == [False, True] * 3
    every = known_to(new, [both])
    assert {one.picture for one in every.samples} == {one.picture_digest for one in (*first, *second, *third)}
    assert {one.id for one in every.samples if not one.is_elsewhere} == {one.id for one in third}
    assert known_to(every, [both]) == every


def test_data_sets_of_equal_names_that_are_merged(bare):
    """Where two data sets of the same names are joined under others, what was learnt from in either is for learning."""
    first, second = numbered(lights(24)), numbered(lights(60, first=1000))
    teach(bare, samples=first, config={**QUICK, "validation": "cross-validation"})
    teach(bare, samples=second, config={**HARDLY, "validation": "cross-validation"})
    items = [Sample(id=f"{name}/{one.id}", picture=one.picture, truth=one.truth)
             for name, samples in (("a", first), ("b", second), ("c", numbered(lights(60, first=3000))))
             for one in samples]  # fmt: skip
    roles = plan_for(bare, Samples(items=items, class_names=("lamp",))).split.roles
    assert {role for name, role in roles.items() if not name.startswith("c")} == {Role.TRAIN}
    assert {role for name, role in roles.items() if name.startswith("c")} == set(Role)


def test_recordings_of_two_other_data_sets_of_equal_names(bare):
    """Of recordings that were learnt from, in whatever data set, new pictures are for learning alone."""

    def recorded(first, name):
        items = [
            attrs.evolve(one, group=f"{name}{n // 2}") for n, one in enumerate(numbered(lights(28, 0, first=first)))
        ]
        return Samples(items=items, class_names=("lamp",))

    for first, name in ((0, "a"), (1000, "b")):
        teach(bare, samples=recorded(first, name), config={**QUICK, "validation": "cross-validation"})
    own = plan_for(bare, recorded(2000, "a"), validation="cross-validation").split
    assert set(own.roles.values()) == {Role.TRAIN}
    known = remembered(bare, "lamp", None, recorded(2000, "a"))
    assert {one.group for one in known.samples} == {f"{name}{n}" for name in "ab" for n in range(14)}


def test_calibrated_on_pictures_that_were_changed(bare):
    """A picture under a known name that is another now is remembered by what it is now, and by what it was."""
    own = lights()
    teach(bare, samples=own)
    split_of = beside.split_of(bare, heads.find(bare, "lamp@1"))
    fitted = split_of.take(own, Role.CALIBRATE)
    changed = [attrs.evolve(one, picture=light(700 + n, "lamp").picture, truth=light(700 + n, "lamp").truth)
               for n, one in enumerate(fitted[1:])]  # fmt: skip
    samples = Samples(items=[fitted[0], *changed, *lights(12, 0, first=800)], class_names=("lamp",))
    ref = calibrate(bare, "lamp@1", samples).ref
    for some in (Samples(items=changed, class_names=("lamp",)), fitted.with_role(None)):
        with pytest.raises(RoleError, match=f"{len(some)} of {len(some)} samples were used to make it"):
            evaluate(bare, ref, some)
