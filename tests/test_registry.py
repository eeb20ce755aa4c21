"""The registry: heads by name, at a glance, and what they fit."""

import json

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, labels, names, versions
from store_fixtures import a_backbone, a_contract, create, flip, snapshot

from hydra_detect import codec
from hydra_detect.contracts import Level, Preprocessing
from hydra_detect.errors import IncompatibleError, NotFoundError, RecordError, StoreError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.registry import HeadInfo, HeadRegistry, check_fits
from hydra_detect.storage import backbones, heads, layout

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

infos = st.builds(
    HeadInfo,
    name=names,
    active=st.none() | versions,
    versions=st.lists(versions, max_size=3).map(tuple),
    class_names=st.lists(labels, max_size=3).map(tuple),
    backbone=names,
    backbone_digest=digests,
    nbytes=st.integers(0, 1 << 40),
    created_at=st.just(store_fixtures.AT),
)


@pytest.fixture
def registry(filled):
    """Give the registry of the filled store."""
    return HeadRegistry(filled.store)


# As a mapping


def test_empty_store(store):
    """A store without heads is an ordinary, empty registry, and is not written to."""
    registry = HeadRegistry(store)
    before = snapshot(store.root)
    assert (list(registry), len(registry), registry.infos(), registry.backbones()) == ([], 0, [], [])
    assert registry.fitting(a_contract()) == registry.fitting(Digest("0" * 64)) == []
    assert "owl" not in registry
    with pytest.raises(NotFoundError, match=r"has no such head\. There is none yet\.$"):
        registry["owl"]
    assert snapshot(store.root) == before


def test_mapping(registry, filled):
    """Iterating gives names, `in` asks for one, and brackets give the active version or the one named."""
    assert list(registry) == ["fox", "owl"]
    assert len(registry) == 2
    assert "owl" in registry
    assert not any(name in registry for name in ("zebra", "owl@1", "", "..", 5, None))
    assert registry["owl"] == heads.find(filled.store, "owl@1")
    assert registry["owl@2"] == registry[HeadRef("owl", 2)] == heads.find(filled.store, "owl@2")
    assert registry.backbones() == ["demo"]
    assert repr(registry) == f"HeadRegistry({str(filled.store.root)!r}, 2 heads)"


def test_misses(registry):
    """A miss says which names come near, and a head without an active version how to get one."""
    for ask in (registry.__getitem__, registry.info):
        with pytest.raises(NotFoundError, match=r"cannot find head 'owl2': .* Did you mean 'owl'\?$"):
            ask("owl2")
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active") as caught:
        registry["fox"]
    assert caught.value.remedy == "Promote one: 'hydra-detect promote fox 1'."


def test_registry_of_nothing(tmp_path):
    """Asking for the registry of a missing store makes none."""
    with pytest.raises(StoreError, match="there is no such folder"):
        HeadRegistry(tmp_path / "none")
    assert snapshot(tmp_path) == {}


# At a glance


def test_info(registry, filled):
    """A head at a glance shows its active version, and its newest where none is active."""
    tensors, record = a_backbone()
    version = heads.find(filled.store, "owl@1")
    assert registry.info("owl") == HeadInfo(
        name="owl", active=1, versions=(1, 2), class_names=("owl", "red fox"), backbone="demo",
        backbone_digest=record.contract.digest, nbytes=version.files[layout.TENSORS][0], created_at=version.created_at,
    )  # fmt: skip
    assert (registry.info("fox").active, registry.info("fox").versions) == (None, (1,))
    create(filled, "fox", class_names=("fox",))
    assert registry.info("fox").class_names == ("fox",)
    assert backbones.tensors(filled.store, backbones.find(filled.store, "demo")) == dict(sorted(tensors.items()))


@given(infos)
def test_info_round_trip(info):
    """A summary reads back as itself from plain JSON values."""
    assert HeadInfo.from_dict(json.loads(codec.dumps(info.to_dict()))) == info


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 5}, {"active": "1"}, {"active": True}, {"versions": "12"}, {"versions": ["1"]}, {"versions": {"1": 1}},
        {"class_names": "owl"}, {"class_names": [None]}, {"backbone_digest": "x"}, {"nbytes": 1.5}, {"created_at": 5},
        {"backbone": None}, {"problem": None}, {"name": ...}, {"active": ...}, {"versions": ...},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_summaries(changes):
    """A summary with a field that is missing or of the wrong kind is refused by the field's name."""
    info = HeadInfo(
        name="owl", active=1, versions=(1,), class_names=("owl",), backbone="demo", backbone_digest=Digest("0" * 64),
        nbytes=1, created_at="",
    )  # fmt: skip
    value = {key: item for key, item in (info.to_dict() | changes).items() if item is not ...}
    with pytest.raises(RecordError, match="cannot read the summary of a head: ") as caught:
        HeadInfo.from_dict(value)
    assert next(iter(changes)) in caught.value.found or "as a digest" in caught.value.found


# Fitting


def test_fitting(registry, filled):
    """Heads whose active version was made for a backbone fit it: by digest its weights, by contract all of it."""
    contract = a_backbone()[1].contract
    assert registry.fitting(contract) == registry.fitting(contract.digest) == ["owl"]
    filled.promote("fox", 1)
    create(filled, "lynx", 4)
    filled.promote("lynx", 1)
    smaller = attrs.evolve(contract, preprocessing=Preprocessing(min_size=640))
    create(filled, "wolf", 5, backbone=smaller)
    filled.promote("wolf", 1)
    assert registry.fitting(contract) == ["fox", "owl"]
    assert registry.fitting(smaller) == ["wolf"]
    assert registry.fitting(contract.digest) == ["fox", "owl", "wolf"]
    assert registry.fitting(a_contract()) == ["lynx"]
    assert registry.fitting(Digest("f" * 64)) == []


def test_fitting_goes_by_the_active_version(registry, filled):
    """A head moves to another backbone when a version made for it is promoted, not before."""
    contract, other = a_backbone()[1].contract, a_contract("7")
    create(filled, "owl", 6, backbone=other)
    assert (registry.fitting(contract), registry.fitting(other)) == (["owl"], [])
    filled.promote("owl", 3)
    assert (registry.fitting(contract), registry.fitting(other)) == ([], ["owl"])


def test_fitting_names_heads_that_cannot_be_read(registry, filled):
    """A head that cannot be read is among those that fit any backbone, so that whoever loads it hears why not."""
    flip(filled.store.layout.item(layout.HEADS, "owl").pointer(1), 30)
    for backbone in (a_backbone()[1].contract, a_contract("7"), Digest("f" * 64)):
        assert registry.fitting(backbone) == ["owl"]


def test_check_fits(registry):
    """A head fits the backbone it was made for."""
    version = registry["owl"]
    check_fits(version, version.record.backbone)
    check_fits(version, attrs.evolve(version.record.backbone, unknown={"later": 1}))


def test_check_fits_lists_differences(registry):
    """The refusal names every fact that differs, as text and as facts, and the backbone that would do."""
    version = registry["owl"]
    levels = (Level(name="0", channels=256, stride=4), Level(name="pool", channels=64, stride=8))
    other = attrs.evolve(a_contract("9"), preprocessing=Preprocessing(max_size=2000), levels=levels)
    with pytest.raises(IncompatibleError, match="cannot run owl@1 on this backbone") as caught:
        check_fits(version, other)
    short = version.record.backbone.digest.short
    assert caught.value.facts["differences"] == (
        f"digest is 999999999999 against {short}",
        "preprocessing.max_size is 2000 against 1333",
        "levels[1].channels is 64 against 256",
    )
    assert all(phrase in caught.value.found for phrase in caught.value.facts["differences"])
    assert caught.value.remedy == "Use the backbone it was made on, there called 'demo'."


def test_a_damaged_version_that_is_not_active_hides_no_head(registry, filled):
    """Listing heads goes on when a version that is not in use is damaged."""
    create(filled, "owl", seed=5)
    newest = filled.versions("owl")[-1].number
    before = registry.infos()
    flip(filled.store.layout.item(layout.HEADS, "owl").version(newest) / layout.MANIFEST, 40)
    assert registry.infos() == before
