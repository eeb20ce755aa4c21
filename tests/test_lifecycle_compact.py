"""Compact heads in their life: trained, compressed, expanded, calibrated, bundled, taken up again."""

import json
import shutil

import attrs
import lifecycle_fixtures
import numpy as np
import pytest
import store_fixtures
import torch
from lifecycle_fixtures import QUICK, give, lights, scene, teach

from hydra_detect import (
    HeadRegistry,
    HydraDetector,
    Store,
    VersionManager,
    calibrate,
    codec,
    evaluate,
    export_bundle,
    load_bundle,
    merge_checkpoint,
)
from hydra_detect.bundles import manifest
from hydra_detect.bundles.bundle import opened
from hydra_detect.cli.commands import run
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import given
from hydra_detect.data.writing import write_samples
from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    IncompatibleError,
    InputError,
    NotFoundError,
    RoleError,
    TrainingError,
)
from hydra_detect.lifecycle import beside
from hydra_detect.lifecycle.compressing import compress_head, expand_head
from hydra_detect.lifecycle.original import train_original
from hydra_detect.loading import Shelf
from hydra_detect.records import HeadRecord
from hydra_detect.storage import backbones, heads, layout, manifests
from hydra_detect.training import learn as learning
from hydra_detect.training import loop, selection

bare = lifecycle_fixtures.bare
COMPACT = {**QUICK, "kind": "compact", "rank": "4", "epochs": 5}


def found_by(store, ref, engine="exact"):
    """Return what a version finds in a few scenes, raw."""
    detector = HydraDetector.from_store(store, [ref], device="cpu", engine=engine)
    return [detector.predict(scene(n, "lamp")[0], raw_scores=True, score_threshold=0.0) for n in range(700, 705)]


def are_equal(one, other):
    """Whether detections of the same pictures are equal bit for bit."""
    return all(
        np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores) for a, b in zip(one, other, strict=True)
    )


def test_trained(bare):
    """A compact head learns from few labels, leans on the full head that is there, and is measured as any other."""
    report = teach(bare, config=COMPACT)
    version = HeadRegistry(bare)["lamp"]
    assert report.metrics.figures()["f1"] >= 0.8
    assert version.record.kind == "compact-head"
    assert version.record.compact.reference_ref == "moth@1"
    assert version.record.compact.reference == HeadRegistry(bare)["moth"].record.tensors
    assert not version.record.compact.is_unmeasured
    assert report.training.unchanged
    assert evaluate(bare, "lamp", lights(first=400)).figures()["f1"] >= 0.8
    assert VersionManager(bare).verify(depth="deep").is_sound


def test_trained_again(bare):
    """The next version starts from the first, and leans on what that leans on, though others would do."""
    teach(bare, config=COMPACT)
    give(bare, "ant", seed=9)
    report = teach(bare, config=COMPACT, init="auto")
    second = VersionManager(bare).versions("lamp")[1]
    assert report.training.course.started_from == "lamp@1"
    assert second.record.compact.reference_ref == "moth@1"


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_of_few_epochs(bare, epochs):
    """However few epochs there are, what comes of them has the compact form, and is what was measured."""
    teach(bare, config={**COMPACT, "epochs": epochs, "validation": "cross-validation"})
    version = HeadRegistry(bare)["lamp"]
    full = expand_head(bare, "lamp")
    assert version.files["model.safetensors"][0] < full.files["model.safetensors"][0] / 3
    assert are_equal(found_by(bare, "lamp@1"), found_by(bare, str(full.ref)))


def test_the_best_epoch_has_the_compact_form(bare):
    """Whichever epoch is best on the select role, an early one too, its weights are those of the compact form."""
    report = teach(bare, config={**COMPACT, "epochs": 12, "patience": 1, "learning_rate": 3e-2})
    assert report.training.course.early_stopped
    assert HeadRegistry(bare)["lamp"].record.compact.ranks


def test_what_is_judged_has_the_compact_form(bare, monkeypatch):
    """Whatever epoch it is, the weights that are judged, and those that are kept, differ by the rank and no more."""
    reference, judged = Shelf(bare).of(HeadRegistry(bare)["moth"]), []
    judge, fit = selection.judge, loop.fit
    kept = []

    def judging(head, task):
        judged.append({name: value.clone() for name, value in head.state_dict().items()})
        return judge(head, task)

    def fitting(*arguments, **options):
        kept.append(fit(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(selection, "judge", judging)
    monkeypatch.setattr(learning, "fit", fitting)
    teach(bare, config={**COMPACT, "epochs": 6, "patience": 0})
    teach(bare, "torch", config={**COMPACT, "epochs": 3, "validation": "cross-validation"})
    assert len(judged) == 6
    assert len(kept) == 1 + 6
    for state in [*judged, *(one.tensors for one in kept)]:
        for name in ("rpn.head.conv.0.0.weight", "roi_heads.box_head.fc6.weight", "roi_heads.box_head.fc7.weight"):
            values = torch.linalg.svdvals((state[name] - reference.weights[name]).flatten(1).double())
            assert values[4] < 1e-3 * values[0]
            assert values[0] > 0


def test_the_active_reference_is_kept_to(bare):
    """A head goes on leaning on what its active version leans on, though most others lean on something else."""
    teach(bare, config=COMPACT, reference="moth@1")
    give(bare, "ant", seed=9)
    for name in ("bee", "bug"):
        teach(bare, name, config=COMPACT, reference="ant@1")
    teach(bare, config=COMPACT, init="auto")
    teach(bare, "torch", config=COMPACT)
    assert VersionManager(bare).versions("lamp")[1].record.compact.reference_ref == "moth@1"
    assert HeadRegistry(bare)["torch"].record.compact.reference_ref == "ant@1"  # where most lean


def test_the_same_bytes_again(bare):
    """The same call gives the same bytes."""
    digests = []
    for _ in range(2):
        teach(bare, config=COMPACT)
        digests.append(VersionManager(bare).versions("lamp")[-1].record.tensors)
    assert digests[0] == digests[1]


def test_a_named_reference(bare):
    """What is named is leant on; a compact head, another backbone's, or one that is not there are refused."""
    give(bare, "ant", seed=9)
    teach(bare, config=COMPACT, reference="ant@1")
    assert HeadRegistry(bare)["lamp"].record.compact.reference_ref == "ant@1"
    for name, kind, told in (
        ("lamp", IncompatibleError, "it is a compact head itself, which leans on ant@1"),
        ("ann", NotFoundError, "Did you mean 'ant'"),
    ):
        with pytest.raises(kind, match=told):
            teach(bare, config=COMPACT, reference=name)
    with pytest.raises(InputError, match=r"a reference is named .* and kind is 'full'"):
        teach(bare, reference="ant@1")
    with pytest.raises(InputError, match=r"rank is '8', and kind is 'full'"):
        teach(bare, config={**QUICK, "rank": "8"})


def test_a_reference_of_other_layers(bare):
    """A reference whose layers are of other shapes is refused before anything is trained or learnt."""
    teach(bare)
    give(bare, "ant", seed=9, settings={"box_widths": (24, 24)})
    with pytest.raises(IncompatibleError, match=r"the reference \w+ does not fit: .*fc7"):
        compress_head(bare, "lamp", rank=4, unmeasured=True, reference="ant@1")
    epochs = []
    with pytest.raises(IncompatibleError, match=r"the reference \w+ does not fit"):
        teach(bare, "torch", config=COMPACT, init="moth@1", reference="ant@1", progress=epochs.append)
    assert not epochs


def test_a_reference_with_more_layers(bare):
    """Of a reference that has a layer more, what both have is leant on."""
    give(bare, "deep", seed=9, settings={"rpn_conv_depth": 2})
    teach(bare, config=COMPACT, init="moth@1", reference="deep@1")
    version = HeadRegistry(bare)["lamp"]
    assert version.record.compact.reference_ref == "deep@1"
    assert version.record.settings.rpn_conv_depth == 1
    assert len(found_by(bare, "lamp")) == 5


def test_a_default_reference_has_the_same_layers(bare):
    """Where nothing is named, a head with layers of the same shapes is leant on, whatever comes first otherwise."""
    for seed, name in enumerate(("deep", "steep")):
        give(bare, name, seed=seed, settings={"rpn_conv_depth": 2})
    report = compress_head(bare, "deep", rank=4, unmeasured=True)
    assert report.version.record.compact.reference_ref == "steep@1"


def test_an_active_reference_with_more_layers_is_kept_to(bare):
    """What the active version leans on is leant on again, as long as it has the layers of the new one."""
    give(bare, "deep", seed=9, settings={"rpn_conv_depth": 2})
    teach(bare, config=COMPACT, init="moth@1", reference="deep@1")
    teach(bare, config=COMPACT)
    assert HeadRegistry(bare)["lamp@2"].record.compact.reference_ref == "deep@1"


def test_a_reference_that_cannot_fit_is_no_choice(bare):
    """A head that has a layer less is not leant on where another has them all."""
    give(bare, "deep", seed=9, settings={"rpn_conv_depth": 2})
    teach(bare, config={**QUICK, "epochs": 1}, init="deep@1")
    report = teach(bare, config=COMPACT, init="deep@1")
    assert HeadRegistry(bare)[f"lamp@{report.version}"].record.compact.reference_ref in {"deep@1", "lamp@1"}


def test_a_lost_reference_holds_up_nobody_else(bare, tmp_path):
    """What leans on a lost reference can be trained anew, and others lean on what there is."""
    give(bare, "ant", seed=9)
    teach(bare, config=COMPACT, reference="ant@1")
    shutil.move(bare.head("ant").place.root, tmp_path)
    teach(bare, "torch", config=COMPACT, init="moth@1")
    assert HeadRegistry(bare)["torch"].record.compact.reference_ref == "moth@1"
    with pytest.raises(NotFoundError, match=r"lean on what lamp@1 leans on: its reference ant@1"):
        teach(bare, config=COMPACT)
    report = teach(bare, init="moth@1")
    assert "the active lamp@1 cannot be run: its reference ant@1" in report.reason
    assert report.version == 2


def test_another_reference_is_another_training(bare):
    """A training that leans on something else is not taken for the one that was stopped."""
    give(bare, "ant", seed=9)
    runs = [teach(bare, config=COMPACT, reference=name, publish=False).run for name in ("moth@1", "ant@1", "moth@1")]
    assert runs[2] == f"{runs[0]}-2"  # the folder of an equal training that came to its end
    assert not runs[1].startswith(runs[0])


def test_nothing_to_lean_on(tmp_path):
    """Without a full head of the backbone no compact one is made, and what to do is said."""
    store = lifecycle_fixtures.with_backbone(tmp_path)
    with pytest.raises(
        NotFoundError, match=r"no full head of this backbone to lean on\. Train or split a full head first"
    ):
        teach(store, config=COMPACT)


def test_a_reference_that_learnt_from_what_is_measured(bare):
    """A head that leans on weights which learnt from its test samples has figures that are no evidence, and says so."""
    samples = lights()
    everything = given(samples, {Role.TRAIN: [sample.id for sample in samples]})
    reference = HeadRegistry(bare)["moth"]
    VersionManager(bare).create(
        "moth", heads.tensors(bare, reference), reference.record, attachments=beside.files(split=everything)
    )
    report = teach(bare, config=COMPACT, reference="moth@2")
    assert any("no evidence of quality" in note for note in report.metrics.notes)
    assert set(beside.split_of(bare, HeadRegistry(bare)["lamp@1"]).roles.values()) == {Role.TRAIN}
    clean = teach(bare, "torch", config=COMPACT)  # moth@1 keeps no split, and is the active one
    assert not any("on which it leans" in note for note in clean.metrics.notes)


def test_an_original_is_no_compact_head(bare):
    """The head of an original is what others lean on: it is not made compact."""
    with pytest.raises(InputError, match="the head of an original is what others lean on"):
        train_original(bare, "owl", lights(), config=COMPACT)


def test_how_many_proposals(bare):
    """A compact head looks at 150 proposals at most, at no more than what it starts from, or at as many as asked."""
    usual = give(bare, "ant", seed=9, settings={"rpn_post_nms_top_n": 900, "rpn_pre_nms_top_n": 800})
    assert usual.record.settings.rpn_post_nms_top_n == 900
    for config, wanted in (
        ({}, (800, 900)),
        ({"kind": "compact", "rank": "4"}, (300, 150)),
        ({"kind": "compact", "rank": "4", "preselected": 700, "refined": 600}, (700, 600)),
        ({"preselected": 70, "refined": 60}, (70, 60)),
    ):
        teach(bare, config={**QUICK, "epochs": 1, **config}, init="ant@1", publish=True)
        made = VersionManager(bare).versions("lamp")[-1].record.settings
        assert (made.rpn_pre_nms_top_n, made.rpn_post_nms_top_n) == wanted
    teach(bare, "torch", config=COMPACT, init="moth@1")
    assert HeadRegistry(bare)["torch"].record.settings.rpn_post_nms_top_n == 50  # as moth's


def test_calibrated_anew(bare):
    """Another operating policy of a compact version is a compact version with the same weights and reference."""
    teach(bare, config=COMPACT)
    version = calibrate(bare, "lamp", objective="fbeta:2")
    assert version.record.compact == HeadRegistry(bare)["lamp@1"].record.compact
    assert VersionManager(bare).history("moth")[-1].other == str(version.ref)


# Compressing and expanding


def test_compressed_and_expanded(bare):
    """A full head becomes a compact one at a loss that is measured and recorded, and back without any."""
    teach(bare)
    report = compress_head(bare, "lamp", rank=12, samples=lights(first=500), steps=40, max_loss=0.05)
    version = report.version
    form = version.record.compact
    assert version.number == 2
    assert VersionManager(bare).active("lamp").number == 1
    assert form.compressed_from == "lamp@1"
    assert set(form.loss) == {
        "ap50", "f1", "largest_score_difference", "largest_box_difference", "matched", "unmatched", "samples"
    }  # fmt: skip
    assert form.loss["samples"] == 12
    assert form.loss["f1"] <= 0.05
    assert report.nbytes[0] > report.nbytes[1]
    assert "times smaller" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["loss"] == dict(form.loss)
    full = expand_head(bare, "lamp", 2)
    assert full.record.compact is None
    assert full.record.kind == "head"
    assert are_equal(found_by(bare, "lamp@2"), found_by(bare, str(full.ref)))
    assert VersionManager(bare).verify(depth="deep").is_sound


def test_what_was_looked_at_is_remembered(bare):
    """Samples of a distillation count as learnt from: nobody measures on them by mistake."""
    teach(bare)
    samples = lights(first=500)
    version = compress_head(bare, "lamp", rank=12, samples=samples, steps=5, max_loss=1.0).version
    roles = beside.split_of(bare, version).roles
    own = [roles[sample.id] for sample in samples]
    assert own.count(Role.TRAIN) == own.count(Role.TEST) == 12
    with pytest.raises(RoleError, match="12 of 24 samples were used to make it"):
        evaluate(bare, version.ref, samples)


def test_figures_of_the_full_head_stay_with_it(bare):
    """Scores and figures of a full head are not put beside its compact form; one that is written out keeps its own."""
    teach(bare)
    full = HeadRegistry(bare)["lamp@1"]
    assert {layout.EVALUATION, layout.OUTCOMES, layout.CALIBRATION} <= set(full.files)
    version = compress_head(bare, "lamp", rank=12, samples=lights(first=500), steps=5, max_loss=1.0).version
    assert not {layout.EVALUATION, layout.OUTCOMES, layout.CALIBRATION} & set(version.files)
    assert {layout.SPLIT, layout.TRAINING} <= set(version.files)
    assert not version.record.claimed_metrics
    with pytest.raises(NotFoundError, match="no calibration scores are kept with it"):
        calibrate(bare, version.ref)
    teach(bare, "torch", config=COMPACT)
    own, whole = HeadRegistry(bare)["torch"], expand_head(bare, "torch")
    assert whole.files[layout.EVALUATION] == own.files[layout.EVALUATION]
    assert whole.record.claimed_metrics == own.record.claimed_metrics


@pytest.mark.parametrize("samples", [None, lights(first=500)], ids=["unmeasured", "measured"])
def test_what_the_reference_learnt_from_is_remembered(bare, samples):
    """What the reference has learnt from counts as seen by what leans on it, measured or not."""
    teach(bare)
    theirs = lights(first=900)
    split = given(theirs, {Role.TRAIN: [sample.id for sample in theirs]})
    moth = HeadRegistry(bare)["moth"]
    VersionManager(bare).create("moth", heads.tensors(bare, moth), moth.record, attachments=beside.files(split=split))
    report = compress_head(
        bare, "lamp", rank=12, samples=samples, unmeasured=samples is None, reference="moth@2", steps=5, max_loss=1.0
    )
    with pytest.raises(RoleError, match="24 of 24 samples were used to make it"):
        evaluate(bare, report.version.ref, theirs)


def test_a_loss_that_is_too_large(bare):
    """Where the form costs more than is allowed, no version is made, and the figures are told."""
    teach(bare)
    with pytest.raises(TrainingError, match=r"on 12 samples it would lose .* more than 0.*Raise the rank") as caught:
        compress_head(bare, "lamp", rank=1, samples=lights(first=500), steps=1, max_loss=0.0)
    assert caught.value.facts["loss"]["f1"] > 0
    assert HeadRegistry(bare).info("lamp").versions == (1,)


def test_a_head_that_is_named_as_its_own_reference(bare):
    """A head cannot lean on itself, and it is said that this was asked for, whatever other heads there are."""
    give(bare, "ant", seed=9)
    with pytest.raises(NotFoundError, match="moth@1 is the same head, and nothing can lean on itself"):
        compress_head(bare, "moth", rank=4, unmeasured=True, reference="moth@1")


def test_samples_of_one_group(bare):
    """Half is learnt from and half measured on: of one group there are no halves."""
    teach(bare)
    one = lights(first=500)[[0]]
    with pytest.raises(InputError, match="all of them are of one group"):
        compress_head(bare, "lamp", rank=4, samples=one, max_loss=1.0)


def test_a_loss_that_nobody_measured(bare):
    """Without samples it is refused unless that is to be recorded, and recorded then."""
    teach(bare)
    with pytest.raises(InputError, match=r"no samples to measure on what it costs.*--unmeasured"):
        compress_head(bare, "lamp", rank=8)
    report = compress_head(bare, "lamp", rank=8, unmeasured=True)
    assert report.version.record.compact.is_unmeasured
    assert report.loss is None
    assert "not measured" in str(report)
    assert str(report.version).endswith("compact, rank 8 of moth@1, its loss not measured)")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_loss": float("nan")}, r"max_loss is nan\. Give a number from 0 to 1"),
        ({"max_loss": -0.1}, r"max_loss is -0\.1"),
        ({"max_loss": "1"}, r"max_loss is '1'"),
        ({"steps": -3}, r"steps is -3\. Give a whole number from 0 to 1000000"),
        ({"steps": 2.5}, r"steps is 2\.5"),
        ({"steps": True}, r"steps is True"),
        ({"seed": -1}, r"the seed is -1"),
        ({"samples": lights(first=500), "unmeasured": True}, r"there are samples .* and unmeasured is said"),
        ({"samples": lights(0, 8, names=("moth",)), "unmeasured": False}, r"of 8 samples 0 show something"),
        ({"rank": "much"}, r"'much' names no layer and rank"),
    ],
)  # fmt: skip
def test_compressing_in_a_way_that_cannot_be(bare, options, told):
    """Numbers that are none, samples that show nothing, both samples and none: refused before anything is done."""
    give(bare, "ant", seed=9)
    with pytest.raises(InputError, match=told):
        compress_head(bare, "moth", **{"unmeasured": True, **options})
    assert HeadRegistry(bare).info("moth").versions == (1,)


def test_where_nothing_is_found_nothing_is_largest(bare):
    """Of heads that find nothing in common no largest difference is told: none would read as perfect."""
    teach(bare)
    give(bare, "ant", seed=9)
    report = compress_head(bare, "lamp", rank=1, samples=lights(first=500), steps=0, max_loss=1, reference="ant@1")
    assert report.loss["matched"] == 0
    assert not {"largest_box_difference", "largest_score_difference"} & set(report.loss)


def test_what_cannot_be_compressed_or_expanded(bare):
    """A compact head is not compressed again, a full one not expanded, the only full one leans on nothing."""
    with pytest.raises(NotFoundError, match="moth@1 is the only full head of this backbone, and cannot lean on itself"):
        compress_head(bare, "moth", unmeasured=True, rank=4)
    with pytest.raises(InputError, match="it is a full head already"):
        expand_head(bare, "moth")
    teach(bare, config=COMPACT)
    with pytest.raises(InputError, match=r"it is compact, rank 4 of moth@1 already"):
        compress_head(bare, "lamp", unmeasured=True)


# Merged, bundled, on the command line


def test_merged(bare, tmp_path):
    """The merged checkpoint of a compact head is torchvision's own state dict, its weights written out."""
    teach(bare, config=COMPACT)
    state = torch.load(merge_checkpoint(bare, "lamp", tmp_path / "whole.pth"), weights_only=True)
    full = expand_head(bare, "lamp")
    for name, tensor in heads.tensors(bare, full).items():
        assert state[name].numpy().tobytes() == bytes(tensor.data)
    assert not any(name.endswith((".up", ".down")) for name in state)


def test_bundled(bare, tmp_path):
    """A bundle of a compact head takes along what it leans on, and the head finds the same in another store."""
    teach(bare, config=COMPACT)
    export_bundle(bare, "lamp", tmp_path / "lamp.zip")
    bundle = load_bundle(tmp_path / "lamp.zip")
    assert bundle.reference.name == "moth"
    other = Store.create(tmp_path / "other", durability="fast")
    version = bundle.add_to(other, head="torch")
    assert version.record.compact.reference_ref == "moth@1"
    assert are_equal(found_by(bare, "lamp@1"), found_by(other, "torch@1"))
    again = bundle.add_to(other, head="torch")
    assert again.number == version.number
    assert HeadRegistry(other).info("moth").versions == (1,)


def test_bundled_where_the_reference_is_there(bare, tmp_path):
    """In a store that has the reference under another name, that one is leant on, and none is added."""
    teach(bare, config=COMPACT)
    export_bundle(bare, "lamp", tmp_path / "lamp")
    HeadRegistry(bare).rename("moth", "fly")
    version = load_bundle(tmp_path / "lamp").add_to(bare, head="torch")
    assert version.record.compact.reference_ref == "fly@1"
    assert sorted(HeadRegistry(bare)) == ["fly", "lamp", "torch"]
    HeadRegistry(bare).rename("fly", "wasp")
    assert load_bundle(tmp_path / "lamp").add_to(bare, head="torch") == version


def test_bundled_where_the_name_of_the_reference_is_another_head(bare, tmp_path, capsys):
    """What a bundled head leans on does not become a version of a head of another backbone: it takes another name."""
    teach(bare, config=COMPACT)
    export_bundle(bare, "lamp", tmp_path / "lamp")
    bundle = load_bundle(tmp_path / "lamp")
    other = Store.create(tmp_path / "other", durability="fast")
    tensors, record = store_fixtures.a_backbone()
    backbones.publish(other, "other", record, tensors)
    store_fixtures.create(VersionManager(other), "moth")
    with pytest.raises(ConflictError, match="a head 'moth' of another backbone"):
        bundle.add_to(other)
    assert list(HeadRegistry(other)) == ["moth"]
    assert "leaning on moth@1 in it" in str(bundle)
    options = ["--store", str(other.root), "--reference", "fly"]
    assert run(["unbundle", str(tmp_path / "lamp"), *options]) == 0
    assert HeadRegistry(other).info("lamp").leans_on == "fly@1"
    assert bundle.add_to(other, reference="fly").record.compact.reference_ref == "fly@1"
    assert run(["versions", "lamp", "--store", str(other.root)]) == 0
    assert "fly@1" in capsys.readouterr().out.splitlines()[-1].split()


def test_a_bundle_beside_what_is_damaged(bare, tmp_path):
    """A damaged version of the head that the reference is to be a version of holds nothing up."""
    teach(bare, config=COMPACT)
    export_bundle(bare, "lamp", tmp_path / "lamp")
    bundle, other = load_bundle(tmp_path / "lamp"), Store.create(tmp_path / "other", durability="fast")
    bundle.add_to(other)
    for number in HeadRegistry(other).info("moth").versions:
        store_fixtures.flip(other.head("moth").place.version(number) / "record.json")
    version = bundle.add_to(other, head="torch")
    assert version.record.compact.reference_ref == "moth@2"
    assert are_equal(found_by(bare, "lamp@1"), found_by(other, "torch@1"))


def bundled_form(contents):
    """Return how the head in the files of a bundle is compact."""
    return codec.decode(HeadRecord, contents["head/record.json"], "it").compact


def test_bundles_without_the_right_reference(bare, tmp_path):
    """A bundle that lacks what its head leans on, or holds another, or one for nothing, is refused."""
    teach(bare, config=COMPACT)
    give(bare, "ant", seed=9)
    for ref in ("lamp", "moth", "ant"):
        export_bundle(bare, ref, tmp_path / ref)

    def files_of(name):
        folder = tmp_path / name
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def sealed(contents):
        origin = manifest.parse(contents.pop("bundle.json"), "it")
        listing = manifests.listing_of(contents)
        return {"bundle.json": manifest.text(attrs.evolve(origin, files=listing)), **contents}

    whole = files_of("lamp")
    parts = {name: data for name, data in whole.items() if name.startswith("reference/")}
    assert sorted(parts) == ["reference/model.safetensors", "reference/record.json"]
    without = sealed({name: data for name, data in whole.items() if name not in parts})
    with pytest.raises(CorruptError, match="its head leans on moth@1, which is not in it"):
        opened(without, "it")
    ant = {
        name.replace("head/", "reference/"): data
        for name, data in files_of("ant").items()
        if name in {"head/model.safetensors", "head/record.json"}
    }
    with pytest.raises(CorruptError, match=r"its head leans on tensors .*, and it holds"):
        opened(sealed({**whole, **ant}), "it")
    record = codec.decode(HeadRecord, whole["reference/record.json"], "it")
    usual = attrs.evolve(record.backbone, preprocessing=attrs.evolve(record.backbone.preprocessing, min_size=99))
    for other, told in (
        (attrs.evolve(record, backbone=usual), r"preprocessing\.min_size"),
        (attrs.evolve(record, compact=bundled_form(whole), kind="compact-head"), "compact, rank 4 of moth@1"),
    ):
        with pytest.raises(IncompatibleError, match=f"is of another kind or backbone: .*{told}"):
            opened(sealed({**whole, "reference/record.json": codec.encode(other)}), "it")
    with pytest.raises(CorruptError, match="its head leans on nothing"):
        opened(sealed({**files_of("moth"), **ant}), "it")


def test_on_the_command_line(bare, tmp_path, capsys):
    """Training, compressing and expanding say what came of them, in words and as JSON."""
    folder = tmp_path / "data"
    on_disk = lifecycle_fixtures.on_disk(lights(), folder)
    write_samples(on_disk, folder / "labels.json", format="coco")
    give(bare, "ant", seed=9)
    options = [f"{name}={value if not isinstance(value, tuple) else ','.join(value)}" for name, value in QUICK.items()]
    common = ["--data", str(folder / "labels.json"), "--store", str(bare.root)]
    assert (
        run(
            [
                "train",
                "lamp",
                *common,
                "--kind",
                "compact",
                "--rank",
                "4",
                "--reference",
                "ant",
                "--json",
                "--init",
                "fresh",
                "--set",
                *options,
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["training"]["config"]["kind"] == "compact"
    assert HeadRegistry(bare)["lamp"].record.compact.reference_ref == "ant@1"
    assert run(["expand", "lamp", "--store", str(bare.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert run(["compress", "lamp@2", "--store", str(bare.root)]) == 2
    assert "--unmeasured" in capsys.readouterr().err
    assert run(["compress", "lamp@2", *common, "--rank", "8", "--max-loss", "1", "--steps", "5"]) == 0
    assert "compact, rank 8 of ant@1, made from lamp@2" in capsys.readouterr().out
    assert run(["compress", "lamp@2", "--store", str(bare.root), "--unmeasured", "--rank", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] is None
