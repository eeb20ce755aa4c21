"""Originals: where there is no checkpoint yet a whole detector learns, is proven, split, calibrated and measured."""

import functools
import shutil
from pathlib import Path

import attrs
import lifecycle_fixtures
import pytest
import torch
from lifecycle_fixtures import QUICK, lights, role_of, silent, teach
from store_fixtures import snapshot

from hydra_detect import HydraDetector, verify
from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.data.splits import given
from hydra_detect.errors import ConflictError, InputError, NameInvalidError, NotFoundError, RoleError
from hydra_detect.lifecycle import beside, original
from hydra_detect.lifecycle.judging import evaluate
from hydra_detect.lifecycle.original import train_original
from hydra_detect.nets.original import build_original
from hydra_detect.storage import backbones, heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.original import OriginalSettings
from hydra_detect.training.runs import Run
from hydra_detect.versions import VersionManager

bare = lifecycle_fixtures.bare

SMALL = OriginalSettings(
    architecture="mobilenet_v3_large", min_size=48, max_size=96, pyramid_channels=16, box_width=32, proposals=50,
)  # fmt: skip
WHOLE = {
    **QUICK, "views": (), "epochs": 8, "batch_size": 2, "learning_rate": 3e-3, "augmentations": ("hflip",),
    "anchor_sizes": ((16,), (32,), (48,), (64,)), "aspect_ratios": (1.0,),
}  # fmt: skip
DULL = {**WHOLE, "epochs": 1, "learning_rate": 1e-9, "objective": "recall@precision:1"}
"""Settings by which nothing is learnt, and no threshold can be chosen that serves."""


def learn_all(store, head="lamp", samples=None, **options):
    """Train an original quickly."""
    usual = {"settings": SMALL, "config": WHOLE, "progress": silent, "device": "cpu"}
    return train_original(store, head, lights() if samples is None else samples, **usual | options)


@functools.cache
def _made(folder):
    opened, look = [], Sample.open

    def watched(self, **options):
        opened.append(self.id)
        return look(self, **options)

    proofs, divide = [], original.split_checkpoint

    def dividing(*arguments, **options):
        proofs.extend(options["parity_inputs"])
        return divide(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sample, "open", watched)
        patch.setattr(original, "split_checkpoint", dividing)
        return folder / "store", learn_all(folder / "store", actor="keeper"), (opened, proofs)


@pytest.fixture
def made(tmp_path, tmp_path_factory):
    """Give a store in which `lamp` and its backbone were made by an original, and the report of that."""
    root, report, _seen = _made(tmp_path_factory.getbasetemp() / "original")
    shutil.copytree(root, tmp_path / "made")
    return Store.open(tmp_path / "made"), report


# Refused before anything is learnt


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"samples": lights(0)}, InputError, "5 are the least"),
        ({"samples": lights(19)}, InputError, "too few labelled groups for four roles .19 of 'lamp'; 20 of each"),
        (
            {"split": given(lights(), {"train": [sample.id for sample in lights()]})},
            InputError,
            "no labelled sample for calibrate and test. Give those roles samples, or leave the split out",
        ),
        ({"backbone": "default"}, ConflictError, "make a backbone 'default': the store has one of that name"),
        ({"backbone": "../x"}, NameInvalidError, "as a backbone name"),
        ({"head": "Lamp"}, NameInvalidError, "as a head name"),
        ({"head": "moth"}, ConflictError, "the store has a head 'moth' in use, on another backbone"),
        ({"settings": OriginalSettings(architecture="resnet81")}, InputError, "Did you mean 'resnet18'"),
        ({"settings": OriginalSettings(weights="none.pth")}, NotFoundError, r"read the checkpoint none\.pth"),
        ({"seed": -1}, InputError, "the seed is -1. Give a whole number from 0"),
        ({"seed": 2**63}, InputError, "the seed is 9223372036854775808"),
        ({"config": {"epoch": 3}}, InputError, "'epoch', which is no setting"),
    ],
)
def test_what_would_be_refused_is_refused_at_once(bare, options, error, match):
    """Names that are taken, too few samples, settings that are none: nothing is learnt, and nothing written."""
    before, heard = snapshot(bare.root / "heads"), []
    with pytest.raises(error, match=match):
        learn_all(bare, **{"backbone": "new", "progress": heard.append} | options)
    assert heard == []
    assert snapshot(bare.root / "heads") == before
    assert backbones.names(bare) == ["default"]


def test_what_finds_nothing_leaves_nothing(bare):
    """Where no threshold can be chosen, neither backbone nor head is published: the same call may be made again."""
    heard = []
    with pytest.raises(InputError, match="cannot choose thresholds"):
        learn_all(bare, backbone="new", config=DULL, progress=heard.append)
    assert [state.latest.epoch for state in heard] == [1]
    assert backbones.names(bare) == ["default"]
    assert heads.names(bare) == ["moth"]


# Backbone and head


def test_a_store_from_nothing(made):
    """There is a backbone, and the head that was split from the original, calibrated and active: one version."""
    store, report = made
    assert (backbones.names(store), heads.names(store)) == (["default"], ["lamp"])
    version = heads.find(store, "lamp")
    assert (report.head, report.version, report.backbone) == ("lamp", 1, "default")
    assert (version.number, store.head("lamp").numbers()) == (1, [1])
    promotion = VersionManager(store).history("lamp")[-1]
    assert (promotion.reason, promotion.actor) == ("split from original.pth", "keeper")
    architecture = version.record.backbone.architecture
    assert (architecture.body, architecture.pyramid_channels) == ("mobilenet_v3_large", 16)
    assert version.record.backbone == backbones.find(store, "default").record.contract
    assert version.record.settings.anchor_sizes == WHOLE["anchor_sizes"]


def test_its_record_and_what_lies_beside_it(made):
    """The calibrated version has policy, figures and samples, and beside it all that was measured."""
    store, report = made
    version = heads.find(store, "lamp")
    record, roles = version.record, role_of(store, version)
    assert record.operating_policy == report.metrics.policy
    assert record.claimed_metrics == report.metrics.figures()
    assert record.sample_count == list(roles.values()).count(Role.TRAIN) == 13
    assert beside.evaluation_of(store, version) == report.metrics
    assert beside.calibration_of(store, version) == report.calibration
    assert layout.OUTCOMES in version.files
    assert record.parity.equal
    assert layout.PARITY in version.files


def test_the_figures_are_those_of_what_is_in_the_store(made):
    """What was measured before the split is what the published version comes to, to the last digit."""
    store, report = made
    test = beside.split_of(store, heads.find(store, "lamp")).take(lights(), Role.TEST)
    assert evaluate(store, "lamp", test) == report.metrics
    assert report.metrics.figures()["ap50"] > 0.9
    found = HydraDetector.from_store(store, device="cpu").predict([sample.picture for sample in test])
    counted = report.metrics.micro
    assert sum(map(len, found)) == counted.true_positives + counted.false_positives


def test_the_test_role_is_used_once_and_last(made, tmp_path_factory):
    """All pictures are looked through first, twice; then each test picture is opened once, after all others.

    The proof is made on pictures of the train role.
    """
    store, _report = made
    _root, _report, (opened, proofs) = _made(tmp_path_factory.getbasetemp() / "original")
    roles = role_of(store, heads.find(store, "lamp"))
    test = sorted(name for name, role in roles.items() if role == Role.TEST)
    assert opened[: 2 * len(roles)] == 2 * sorted(roles)
    opened = opened[2 * len(roles) :]
    assert sorted(opened[-len(test) :]) == test
    assert not set(opened[: -len(test)]) & set(test)
    proven = [sample.id for sample in lights() if any((sample.picture == one).all() for one in proofs)]
    assert {roles[name] for name in proven} == {Role.TRAIN}


def test_the_original_is_torchvisions(made):
    """`original.pth` is a state dict that torchvision's FasterRCNN takes strictly, and the proof holds against it."""
    store, report = made
    tensors = torch.load(report.original, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    version = heads.find(store, "lamp")
    contract = version.record.backbone
    model = build_original(contract.architecture, contract.preprocessing, version.record.settings)
    assert model.load_state_dict(tensors, strict=True, assign=True)
    proof = verify(store, "lamp", against=report.original)
    assert proof.proven, str(proof)


def test_the_report_and_the_run(made):
    """The report says what was made of what, and lies in the run's folder beside metrics and original."""
    _store, report = made
    folder = Path(report.run)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "original.pth", "report.json"]
    assert report.original == str(folder / "original.pth")
    assert len(report.history) == 8
    assert report.history[report.best_epoch - 1].is_best
    assert report.config == TrainingConfig(**WHOLE)
    text = str(report)
    assert text.startswith("lamp@1 on the new backbone 'default', split from ")
    assert "mobilenet_v3_large; best of 8 epochs is" in text
    assert report.to_dict()["settings"]["box_width"] == 32


def test_a_second_head_on_its_backbone(made):
    """A second head learns on the new backbone, starting from the first, which it leaves as it is."""
    store, _report = made
    before = snapshot(store.root / "heads/lamp")
    report = teach(store, "ember", lights(20, names=("ember",)), init="auto", backbone="default")
    assert report.training.course.started_from == "lamp@1"
    assert report.is_promoted
    assert report.training.unchanged.heads == ("lamp@1",)
    assert snapshot(store.root / "heads/lamp") == before
    assert set(HydraDetector.from_store(store, device="cpu").heads) == {"ember", "lamp"}


def test_what_is_doubtful_is_said(tmp_path):
    """Samples without backgrounds and anchors that resemble few labels are warned about, in report and text."""
    report = learn_all(tmp_path / "store", samples=lights(24, 0), config={**WHOLE, "aspect_ratios": (0.4,)})
    assert report.warnings[0].startswith("no sample to learn from is without labels")
    assert report.warnings[1].startswith("0% of the labels resemble an anchor")
    assert f"  warning: {report.warnings[0]}" in str(report)


def test_killed_when_the_backbone_is_there(tmp_path, monkeypatch):
    """Stopped between backbone and head, the same call goes on from what was learnt, and another is refused."""
    root = tmp_path / "store"

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(VersionManager, "create", stop)
    with pytest.raises(KeyboardInterrupt):
        learn_all(root)
    monkeypatch.undo()
    assert (backbones.names(Store.open(root)), heads.names(Store.open(root))) == (["default"], [])
    with pytest.raises(ConflictError, match="make a backbone 'default'"):
        learn_all(root, seed=1)
    heard = []
    report = learn_all(root, progress=heard.append)
    assert heard == []  # all epochs were kept
    assert report.version == 1
    assert heads.find(Store.open(root), "lamp").record.operating_policy == report.metrics.policy


def test_killed_when_all_is_there_but_the_report(tmp_path, monkeypatch):
    """Stopped before its report is written, the same call writes it: backbone, head and version are there once."""
    root = tmp_path / "store"

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        learn_all(root)
    monkeypatch.undo()
    store = Store.open(root)
    made = heads.find(store, "lamp")
    report = learn_all(root)
    assert (report.version, report.backbone, report.architecture) == (1, "default", "mobilenet_v3_large")
    assert heads.find(store, "lamp") == made
    assert (backbones.names(store), store.head("lamp").numbers()) == (["default"], [1])
    with pytest.raises(ConflictError, match="the store has a head 'lamp' in use"):
        learn_all(root)


def test_cross_validation_is_refused(tmp_path):
    """There is one original: it cannot be judged by others."""
    with pytest.raises(InputError, match="cross-validation was asked for"):
        learn_all(tmp_path / "store", config={"validation": "cross-validation"})


def test_what_the_backbone_learnt_from_is_never_measured_on(made):
    """However often the original's head was trained again, a new head does not test on what the backbone learnt."""
    store, _report = made
    before = role_of(store, heads.find(store, "lamp@1"))
    more = Samples(items=[*lights(), *lights(30, 6, first=500)], class_names=("lamp",))
    teach(store, samples=more, init="auto", promote_anyway=True)
    assert heads.find(store, "lamp").record.source is None
    teach(store, "ember", attrs.evolve(more, class_names=("lamp",)), init="fresh")
    own = role_of(store, heads.find(store, "ember"))
    assert {name: own[name] for name in before} == before
    learnt = [one for one in lights() if before[one.id] == Role.TRAIN]
    with pytest.raises(RoleError, match="were used to make it"):
        evaluate(store, "ember", Samples(items=learnt, class_names=("lamp",)))
    teach(store, "glow", lights(30, 6, first=700), init="fresh")
    with pytest.raises(RoleError, match="were used to make it"):
        evaluate(store, "glow", Samples(items=learnt, class_names=("lamp",)))
