"""One head per class: what each is called, what it learns from, and the training of all."""

import threading

import attrs
import lifecycle_fixtures
import pytest
from data_fixtures import samples_of
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_fixtures import config, lights

from hydra_detect.data.samples import Samples
from hydra_detect.data.splits import split
from hydra_detect.errors import InputError, NameInvalidError, NotFoundError, TrainingStoppedError
from hydra_detect.lifecycle.each_class import each_class, train_each_class
from hydra_detect.names import HeadRef, check_name
from hydra_detect.storage import heads
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.tools import Tools

bare = lifecycle_fixtures.bare

CLASS_NAMES = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=12).filter(
    lambda name: name == name.strip() and name.isprintable()
)


def five(*labels):
    """Return samples with these labels each, five times over: as many as a head is trained from."""
    return samples_of(*labels * 5)


def test_no_class_gives_no_head():
    """Samples of no class, or none at all, are an ordinary case."""
    assert each_class("night", Samples()) == {}
    assert each_class("", samples_of([], [])) == {}


def test_a_class_that_is_only_listed_gives_no_head():
    """Data sets list classes that they do not use; one with too few labels is refused by name."""
    samples = five(["owl"], ["owl"])
    listed = attrs.evolve(samples, class_names=("owl", "unused"))
    assert list(each_class("", listed)) == ["owl"]
    with pytest.raises(InputError, match=r"train 'n-red-fox' on class 'red fox': 1 of 6 have a box") as caught:
        each_class("n", samples_of(*[["owl"]] * 5, ["red fox"]))
    assert "name the classes that are to have a head" in caught.value.remedy


def test_each_head_learns_its_class_from_all_pictures():
    """Every sample is there for each head, with the boxes of its class alone; the others are its background."""
    samples = five(["red fox"], ["owl"], ["owl", "red fox"], [])
    found = each_class("night", samples)
    assert list(found) == ["night-owl", "night-red-fox"]
    assert found["night-owl"] == samples.choose(["owl"])
    assert [len(sample.truth) for sample in found["night-red-fox"]] == [1, 0, 1, 0] * 5
    assert found["night-red-fox"].class_names == ("red fox",)


@pytest.mark.parametrize(
    ("prefix", "label", "name"),
    [
        ("", "WBC", "wbc"),
        ("cells", "WBC", "cells-wbc"),
        ("", "red  fox (adult)", "red-fox-adult"),
        ("", "<b>7</b>", "b-7-b"),
        ("a_b", "x_y", "a_b-x-y"),
    ],
)
def test_names(prefix, label, name):
    """A name is the class in lower case, with a dash for whatever no name can hold."""
    assert list(each_class(prefix, five([label]))) == [name]


def test_two_classes_of_one_name_are_refused():
    """Classes that would share a name are both named."""
    with pytest.raises(
        NameInvalidError, match="the classes 'red fox' and 'red-fox' would both be called 'n-red-fox'"
    ) as caught:
        each_class("n", samples_of(["red fox"], ["red-fox"], ["owl"]))
    assert caught.value.remedy == "Rename one with a mapping of classes."


@pytest.mark.parametrize(
    ("prefix", "label"), [("", "日本"), ("", "?!"), ("", "x" * 65), ("../a", "owl"), ("Night", "a")]
)
def test_a_class_that_gives_no_name_is_refused(prefix, label):
    """What is no name is refused as such."""
    with pytest.raises(NameInvalidError, match="as a head name"):
        each_class(prefix, samples_of([label]))


@given(st.lists(CLASS_NAMES, min_size=1, max_size=4, unique=True), st.sampled_from(["", "night"]))
def test_names_are_names_and_no_box_is_lost(labels, prefix):
    """Whatever the classes are called, all heads have good names and together all boxes; or the error says why not."""
    samples = five(*([label] for label in labels), labels)
    try:
        found = each_class(prefix, samples)
    except NameInvalidError as error:
        assert error.found  # noqa: PT017  both ways are lawful
        return
    assert [check_name(name) for name in found] == list(found)
    assert [own.class_names for own in found.values()] == [(label,) for label in sorted(labels)]
    assert sum(own.box_counts[own.class_names[0]] for own in found.values()) == 10 * len(labels)


def trained(store, samples, **options):
    """Train a head for each class, quickly; return what came of them."""
    usual = {"config": config(), "init": "fresh", "progress": lifecycle_fixtures.silent, "device": "cpu"}
    tools = Tools(cache=store.root.parent / "features")
    return list(train_each_class(store, "", samples, **{"tools": tools, **usual, **options}))


def test_heads_that_are_trained_so(bare):
    """Trained one after the other each head finds its own class, on one backbone."""
    for outcome in trained(bare, lights(40, names=("lamp", "ember"))):
        assert outcome.report.training.samples.backgrounds == 24
        assert outcome.to_dict()["head"] == outcome.head
        assert str(outcome) == str(outcome.report)
    assert heads.names(bare) == ["ember", "lamp", "moth"]
    assert [heads.find(bare, name).record.class_names for name in ("ember", "lamp")] == [("ember",), ("lamp",)]


def test_a_call_that_was_stopped_goes_on(bare):
    """What is done is not done again, whatever its version came to: only with other labels, settings or seed."""
    samples, cancel = lights(40, names=("lamp", "ember")), threading.Event()

    def progress(_state):
        if heads.names(bare) != ["moth"]:  # the first is done
            cancel.set()

    tools = Tools(cache=bare.root.parent / "features", cancel=cancel)
    with pytest.raises(TrainingStoppedError):
        trained(bare, samples, progress=progress, tools=tools)
    assert heads.names(bare) == ["lamp", "moth"]
    first, second = trained(bare, samples)
    assert (str(first.existing), first.report, second.report.version) == ("lamp@1", None, 1)
    assert first.to_dict() == {"head": "lamp", "existing": "lamp@1", "error": None}
    assert all(outcome.existing for outcome in trained(bare, samples[::-1]))
    for other in ({"seed": 1}, {"config": config(epochs=5)}, {"init": "moth"}, {"init": "moth@1"}):
        assert [outcome.report.version for outcome in trained(bare, samples, publish=False, **other)] == [None, None]


def test_groups_make_it_another_training(bare):
    """What belongs together decides what is measured on: a version that was split otherwise does not stand for it."""
    samples = lights(40, names=("lamp", "ember"))
    trained(bare, samples)
    pairs = [attrs.evolve(sample, group=f"pair {place // 2}") for place, sample in enumerate(samples)]
    regrouped = trained(bare, attrs.evolve(samples, items=pairs), publish=False)
    assert not any(outcome.existing for outcome in regrouped)


def test_a_start_that_was_named(bare):
    """What started from a head is done for who names that head, with its version or without, and for nobody else."""
    samples = lights(40, names=("lamp", "ember"))
    trained(bare, samples, init="moth")
    for same in ("moth", "moth@1", "auto"):
        assert all(outcome.existing for outcome in trained(bare, samples, init=same, backbone="default"))
    assert not any(outcome.existing for outcome in trained(bare, samples, init="fresh", publish=False))
    with pytest.raises(NotFoundError, match="other"):
        trained(bare, samples, init="moth", backbone="other")


def test_what_leans_on_a_head_that_was_named(bare):
    """What leans on a head is done for who names that, with its version or without."""
    samples = lights(20, names=("lamp",))
    leaning = config(kind="compact", rank="4", epochs=1)
    trained(bare, samples, config=leaning, reference="moth")
    for same in ("moth", "moth@1"):
        assert all(outcome.existing for outcome in trained(bare, samples, config=leaning, reference=same))


def test_a_class_that_cannot_be_learnt_stops_no_other(bare):
    """It is told of with its error, and the classes after it are trained."""
    lost = config(objective="recall@precision:1.0", learning_rate=1e-7, epochs=1)
    samples = lights(40, names=("lamp", "ember"))
    outcomes = trained(bare, samples, config=lost)
    assert [outcome.head for outcome in outcomes] == ["lamp", "ember"]
    assert all(outcome.error for outcome in outcomes)
    assert str(outcomes[0]).startswith("lamp: ")
    assert outcomes[0].to_dict()["error"]["found"] == outcomes[0].error.found
    assert heads.names(bare) == ["moth"]


class Counting:
    """A loss that changes while it is used."""

    calls = 0

    def __call__(self, predictions, context):
        """Count, and return what torchvision's does."""
        self.calls += 1
        return torchvision_loss(predictions, context)


def test_a_loss_that_counts_is_the_same_each_time_it_is_made(bare):
    """What it was before it was used tells it from others."""
    options = {"config": lifecycle_fixtures.config(loss="counting"), "progress": lifecycle_fixtures.silent}
    found = []
    for _ in range(2):
        tools = Tools(losses={"counting": Counting()})
        found += [one.existing for one in train_each_class(bare, "", lights(), tools=tools, **options)]
    assert found == [None, HeadRef("lamp", 1)]


def test_another_call_is_another_training(bare):
    """With other roles, or another loss of the same name, heads are trained again; from "active", once."""
    samples = lights(24, 0)

    def call(**options):
        settings = {"config": lifecycle_fixtures.config(epochs=1), "progress": lifecycle_fixtures.silent} | options
        (outcome,) = train_each_class(bare, "", samples, **settings)
        return outcome.existing

    first, second = (split(samples, seed=seed) for seed in (0, 1))
    made = [call(split=parts) for parts in (first, first, second, second)]
    assert made == [None, HeadRef("lamp", 1), None, HeadRef("lamp", 2)]
    assert call(split=second, init="lamp@1") is None  # which learnt from what these roles test on
    assert call(split=second, init="lamp@1") == HeadRef("lamp", 3)
    assert call(split=first) is None
    other = lifecycle_fixtures.config(epochs=1, loss="where")
    for number, loss in ((5, lifecycle_fixtures.where_alone), (6, torchvision_loss)):
        tools = Tools(losses={"where": loss})
        assert call(split=first, config=other, tools=tools) is None
        assert call(split=first, config=other, tools=tools) == HeadRef("lamp", number)
    assert call(split=first, init="active") is None
    assert call(split=first, init="active") == HeadRef("lamp", 7)
