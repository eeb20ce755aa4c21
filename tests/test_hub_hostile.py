"""What a stranger may put into a repository: refused with a reason, before anything of it is kept or run."""

import hashlib
import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import publishing_fixtures
import pytest
from hub_faults import Alter
from publishing_fixtures import BACKBONE, OWL

from hydra_detect.errors import (
    CheckpointError,
    CorruptError,
    HubError,
    HydraDetectError,
    IncompatibleError,
    NameInvalidError,
    NotFoundError,
    RecordError,
)
from hydra_detect.hub import layout
from hydra_detect.hub.pull import pull_backbone
from hydra_detect.hub.searching import list_pack
from hydra_detect.storage import artifacts
from hydra_detect.tensors import RawTensor, tensors_digest

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
REFUSALS = (CorruptError, RecordError, HubError, NotFoundError, NameInvalidError, CheckpointError, IncompatibleError)


def put(hub, files, repo=OWL):
    """Commit files to a repository as its owner might, by hand."""
    hub.add(hub.repos[repo], files)


def changed(hub, change, repo=OWL):
    """Commit another config."""
    config = json.loads(hub.repos[repo].content("config.json"))
    change(config)
    put(hub, {"config.json": json.dumps(config).encode()}, repo)


def with_weights(hub, data, digest=None, repo=OWL):
    """Commit other weights, and a config that names them rightly."""

    def change(config):
        config["files"]["model.safetensors"] = [len(data), f"sha256:{hashlib.sha256(data).hexdigest()}"]
        if digest:
            config["record"]["tensors"] = str(digest)

    put(hub, {"model.safetensors": data}, repo)
    changed(hub, change, repo)


def refused(puller, *, told=".", ref=f"{OWL}@main"):
    """See that a pull is refused, and the store as it was; return the error."""
    before = puller.contents()
    with pytest.raises(REFUSALS, match=told) as caught:
        puller.pull(ref)
    assert puller.contents() == before
    assert caught.value.remedy
    assert "copy" not in caught.value.remedy  # which nobody here has
    assert len(str(caught.value)) < 2_000
    return caught.value


def at(*path):
    """Return what puts a value somewhere in a config."""

    def put_in(value):
        def change(config):
            for key in path[:-1]:
                config = config[key]
            config[path[-1]] = value

        return change

    return put_in


def deep(depth):
    """Return lists within lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


CONFIGS = {
    "an unknown key": (at("auto_map")({"AutoModel": "evil.Model"}), "it has no key 'auto_map'"),
    "a class path": (at("record", "_target_")("os.system"), r"it has no key 'record\._target_'"),
    "a key deep inside": (at("record", "settings", "module")("evil"), r"it has no key 'record\.settings\.module'"),
    "a key near another": (at("record", "settings", "roi_sise")(7), "Did you mean 'roi_size'"),
    "a key of the backbone's": (at("record", "backbone", "architecture", "url")("http://x"), "architecture.url"),
    "an address for a repository": (at("backbone", "repo")("https://evil/x/y"), "repository"),
    "a folder for a repository": (at("backbone", "repo")("../../etc"), "repository"),
    "a branch for a commit": (at("backbone", "commit")("main"), "commit"),
    "a head that leaves its folder": (at("backbone", "head")("../x"), "head name"),
    "a name that leaves its folder": (at("name")("../../x"), "head name"),
    "a name of Windows": (at("name")("con"), "head name"),
    "release 0": (at("release")(0), "release"),
    "a release below 0": (at("release")(-3), "release"),
    "a release without end": (at("release")(10**30), "release"),
    "a release that is a text": (at("release")("3"), "release"),
    "no record": (at("record")(None), "record"),
    "a newer schema": (at("schema")(2), "schema 2"),
    "no schema": (at("schema")(None), "schema"),
    "another kind": (at("kind")("transformers"), "config.json is of kind"),
    "no kind": (at("kind")(None), "none of ours"),
    "no classes": (at("record", "class_names")([]), "names were given"),
    "a class with a line break": (at("record", "class_names")(["a\nb"]), "printable"),
    "a class without end": (at("record", "class_names")(["x" * 5_000]), "longer than 200"),
    "classes that there are not": (at("record", "class_names")([f"c{n}" for n in range(3_000)]), "names were given"),
    "labels without end": (at("record", "settings", "label_count")(10**7), "label_count"),
    "a proposal number without end": (at("record", "settings", "rpn_post_nms_top_n")(10**9), "rpn_post_nms_top_n"),
    "a size below 0": (at("record", "settings", "roi_size")(-7), "roi_size"),
    "layers without end": (at("record", "settings", "box_widths")([10**9]), "box_widths"),
    "a threshold beyond 1": (at("record", "settings", "nms_threshold")(7), "nms_threshold"),
    "anchors without end": (at("record", "settings", "anchor_sizes")([[*map(float, range(1, 200))]] * 3), "anchors"),
    "another place": (at("published_as")("../x"), "as a repository"),
    "notes without end": (at("record", "notes")("x" * 3_000), "notes have 3000 characters"),
    "a file that no release has": (at("files", "evil.py")([3, "sha256:" + "0" * 64]), "it lists 'evil.py'"),
    "a pickle": (at("files", "pytorch_model.bin")([3, "sha256:" + "0" * 64]), "it lists 'pytorch_model.bin'"),
    "a file that leaves its folder": (at("files", "../model.safetensors")([3, "sha256:" + "0" * 64]), "it lists"),
    "no weights": (at("files")({}), "it lists no model.safetensors"),
    "another size": (at("files", "model.safetensors", 0)(5), "of model.safetensors it says 5 bytes"),
    "another digest": (at("files", "model.safetensors", 1)("sha256:" + "0" * 64), "SHA-256 is not the 000000000000"),
    "other weights": (at("record", "tensors")("sha256:" + "0" * 64), "their digest is not the one in the record"),
    "another backbone": (at("record", "backbone", "digest")("sha256:" + "0" * 64), "is another one: digest"),
    "another preprocessing": (at("record", "backbone", "preprocessing", "min_size")(77), "preprocessing.min_size"),
    "a kind that it is not": (at("record", "kind")("compact-head"), "its kind is 'compact-head'"),
    "a reference for nothing": (
        at("reference")({"repo": OWL, "commit": "0" * 40, "head": ""}), "does not say where that lies"
    ),
    "lists within lists": (at("record", "notes")(deep(80)), "nests deeper"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(puller, hub, name):
    """A config that says what none of ours says is refused with the place, and nothing is kept."""
    change, told = CONFIGS[name]
    changed(hub, change)
    refused(puller, told=told)


TEXTS = {
    "nothing": (b"", "no valid JSON"),
    "no JSON": (b"{", "no valid JSON"),
    "a list": (b"[]", "none of ours"),
    "a text": (b'"hydra-head"', "none of ours"),
    "not a number": (b'{"schema": 1, "kind": "hydra-head", "release": NaN}', "NaN is not JSON"),
    "a key twice": (b'{"kind": "hydra-head", "kind": "hydra-head"}', "a key stands twice"),
    "half a letter": (b'{"kind": "\\ud800"}', "surrogates not allowed"),
    "no UTF-8": (b'{"kind": "\xff"}', "can't decode byte 0xff"),
    "a thousand lists": (b'{"kind": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "recursion|nests deeper"),
    "many": (b'{"kind": [' + b"1," * 100_000 + b"1]}", "of kind \\[1, 1"),
    "long": (b'{"kind": "' + b"x" * (300 << 10) + b'"}', "307212 bytes, and such a file 262144 at most"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(puller, hub, name):
    """What is no config at all is refused, in a short sentence."""
    data, told = TEXTS[name]
    put(hub, {"config.json": data})
    refused(puller, told=told)


def test_a_config_that_is_too_large_is_not_read(puller, hub):
    """A config of more than 256 KiB is refused by the listing."""
    put(hub, {"config.json": b" " * (257 << 10)})
    before = len(hub.seen())
    refused(puller, told="such a file 262144 at most")
    assert not [one for one in hub.seen()[before:] if "/resolve/" in one.path]


def test_weights_that_are_too_large_are_not_read(puller, hub, monkeypatch):
    """Weights beyond what any artifact may have are refused by config and listing, and none of them is downloaded."""
    monkeypatch.setattr(layout, "LIMITS", {**layout.LIMITS, "model.safetensors": 100_000})
    before = len(hub.seen())
    refused(puller, told="of model.safetensors it says 116964 bytes, .*; 100000 are allowed", ref=f"{OWL}@v1")
    assert not [one for one in hub.seen()[before:] if one.path.endswith("model.safetensors")]


def test_no_more_is_read_than_is_listed(puller, hub):
    """Of a body that goes on beyond the size in the listing, no more than the chunk that passes it is held."""

    def longer(reply):
        return replace(reply, body=reply.body + b" " * (8 << 20), headers={})

    hub.faults.on(Alter(longer), "GET", r"/resolve/.*/config\.json$", times=None)
    error = refused(puller, told=r"\d+ bytes came twice whose digest is not that of the commit's listing")
    assert int(error.found.split()[0]) < 1 << 20


def test_an_index_that_is_too_large_is_not_read(publisher, hub, monkeypatch):
    """Who looks at a pack reads no more of its index than any may have."""
    publisher.push("owl", "org/pack/owl")
    put(hub, {"index.json": b" " * (8 << 20)}, "org/pack")
    monkeypatch.setattr(layout, "LIMITS", {**layout.LIMITS, "index.json": 100})
    with pytest.raises(CorruptError, match=r"it has \d+ bytes, and such a file 100 at most") as caught:
        list_pack("org/pack", endpoint=hub.endpoint)
    assert int(caught.value.found.split()[2]) < 1 << 20


def test_a_folder_of_many(puller, hub, monkeypatch):
    """A repository with more entries than any of ours is refused, and no more of its listing is read."""
    monkeypatch.setattr(layout, "MOST_ENTRIES", 50)
    hub.files_a_page = 20
    put(hub, {f"f{number}": b"x" for number in range(200)})
    before = len(hub.seen())
    refused(puller, told="more than 50 entries")
    assert len([one for one in hub.seen()[before:] if "/tree/" in one.path]) == 3


def test_other_files_are_never_downloaded(puller, hub):
    """Whatever else lies in a repository is not asked for: no code, no pickle, no card."""
    evil = {
        "modeling.py": b"import os",
        "pytorch_model.bin": pickle.dumps(print),
        "original.pth": b"x",
        "setup.py": b"x",
    }
    put(hub, evil)
    before = len(hub.seen())
    puller.pull(f"{OWL}@main")
    asked = {one.path.rpartition("/")[2] for one in hub.seen()[before:] if "/resolve/" in one.path}
    assert asked <= {"config.json", "model.safetensors", "beside.json", "releases.json"}


def weights_of(hub):
    """Return the published weights as plain values."""
    return artifacts.decode_tensors(hub.repos[OWL].content("model.safetensors"), "them")


def spoilt(kind):
    """Return what makes other weights of those that are published."""

    def make(tensors):
        name = next(name for name in tensors if name.endswith("fc6.weight"))
        values = np.frombuffer(tensors[name].data, dtype="<f4").reshape(tensors[name].shape).copy()
        if kind == "NaN":
            values[0, 0] = np.nan
        elif kind == "infinity":
            values[0, 0] = np.inf
        elif kind == "beyond all numbers":
            values[:] = 1e38
        elif kind == "another shape":
            values = values[:-1]
        elif kind == "another dtype":
            values = values.astype("<i4")
        changed = {**tensors, name: RawTensor.of(values)}
        if kind == "one missing":
            del changed[name]
        elif kind == "one too many":
            changed["../../etc/passwd"] = RawTensor.of(np.zeros(2, "<f4"))
        elif kind == "another name":
            changed["fc6"] = changed.pop(name)
        return changed

    return make


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("NaN", "NaN or infinity in 1 of 14 tensors: .*fc6.weight"),
        ("infinity", "NaN or infinity in 1 of 14 tensors: .*fc6.weight"),
        ("beyond all numbers", "not all that it computes is finite"),
        ("another shape", r"fc6\.weight is \[31, 784\] instead of \[32, 784\]"),
        ("another dtype", r"1 of wrong dtype: .*fc6\.weight is I32"),
        ("one missing", r"1 missing: .*fc6\.weight"),
        ("one too many", r"1 unexpected: \.\./\.\./etc/passwd"),
        ("another name", r"1 missing: .*fc6\.weight; 1 unexpected: fc6"),
    ],
)
def test_weights(puller, hub, kind, told):
    """Weights that are not those of the network, or no numbers, are refused, though every digest is right."""
    tensors = spoilt(kind)(weights_of(hub))
    with_weights(hub, artifacts.encode_tensors(tensors), digest=tensors_digest(tensors))
    refused(puller, told=told)


def header(text, data=b""):
    """Return a safetensors file with a header as it is given."""
    text = text.encode()
    return struct.pack("<Q", len(text)) + text + data


HEADERS = {
    "a pickle": (pickle.dumps({"weights": [1.0]}), "its header claims"),
    "nothing": (b"", "0 bytes, too few"),
    "a header beyond the file": (struct.pack("<Q", 1 << 40) + b"{}", "claims 1099511627776 bytes; the file has 10"),
    "a header without end": (header(" " * (2 << 20)), "claims 2097152 bytes; .* the limit is 1 MiB"),
    "no JSON": (header("{{{{"), "of its header, it is no valid JSON"),
    "a hole": (
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"12345678"),
        "overlap or leave a hole",
    ),
    "beyond the end": (header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "reaches beyond the end"),
    "a shape without end": (
        header('{"a":{"dtype":"F32","shape":[0,99999999999999],"data_offsets":[0,0]}}'),
        "tensor 'a' has an entry that an artifact cannot hold",
    ),
    "a dtype that there is not": (
        header('{"a":{"dtype":"X","shape":[],"data_offsets":[0,1]}}', b"1"),
        "tensor 'a' has an entry that an artifact cannot hold",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(puller, hub, name):
    """A file of weights that is none is refused by its header, though its digest is right."""
    data, told = HEADERS[name]
    with_weights(hub, data)
    refused(puller, told=told)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"schema": 1, "code": "x"}', "beside.json of .* it has no key 'code'"),
        (b"{", "beside.json of .* no valid JSON"),
        (b'{"schema":1,"split":3}', "split: TypeError: expected an object, found 3"),
    ],
    ids=["an unknown key", "no JSON", "another split"],
)
def test_what_lies_beside(puller, hub, data, told):
    """What lies beside the weights is as strict: a key that there is not, and what is no record, are refused."""

    def change(config):
        config["files"]["beside.json"] = [len(data), f"sha256:{hashlib.sha256(data).hexdigest()}"]

    put(hub, {"beside.json": data})
    changed(hub, change)
    refused(puller, told=told)


def test_a_backbone_is_as_strict(puller, hub):
    """A backbone's config and weights are checked as a head's are."""
    before = puller.contents()
    changed(hub, at("record", "contract", "evil")("x"), BACKBONE)
    with pytest.raises(RecordError, match=r"it has no key 'record\.contract\.evil'"):
        pull_backbone(f"{BACKBONE}@main", puller.store, endpoint=hub.endpoint)
    assert puller.contents() == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("architecture", "return_layers"), ["layer1", "layer9"]),
        (("architecture", "width_per_group"), 7),
        (("architecture", "groups"), 3),
        (("architecture", "in_channels"), 900),
        (("architecture", "body"), "mobilenet_v3_large"),
    ],
    ids=str,
)
def test_backbones_that_cannot_be_built(puller, hub, path, value):
    """A backbone whose record describes no network, or another than its weights, is refused with a reason."""
    before = puller.contents()
    changed(hub, at("record", "contract", *path)(value), BACKBONE)
    with pytest.raises(HydraDetectError) as caught:
        pull_backbone(f"{BACKBONE}@main", puller.store, endpoint=hub.endpoint)
    assert isinstance(caught.value, REFUSALS)
    assert puller.contents() == before


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"schema": 1, "production": 1, "url": "x"}', "channels.json of .* it has no key 'url'"),
        (b'{"schema": 1, "production": -1}', "'production' must be >= 1"),
        (b'{"schema": 1, "production": 9}', f"find {OWL}@v9 .* no such tag"),
        (b"[", "channels.json of .* no valid JSON"),
    ],
)
def test_channels(puller, hub, data, told):
    """Who asks for what is in production is told where that cannot be read, or is not there."""
    put(hub, {"channels.json": data})
    refused(puller, told=told, ref=OWL)
