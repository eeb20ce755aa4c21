"""Who learns from what: four roles, and cross-validation below what they need."""

import attrs
import lifecycle_fixtures
import pytest
from lifecycle_fixtures import QUICK, light, lights, plan_for, role_of, teach

from hydra_detect import codec
from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.data.splits import Split, SplitSample, given, split
from hydra_detect.errors import InputError, RoleError
from hydra_detect.lifecycle import beside
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT
from hydra_detect.storage import heads

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught


# Few


@pytest.mark.parametrize(
    ("labelled", "asked", "method"),
    [
        (5, "auto", CROSS_VALIDATION), (49, "auto", CROSS_VALIDATION), (50, "auto", HELD_OUT),
        (20, HELD_OUT, HELD_OUT), (50, HELD_OUT, HELD_OUT), (50, CROSS_VALIDATION, CROSS_VALIDATION),
    ],
)  # fmt: skip
def test_what_four_roles_need(bare, labelled, asked, method):
    """From five labelled samples on there is cross-validation, in which all are trained on; from 50 on, four roles.

    Whoever asks for a test role has one from 20 on, and whoever asks for cross-validation has it with any number.
    """
    made = plan_for(bare, lights(labelled), validation=asked)
    assert bool(made.doubts) is (method == CROSS_VALIDATION != asked)
    assert made.method == method
    counts = made.split.counts
    if method == CROSS_VALIDATION:
        assert counts == {Role.TRAIN: labelled + 4, Role.SELECT: 0, Role.CALIBRATE: 0, Role.TEST: 0}
        assert made.judged == made.samples.with_role(Role.TRAIN)
    else:
        assert all(counts.values())
        assert made.judged == made.take(Role.TEST)
        assert made.judged.role == Role.TEST


def test_a_test_role_that_is_not_to_be_had(bare):
    """Asked for with too few samples, or with too few that are new, it is refused."""
    with pytest.raises(InputError, match=r"19 of 'lamp'; 20 of each class are enough.*set `validation` to \"auto\""):
        plan_for(bare, lights(19), validation=HELD_OUT)
    teach(bare, samples=lights(19))
    with pytest.raises(InputError, match="most samples were learnt from before"):
        plan_for(bare, lights(21), validation=HELD_OUT)


def test_each_class_counts_by_itself(bare):
    """Seventy samples of which one class has but ten are too few for four roles."""
    many, few = lights(60), lights(10, 0, first=500, names=("ember",))
    both = Samples(items=[*many, *few], class_names=("lamp", "ember"))
    assert plan_for(bare, both).method == CROSS_VALIDATION


@pytest.mark.parametrize("labelled", [0, 4])
def test_too_few_for_anything(bare, labelled):
    """Fewer than five labelled samples make no plan, whatever split is given."""
    samples = lights(labelled)
    for own in (None, given(samples, {"train": [sample.id for sample in samples]})):
        with pytest.raises(InputError, match="5 are the least"):
            plan_for(bare, samples, split=own)


def test_samples_of_another_role_are_not_learnt_from(bare):
    """Samples that were taken for another work are refused; those without a role, or to train with, are not."""
    for role in (Role.SELECT, Role.CALIBRATE, Role.TEST):
        with pytest.raises(RoleError, match=f"cannot train 'lamp': the samples have the role {role}") as caught:
            plan_for(bare, lights().with_role(role))
        assert caught.value.facts == {"role": role}
    assert plan_for(bare, lights().with_role(Role.TRAIN)).split == plan_for(bare, lights()).split


# Given


def test_an_authors_own_lists_are_obeyed(bare):
    """With a given split each sample has the role that the lists say, few as they may be."""
    samples = lights(8, 0)
    names = [sample.id for sample in samples]
    lists = {Role.TRAIN: names[:5], Role.CALIBRATE: names[5:7], Role.TEST: names[7:]}
    made = plan_for(bare, samples, split=given(samples, lists))
    assert made.method == HELD_OUT
    assert {role: [sample.id for sample in made.take(role)] for role in lists} == lists
    assert len(made.take(Role.SELECT)) == 0


@pytest.mark.parametrize(
    ("lists", "lacking"),
    [
        ({"train": (0, 24)}, "calibrate and test"),
        ({"train": (0, 20), "calibrate": (20, 24)}, "calibrate and test"),
        ({"train": (0, 20), "test": (20, 24)}, "calibrate"),
        ({"train": (0, 16), "calibrate": (16, 24)}, "test"),
        ({"train": (20, 24), "calibrate": (0, 10), "test": (10, 20)}, "train"),
    ],
)
def test_a_split_that_leaves_a_role_without_is_refused(bare, lists, lacking):
    """A split by which a training could not be finished is refused before it begins; `lights` ends with the dark."""
    samples = lights()
    names = [sample.id for sample in samples]
    own = given(samples, {role: names[low:end] for role, (low, end) in lists.items()})
    with pytest.raises(InputError, match=f"the given split has no labelled sample for {lacking}\\."):
        plan_for(bare, samples, split=own)


def test_a_split_of_other_samples_is_refused(bare):
    """A split knows the samples that it is of, by id and by picture."""
    own = split(lights())
    with pytest.raises(InputError, match=r"1 samples were not split, .*s900"):
        plan_for(bare, Samples(items=[*lights(), light(900, "lamp")], class_names=("lamp",)), split=own)
    swapped = [attrs.evolve(sample, picture=light(901).picture) for sample in lights()[:1]]
    with pytest.raises(InputError, match=r"their pictures are others now: 's000'"):
        plan_for(bare, Samples(items=[*swapped, *lights()[1:]], class_names=("lamp",)), split=own)


def test_a_given_split_may_spend_what_was_for_testing(taught):
    """A split of the caller's that learns from what a version was tested on is obeyed, and that is said."""
    store, _report = taught
    before = beside.split_of(store, heads.find(store, "lamp"))
    assert plan_for(store, lights(), split=before).doubts == ()
    tested = [name for name, role in before.roles.items() if role == Role.TEST]
    lists = {role: [name for name, own in before.roles.items() if own == role] for role in Role}
    lists[Role.TRAIN], lists[Role.TEST] = lists[Role.TRAIN] + tested[:1], tested[1:] + lists[Role.SELECT]
    lists[Role.SELECT] = []
    made = plan_for(store, lights(), split=given(lights(), lists))
    assert made.doubts == (f"1 samples that were for testing before have another use now: {tested[0]}",)
    learnt = [name for name, role in before.roles.items() if role == Role.TRAIN]
    turned = {Role.TRAIN: [*tested, *learnt[2:]], Role.TEST: learnt[:2]}
    turned[Role.CALIBRATE] = [name for name, role in before.roles.items() if role in {Role.SELECT, Role.CALIBRATE}]
    made = plan_for(store, lights(), split=given(lights(), turned))
    assert [told.split(":")[0] for told in made.doubts] == [
        "3 samples that were for testing before have another use now",
        "2 test samples were learnt from before, by the backbone or another version",
    ]


def test_a_given_split_with_pictures_under_other_names(bare):
    """What was learnt from is known by its picture too, where a caller's own split would measure on it."""
    teach(bare, samples=lights())
    learnt = beside.split_of(bare, heads.find(bare, "lamp@1")).take(lights(), Role.TRAIN)
    items = [Sample(id=f"x{one.id}", picture=one.picture, truth=one.truth) for one in learnt[:6]]
    samples = Samples(items=[*items, *lights(20, first=500)], class_names=("lamp",))
    places = [sample.id for sample in samples]
    own = given(samples, {"test": places[:6], "train": places[6:12], "select": places[12:15], "calibrate": places[15:]})
    told = [text for text in plan_for(bare, samples, split=own).doubts if "6 test samples were learnt from" in text]
    assert len(told) == 1


def test_the_order_of_samples_does_not_matter(bare):
    """The plan has them by id, whichever way round they were given."""
    samples = lights()
    assert plan_for(bare, samples[::-1]).samples.items == plan_for(bare, samples).samples.items
    assert plan_for(bare, samples[::-1]).split == plan_for(bare, samples).split


def test_few_new_samples_beside_many_that_were_learnt_from(bare):
    """Where select, calibrate and test would get next to nothing that is new, the training is cross-validated."""
    teach(bare, samples=lights(49, 0), config={**QUICK, "epochs": 1, "validation": "cross-validation"})
    made = plan_for(bare, lights(52, 0))
    assert made.method == CROSS_VALIDATION
    assert "most samples were learnt from before" in made.doubts[0]
    made = plan_for(bare, lights(80, 0))
    assert made.method == HELD_OUT
    known = role_of(bare, heads.find(bare, "lamp@1"))
    assert {made.split.roles[name] for name in known} == {Role.TRAIN}


def test_large_data_sets_can_be_written():
    """The roles of 10,000 samples, more than a mebibyte of text, are kept beside a version and read again."""
    one = light(0, "lamp")
    samples = [attrs.evolve(one, id=f"s{number:05}", group=f"s{number:05}") for number in range(10_000)]
    rows = [SplitSample(id=s.id, picture=one.picture_digest, digest=one.digest, group=s.group, role="train")
            for s in samples]  # fmt: skip
    text = beside.files(split=Split(samples=rows, shares={"train": 1.0}))["split.json"]
    assert len(text) > codec.MAX_JSON_BYTES
    assert codec.decode(Split, text, "it", limit=codec.MAX_LIST_BYTES).counts[Role.TRAIN] == 10_000
