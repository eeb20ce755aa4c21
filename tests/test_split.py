"""Splitting originals: two artifacts, a proof, one shared backbone, and nothing at all when something is wrong."""

import json
import pathlib

import attrs
import pytest
import torch
from originals import SETTINGS, mobilenet, older_names, resnet18, restless, save, second_form, small
from originals import detector as put_head
from store_fixtures import flip
from torchvision.ops import FrozenBatchNorm2d

from hydra_detect import HeadRegistry, OperatingPolicy, SplitSettings, Store, VersionManager, split_checkpoint
from hydra_detect.errors import (
    CheckpointError,
    ConflictError,
    CorruptError,
    NameInvalidError,
    ParityError,
    RecordError,
    StoreError,
)
from hydra_detect.storage import backbones, layout


def snapshot(folder):
    """Every path below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_split_makes_a_backbone_and_an_active_head_that_prove_to_be_the_original(tmp_path):
    """One call gives both artifacts, a bit-equal proof, measured sizes and an active version."""
    path = save(small(), tmp_path / "a.pth")
    report = split_checkpoint(path, tmp_path / "store", head="rbc", class_names=["RBC"], settings=SETTINGS)
    assert report.parity.equal
    assert report.parity.max_absolute_difference == 0
    assert report.parity.numbers_compared > 100_000
    assert all(item.detections for item in report.parity.inputs)
    assert report.original_bytes == path.stat().st_size
    version = VersionManager(tmp_path / "store").active("rbc")
    assert (version.number, version.record.class_names) == (1, ("RBC",))
    assert version.record.parity.equal
    assert version.files[layout.TENSORS][0] == report.head_bytes
    on_disk = tmp_path / "store/heads/rbc/versions/000001" / layout.TENSORS
    assert on_disk.stat().st_size == report.head_bytes
    assert report.backbone_bytes + report.head_bytes == pytest.approx(report.original_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda: put_head(resnet18(norm=FrozenBatchNorm2d)), SETTINGS),
        (lambda: put_head(resnet18(), classes=5), SETTINGS),
        (second_form, SETTINGS),
        (mobilenet, {"min_size": 64, "max_size": 128, "anchor_sizes": ((8, 16, 32),) * 3, "rpn_score_threshold": 0.0}),
        (
            lambda: put_head(resnet18(channels=1), image_mean=[0.4], image_std=[0.2]),
            {**SETTINGS, "mean": [0.4], "std": [0.2]},
        ),
        (
            lambda: put_head(resnet18(), rpn_nms_thresh=0.5, rpn_pre_nms_top_n_test=50, box_nms_thresh=0.3),
            {**SETTINGS, "rpn_nms_threshold": 0.5, "rpn_pre_nms_top_n": 50, "nms_threshold": 0.3},
        ),
    ],
    ids=["frozen-norm", "four-classes", "second-form", "mobilenet", "one-channel", "other-thresholds"],
)
def test_every_form_splits_and_proves(tmp_path, make, settings):
    """Each supported form splits with difference 0 at every stage."""
    path = save(make(), tmp_path / "a.pth")
    report = split_checkpoint(path, tmp_path / "store", head="owl", settings=settings)
    assert report.parity.equal, str(report.parity)


def test_half_precision_stays_half_on_disk_and_proves(tmp_path):
    """Tensors keep the dtype of the file, and the proof holds for what they mean in float32."""
    state = {name: v.half() if v.dim() > 1 else v for name, v in small().state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    report = split_checkpoint(tmp_path / "half.pth", tmp_path / "store", head="owl", settings=SETTINGS)
    assert report.parity.equal
    assert report.head_bytes < 0.6 * sum(4 * v.numel() for name, v in state.items() if "backbone" not in name)


def test_a_second_original_on_the_same_backbone_adds_only_its_head(split_store):
    """Heads of originals that share their backbone's tensors share one backbone artifact."""
    store = Store.open(split_store)
    assert backbones.names(store) == ["default"]
    assert store.backbone("default").numbers() == [1]
    assert list(HeadRegistry(store)) == ["rbc", "wbc"]
    digests = {VersionManager(store).active(head).record.backbone.digest for head in ("rbc", "wbc")}
    assert digests == {backbones.find(store, "default").record.contract.digest}


def test_the_same_backbone_name_for_another_backbone_is_refused_before_the_proof(tmp_path):
    """Another backbone under a taken name is an error that says what differs and what to do; nothing changes."""
    store = tmp_path / "store"
    split_checkpoint(save(small(), tmp_path / "a.pth"), store, head="rbc", settings=SETTINGS)
    before = snapshot(store)
    other = save(small(seed=5), tmp_path / "b.pth")
    with pytest.raises(ConflictError, match="digest is") as caught:
        split_checkpoint(other, store, head="wbc", settings=SETTINGS, progress=lambda *_: pytest.fail("too late"))
    assert "--backbone" in caught.value.remedy
    with pytest.raises(ConflictError, match=r"preprocessing\.min_size is 64 against 70"):
        split_checkpoint(tmp_path / "a.pth", store, head="wbc", settings={**SETTINGS, "min_size": 70})
    assert snapshot(store) == before
    report = split_checkpoint(other, store, head="wbc", backbone="second", settings=SETTINGS)
    assert report.backbone_is_new
    assert backbones.names(Store.open(store)) == ["default", "second"]


def test_splitting_again_makes_the_next_version(split_store):
    """A second split of the same head becomes version 2; the first stays as it was, and stays the active one."""
    numbers = [version.number for version in VersionManager(split_store).versions("rbc")]
    assert (numbers, VersionManager(split_store).active("rbc").number) == ([1, 2], 1)
    assert [event.what for event in VersionManager(split_store).history("rbc")] == ["created", "promoted", "created"]


def test_a_version_that_is_active_stays_so(tmp_path):
    """A split makes its version active where none is; where one is it stays, and the report says how to promote."""
    path, store = save(small(), tmp_path / "a.pth"), tmp_path / "store"
    first = split_checkpoint(path, store, head="rbc", settings=SETTINGS)
    manager = VersionManager(store)
    assert (first.is_active, first.to_dict()["active"], manager.active("rbc").number) == (True, True, 1)
    assert "promote" not in str(first)
    assert manager.history("rbc")[-1].reason == "split from a.pth"
    second = split_checkpoint(path, store, head="rbc", settings=SETTINGS)
    assert (second.head.version, second.is_active, second.to_dict()["active"]) == (2, False, False)
    assert "  another version is active; 'hydra-detect promote rbc 2'" in str(second).splitlines()
    assert manager.active("rbc").number == 1
    manager.promote("rbc", 2)
    assert HeadRegistry(store).remove("rbc") == [1, 2]
    third = split_checkpoint(path, store, head="rbc", settings=SETTINGS)
    assert (third.head.version, third.is_active, manager.active("rbc").number) == (3, True, 3)


def test_splits_at_the_same_time(tmp_path, monkeypatch):
    """Of two splits into one new head the first makes its version active; the second leaves it so, and says so."""
    path, store, reports = save(small(), tmp_path / "a.pth"), tmp_path / "store", []
    promote = VersionManager.promote

    def overtaken(manager, *arguments, **options):
        if not reports:
            reports.append(None)
            reports[:] = [split_checkpoint(path, store, head="rbc", settings=SETTINGS)]
        return promote(manager, *arguments, **options)

    monkeypatch.setattr(VersionManager, "promote", overtaken)
    late = split_checkpoint(path, store, head="rbc", settings=SETTINGS)
    assert (reports[0].head.version, reports[0].is_active) == (2, True)
    assert (late.head.version, late.is_active) == (1, False)
    assert VersionManager(store).active("rbc").number == 2


def test_a_split_into_a_damaged_head(tmp_path):
    """A head whose state is damaged is refused before the proof, and no version of it is made."""
    path, store = save(small(), tmp_path / "a.pth"), tmp_path / "store"
    split_checkpoint(path, store, head="rbc", settings=SETTINGS)
    flip(store / "heads/rbc/pointer/00000001.json", 30)
    with pytest.raises(CorruptError, match="generation 1 of the pointer of 'rbc'"):
        split_checkpoint(path, store, head="rbc", settings=SETTINGS, progress=pytest.fail)
    assert VersionManager(store).store.head("rbc").numbers() == [1]


def test_artifacts_of_equal_originals_are_equal_byte_for_byte(tmp_path):
    """Two splits of one original write the same tensor files, whatever the order of its keys."""
    model = small()
    save(model, tmp_path / "a.pth")
    shuffled = dict(reversed(list(model.state_dict().items())))
    torch.save(shuffled, tmp_path / "b.pth")
    files = []
    for name in ("a", "b"):
        split_checkpoint(tmp_path / f"{name}.pth", tmp_path / name, head="owl", settings=SETTINGS)
        tensors = sorted((tmp_path / name).rglob(layout.TENSORS))
        files.append([path.read_bytes() for path in tensors])
    assert len(files[0]) == 2
    assert files[0] == files[1]


def _tampered(model):
    """Kinds of damage to a state dict, each with what the refusal must say."""
    state = model.state_dict()
    key = "roi_heads.box_head.fc7.weight"

    def change(**changes):
        return {name: value for name, value in {**state, **changes}.items() if value is not None}

    nan, infinite = state[key].clone(), state[key].clone()
    nan[0, 0], infinite[0, 0] = float("nan"), float("inf")
    return {
        "one missing": (change(**{"roi_heads.box_head.fc7.bias": None}), CheckpointError, "1 missing"),
        "one too many": (change(**{"backbone.extra.weight": torch.zeros(3)}), CheckpointError, "1 unexpected"),
        "wrong shape": (change(**{key: torch.zeros(24, 25)}), CheckpointError, "of wrong shape"),
        "NaN": (change(**{key: nan}), CorruptError, "NaN or infinity in 1"),
        "infinity": (change(**{key: infinite}), CorruptError, "NaN or infinity in 1"),
        "complex": (change(**{key: state[key].to(torch.complex64)}), CheckpointError, "complex"),
        **{
            str(dtype): (change(**{key: state[key].to(dtype)}), CheckpointError, f"{key} is {dtype}")
            for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool)
        },
        "no values": (change(**{key: state[key].to("meta")}), CheckpointError, key),
    }


def test_a_damaged_original_is_refused_and_nothing_is_written(tmp_path):
    """A missing, extra, misshapen or non-finite tensor refuses the split, names it, and leaves no store behind."""
    for name, (state, error, match) in _tampered(small()).items():
        torch.save(state, tmp_path / "bad.pth")
        with pytest.raises(error, match=match):
            split_checkpoint(tmp_path / "bad.pth", tmp_path / "store", head="owl", settings=SETTINGS)
        assert not (tmp_path / "store").exists(), name


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path):
    """Names that are not allowed and class names that do not fit are refused, and there is no store."""
    path = save(small(), tmp_path / "a.pth")
    cases = [
        ({"head": "../x"}, NameInvalidError, "name"),
        ({"head": "owl", "backbone": "CON"}, NameInvalidError, "name"),
        ({"head": "owl", "class_names": ["a", "b"]}, RecordError, "2 names were given and the weights have 1"),
        ({"head": "owl", "class_names": "RBC"}, RecordError, "one text"),
        ({"head": "owl", "settings": {**SETTINGS, "min_sise": 3}}, RecordError, "min_size"),
        ({"head": "owl", "settings": {**SETTINGS, "claimed_metrics": {"f1": float("nan")}}}, RecordError, "nan|NaN"),
        ({"head": "owl", "settings": {**SETTINGS, "notes": "x" * 2**21}}, RecordError, "bytes"),
        ({"head": "owl", "settings": {**SETTINGS, "sample_count": -1}}, RecordError, "sample_count"),
        ({"head": "owl", "settings": {**SETTINGS, "return_layers": ["layer9", "b", "c", "d"]}}, RecordError, "layer1"),
        (
            {"head": "owl", "settings": {**SETTINGS, "return_layers": ["layer2", "layer1", "layer3", "layer4"]}},
            RecordError,
            "in order",
        ),
    ]
    for arguments, error, match in cases:
        with pytest.raises(error, match=match):
            split_checkpoint(path, tmp_path / "store", **{"settings": SETTINGS, **arguments})
    assert not (tmp_path / "store").exists()


def test_a_foreign_folder_is_never_made_a_store(tmp_path):
    """A folder with other files in it is refused and left alone."""
    path = save(small(), tmp_path / "a.pth")
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match="other files"):
        split_checkpoint(
            path, tmp_path, head="owl", settings=SETTINGS, progress=lambda *_: pytest.fail("after the proof")
        )
    with pytest.raises(StoreError, match="make a store"):
        split_checkpoint(path, path, head="owl", settings=SETTINGS)
    assert snapshot(tmp_path) == before


def test_a_failed_proof_writes_nothing_and_carries_its_report(tmp_path, monkeypatch):
    """When the rebuilt detector differs, the split is refused with the report, and there is no store."""
    from hydra_detect.checkpoints import proof
    from hydra_detect.nets.heads import RCNNHead

    class Altered(RCNNHead):
        @classmethod
        def load(cls, settings, levels, raw):
            head = RCNNHead.load(settings, levels, raw)
            head.roi_heads.box_predictor.cls_score.bias.data += 1e-3
            return head

    monkeypatch.setattr(proof, "RCNNHead", Altered)
    path = save(small(), tmp_path / "a.pth")
    with pytest.raises(ParityError, match="class logits") as caught:
        split_checkpoint(path, tmp_path / "store", head="owl", settings=SETTINGS)
    assert not caught.value.facts["report"].equal
    assert not (tmp_path / "store").exists()


def test_facts_of_a_migration_are_kept_as_claims(tmp_path):
    """Sample count, claimed metrics, notes and operating threshold stand in the record."""
    settings = {
        **SETTINGS,
        "sample_count": 40,
        "claimed_metrics": {"f1": 0.9},
        "notes": "from the old system",
        "operating_threshold": 0.4,
        "operating_threshold_chosen_on": "val",
    }
    split_checkpoint(save(small(), tmp_path / "a.pth"), tmp_path / "store", head="owl", settings=settings)
    record = VersionManager(tmp_path / "store").active("owl").record
    assert (record.sample_count, record.claimed_metrics, record.notes) == (40, {"f1": 0.9}, "from the old system")
    assert record.score_threshold == 0.4
    assert record.operating_policy.chosen_on == "val"
    assert record.source.file == "a.pth"
    assert {"torch", "torchvision", "hydra-detect"} <= set(record.libraries)


def test_what_was_measured_comes_along(tmp_path):
    """A whole operating policy stands in the record, files lie beside it, and the history knows who was at work."""
    policy = OperatingPolicy(score_threshold=0.3, temperature=1.5, class_thresholds={"owl": 0.4}, objective="f1")
    settings = SplitSettings(**SETTINGS, operating_policy=policy)
    path, root = save(small(), tmp_path / "a.pth"), tmp_path / "store"
    split_checkpoint(path, root, head="owl", settings=settings, attachments={"notes.txt": b"mine"}, actor="ann")
    version = VersionManager(root).active("owl")
    assert version.record.operating_policy == policy
    assert Store.open(root).head("owl").read(version, "notes.txt") == b"mine"
    assert VersionManager(root).history("owl")[0].actor == version.actor == "ann"
    both = attrs.evolve(settings, operating_threshold=0.5)
    with pytest.raises(RecordError, match="both an operating_policy and an operating_threshold"):
        split_checkpoint(path, tmp_path / "other", head="owl", settings=both)
    with pytest.raises(NameInvalidError):
        split_checkpoint(path, root, head="owl", settings=settings, attachments={"../x": b""})


def test_the_original_is_kept_beside_the_head_when_asked(tmp_path):
    """With keep_original the very file lies in the version's folder, listed in its manifest."""
    path = save(small(), tmp_path / "a.pth")
    split_checkpoint(path, tmp_path / "store", head="owl", settings=SETTINGS, keep_original=True)
    version = VersionManager(tmp_path / "store").active("owl")
    kept = tmp_path / "store/heads/owl/versions/000001/original.pth"
    assert kept.read_bytes() == path.read_bytes()
    assert version.files["original.pth"][1] == version.record.source.sha256


def test_the_users_own_pictures_join_the_proof(tmp_path):
    """Pictures given by the user are compared too, by name, and their outputs are not among the recorded digests."""
    import numpy as np

    picture = (np.random.default_rng(0).random((90, 120, 3)) * 255).astype(np.uint8)
    path = save(small(), tmp_path / "a.pth")
    report = split_checkpoint(
        path, tmp_path / "store", head="owl", settings=SETTINGS, parity_inputs=[picture, picture[:60]]
    )
    assert [item.name for item in report.parity.inputs[-2:]] == ["input 1", "input 2"]
    record = VersionManager(tmp_path / "store").active("owl").record
    assert set(record.parity.outputs) == {item.name for item in report.parity.inputs if item.seeded}
    assert len(record.parity.outputs) == 5


def test_older_keys_split_and_are_remembered(tmp_path):
    """An original with keys from before torchvision 0.13 splits into present names; the record knows the old ones."""
    torch.save(older_names(small()), tmp_path / "old.pth")
    split_checkpoint(tmp_path / "old.pth", tmp_path / "store", head="owl", settings=SETTINGS)
    version = VersionManager(tmp_path / "store").active("owl")
    renamed = version.record.source.renamed
    assert renamed["rpn.head.conv.0.0.weight"] == "rpn.head.conv.weight"
    assert renamed["backbone.fpn.inner_blocks.0.0.bias"] == "backbone.fpn.inner_blocks.0.bias"
    assert len(renamed) == 18


def test_a_split_leaves_the_process_as_it_was(tmp_path):
    """Threads, random numbers, gradients and the original file are the same after a split."""
    path = save(restless(small()), tmp_path / "a.pth")
    before = (torch.get_num_threads(), torch.random.get_rng_state(), torch.is_grad_enabled(), pathlib.Path.cwd())
    data = path.read_bytes()
    split_checkpoint(path, tmp_path / "store", head="owl", settings=SETTINGS)
    after = (torch.get_num_threads(), torch.random.get_rng_state(), torch.is_grad_enabled(), pathlib.Path.cwd())
    assert torch.equal(before[1], after[1])
    assert before[::2] == after[::2]
    assert before[3] == after[3]
    assert path.read_bytes() == data


def test_the_report_is_plain_json_too(tmp_path):
    """A split report turns into JSON, and its text shows sizes and the table of stages."""
    report = split_checkpoint(save(small(), tmp_path / "a.pth"), tmp_path / "store", head="owl", settings=SETTINGS)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["parity"]["equal"] is True
    assert values["head_bytes"] == report.head_bytes
    text = str(report)
    assert "equal in every number" in text
    assert f"{report.head_bytes / 1e6:.2f} MB" in text
