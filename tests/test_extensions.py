"""Names for what users bring along: ours, theirs, and those of installed packages."""

import functools
import importlib
import linecache
import sys

import pytest
from torchvision.transforms import v2

from hydra_detect.errors import InputError
from hydra_detect.training.augment import list_augmentations
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.extensions import found, installed, names, text_digest
from hydra_detect.training.losses import list_losses, loss_named
from hydra_detect.training.tools import Tools

GROUP = "hydra_detect.losses"


def install(folder, package, *lines, group=GROUP, code="def half(predictions, context):\n    return {}\n"):
    """Install a distribution with a module of its name and these entry points."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Give a folder in which Python looks for packages; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_without_anything():
    """Where there is nothing, the list is empty and each name is unknown."""
    assert names({}, "hydra_detect.none") == []
    with pytest.raises(InputError, match=r"cannot find 'a' among none: there is none\. There is none yet"):
        found("a", {}, group="hydra_detect.none")


def test_own_and_given():
    """Our own and those given in the call are found; the latter are seen in that call alone."""
    assert found("a", {"a": 1}, group=GROUP) == 1
    assert found("b", {"a": 1}, group=GROUP, given={"b": 2}) == 2
    with pytest.raises(InputError, match=r"among losses: there is none\. There are: a"):
        found("b", {"a": 1}, group=GROUP)


def test_an_installed_package_is_listed_and_found(site):
    """A package that declares an entry point is listed under its name, and imported only when it is asked for."""
    install(site, "spare_losses", "half = spare_losses:half")
    assert "half" in list_losses()
    assert "spare_losses" not in sys.modules
    assert loss_named("half")(None, None) == {}
    assert sys.modules["spare_losses"].half is loss_named("half")


def test_groups_are_apart(site):
    """A loss is no augmentation."""
    install(site, "spare_augmentations", "mist = spare_augmentations:half", group="hydra_detect.augmentations")
    assert "mist" in list_augmentations()
    assert "mist" not in list_losses()
    with pytest.raises(InputError, match="there is none"):
        loss_named("mist")


def test_a_name_that_stands_for_two_is_refused(site):
    """Ours and given, ours and installed, given and installed, and two packages' of one name: none wins silently."""
    install(site, "first_losses", "half = first_losses:half", "focal = first_losses:half")
    with pytest.raises(InputError, match="there are 2: ours, given"):
        found("a", {"a": 1}, group=GROUP, given={"a": 2})
    with pytest.raises(InputError, match="there are 2: ours, installed"):
        loss_named("focal")
    with pytest.raises(InputError, match="there are 2: given, installed"):
        loss_named("half", {"half": None})
    install(site, "second_losses", "half = second_losses:half")
    with pytest.raises(InputError, match="there are 2: installed, installed"):
        loss_named("half")


def test_near_matches_are_told(site):
    """A misspelt name is refused with what is near, whoever's it is."""
    install(site, "spare_losses", "halved = spare_losses:half")
    with pytest.raises(InputError, match=r"Did you mean 'halved'"):
        loss_named("halve")
    with pytest.raises(InputError, match=r"Did you mean 'focal'"):
        loss_named("focl")


class Doubled:
    """A loss that is an object, and shows what it was made with."""

    def __init__(self, factor):
        self.factor = factor

    def __repr__(self):
        """Return a text such as a module of torch has."""
        return f"Doubled({self.factor})"

    def __call__(self, *_predictions):
        """Return nothing."""
        return {}


def enclosing(factor, kind=object):
    """Return a function that encloses values, one of them with an address in how it shows itself."""
    inside = kind()
    return lambda *_predictions: {"loss": factor, "inside": inside}


def test_the_text_of_what_was_brought_along(site):
    """Another text or name is another digest; the same is the same, and what has no text has a name."""
    install(site, "spare")
    import spare

    before = text_digest(spare.half)
    assert text_digest(spare.half) == before
    (site / "spare.py").write_text("def half(predictions, context):\n    return {'x': 1}\n")
    again = importlib.reload(spare)
    linecache.checkcache()
    assert text_digest(again.half) != before
    assert text_digest(len) == text_digest(len) != text_digest(max)
    typed = {}
    exec("def one(): pass\ndef two(): pass", typed)  # noqa: S102  as in an interpreter
    assert text_digest(typed["one"]) != text_digest(typed["two"])


@pytest.mark.parametrize(
    "make",
    [
        Doubled,
        enclosing,
        v2.RandomRotation,
        lambda share: v2.RandomApply([v2.RandomHorizontalFlip(p=share / 9)]),
        lambda factor: functools.partial(pow, factor),
        lambda factor: functools.partial(pow, mod=factor),
    ],
)
def test_what_it_was_made_with_counts(make):
    """Objects, partials and closures made with other values are others; made anew with the same, the same."""
    assert text_digest(make(2)) == text_digest(make(2)) != text_digest(make(3))


def test_an_installed_package_is_known_by_its_version(site):
    """What is looked up by name is told by the package that declares it."""
    install(site, "spare_version", "half = spare_version:half")
    assert installed("half", GROUP) == "spare_version 1.0"
    assert installed("focal", GROUP) == ""
    assert Tools().code(TrainingConfig(loss="half"))["half"] == "spare_version 1.0"


class Scaled:
    """A loss with a parameter of its own, as an object and as a method."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, predictions, context):
        """Return nothing in particular."""

    def loss(self, predictions, context):
        """Return nothing in particular."""


def test_the_parameters_of_objects_and_methods_count():
    """A loss of another scale is another loss, whichever way it is given: it takes up nothing that the old one left."""
    assert text_digest(Scaled(1.0)) == text_digest(Scaled(1.0)) != text_digest(Scaled(100.0))
    assert text_digest(Scaled(1.0).loss) == text_digest(Scaled(1.0).loss) != text_digest(Scaled(100.0).loss)
    assert text_digest(Scaled(1.0).loss) != text_digest(Scaled(1.0))
    made = {}
    for scale in (1, 100):
        exec(f"def loss(predictions, context, scale={scale}):\n    return {{'all': scale}}", made)  # noqa: S102
        made[scale] = made["loss"]
    assert text_digest(made[1]) != text_digest(made[100])
    exec("def loss(predictions, context):\n    return 1", made)  # noqa: S102  no file has its text
    one = text_digest(made["loss"])
    exec("def loss(predictions, context):\n    return 2", made)  # noqa: S102
    assert text_digest(made["loss"]) != one
