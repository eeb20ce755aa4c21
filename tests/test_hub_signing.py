"""Signatures: made with a key of one's own, and asked for where a namespace is held to one."""

import subprocess

import publishing_fixtures
import pytest
from publishing_fixtures import BACKBONE, BAT, OWL
from test_hub_push import again

from hydra_detect import HeadRegistry, HydraDetector
from hydra_detect.errors import ConflictError, ExtraMissingError, HubError, InputError
from hydra_detect.hub import signing
from hydra_detect.hub.origins import origin_of
from hydra_detect.hub.pull import pull_backbone

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


def key_pair(folder, name):
    """Return the files of a new private key and its public one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def private(tmp_path, monkeypatch):
    """Return the private key of `org`, whose namespace is held to it."""
    folder = tmp_path / "keys"
    folder.mkdir()
    monkeypatch.setenv(signing.KEYS_VARIABLE, str(folder))
    return key_pair(folder, "org")[0]


def signed(publisher, private):
    """Publish backbone and head anew, signed."""
    publisher.push_backbone("org/signed-backbone", sign_with=private)
    return publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])


def test_signed_and_pulled(publisher, puller, private, hub):
    """What is signed with the pinned key is taken, and its origin names the key."""
    signed(publisher, private)
    ref = puller.pull("org/signed@v1")
    assert origin_of(puller.store, HeadRegistry(puller.store)[ref]).signer == "org"
    assert "head.sig" in hub.repos["org/signed"].head.files
    assert pull_backbone("org/signed-backbone", puller.store, endpoint=hub.endpoint) == "default"


@pytest.mark.usefixtures("private")
def test_what_is_unsigned(puller, hub):
    """What is not signed is refused where a key is pinned, backbones too, and nothing is kept."""
    empty = puller.contents()
    for ref in (f"{OWL}@v1", f"{BAT}@v1"):
        with pytest.raises(HubError, match="it is not signed, and 'org' is held to a key"):
            puller.pull(ref)
    with pytest.raises(HubError, match="it is not signed"):
        pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint)
    assert puller.contents() == empty


@pytest.mark.parametrize("what", ["another key", "another file", "another signature", "no signature at all"])
def test_what_is_not_valid(publisher, puller, private, hub, tmp_path, what):
    """A signature of another key, over other files, or that is none, is refused, and nothing is kept."""
    signed(publisher, private)
    repo = hub.repos["org/signed"]
    contents = {name: repo.content(name) for name in ("config.json", "model.safetensors", "beside.json")}
    if what == "another key":
        hub.add(repo, {"head.sig": signing.sign(contents, key_pair(tmp_path, "other")[0])})
    elif what == "another file":
        changed = contents["config.json"].replace(b'"notes": ""', b'"notes": "x"')
        assert changed != contents["config.json"]
        hub.add(repo, {"config.json": changed})
    elif what == "another signature":
        hub.add(repo, {"head.sig": hub.repos["org/signed-backbone"].content("head.sig")})
    else:
        hub.add(repo, {"head.sig": b"{}"})
    empty = puller.contents()
    with pytest.raises(HubError, match="its signature is not valid"):
        puller.pull("org/signed@main")
    assert puller.contents() == empty


def test_an_old_release_is_not_replayed(publisher, puller, private):
    """An older release of a namespace that is held to a key is refused even by name, unless that is allowed."""
    signed(publisher, private)
    again(publisher)
    publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])
    assert str(puller.pull("org/signed@v2")) == "owl@1"
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull("org/signed@v1")
    assert str(puller.pull("org/signed@v1", allow_older=True)) == "owl@2"


def test_an_old_release_in_a_detector(publisher, puller, private):
    """Detectors take an older release of such a namespace only if that is allowed, too."""
    signed(publisher, private)
    again(publisher)
    publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])
    puller.pull("org/signed@v2")
    args = ("org/signed-backbone", ["org/signed@v1"])
    options = {"store": puller.store, "endpoint": puller.hub.endpoint, "device": "cpu"}
    with pytest.raises(ConflictError, match="and 2 was pulled before"):
        HydraDetector.from_pretrained(*args, **options)
    assert HydraDetector.from_pretrained(*args, allow_older=True, **options).heads["owl"].number == 2


def test_an_old_release_in_a_running_detector(publisher, puller, private):
    """So do running ones, and what they run stays."""
    signed(publisher, private)
    again(publisher)
    publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])
    options = {"endpoint": puller.hub.endpoint}
    running = HydraDetector.from_pretrained(
        "org/signed-backbone", ["org/signed@v2"], store=puller.store, device="cpu", **options
    )
    with pytest.raises(ConflictError, match="and 2 was pulled before"):
        running.load_head("org/signed@v1", **options)
    assert running.heads["owl"].number == 1
    assert running.load_head("org/signed@v1", allow_older=True, **options).number == 2


def test_a_detector_is_signed_as_a_whole(publisher, puller, private, hub):
    """Backbone and heads of a detector that is published with a key are signed with it."""
    detector = HydraDetector.from_store(publisher.store, ["owl"], device="cpu")
    detector.push_to_hub("org/whole", sign_with=private, endpoint=hub.endpoint)
    ref = puller.pull("org/whole/owl@v1")
    assert origin_of(puller.store, HeadRegistry(puller.store)[ref]).signer == "org"


def test_one_signed_head_in_place_of_another(publisher, puller, private, hub):
    """A release that was signed for one repository is not taken from another."""
    signed(publisher, private)
    publisher.push("fox", "org/signed-fox", sign_with=private)
    fox = hub.repos["org/signed-fox"]
    names = ("config.json", "model.safetensors", "beside.json", "head.sig", "releases.json")
    hub.add(hub.repos["org/signed"], {name: fox.content(name) for name in names})
    hub.repos["org/signed"].drop_ref("tag", "v1")
    hub.repos["org/signed"].add_ref("tag", "v1", "main")
    with pytest.raises(HubError, match="it was signed as org/signed-fox, and lies at org/signed"):
        puller.pull("org/signed@v1")


def test_what_was_pulled_before_the_key_was_pinned(publisher, puller, tmp_path, monkeypatch):
    """A version that was taken unsigned is not handed out once its namespace is held to a key."""
    assert str(puller.pull(f"{OWL}@v1")) == "owl@1"
    folder = tmp_path / "keys"
    folder.mkdir()
    monkeypatch.setenv(signing.KEYS_VARIABLE, str(folder))
    private, _public = key_pair(folder, "ORG")
    with pytest.raises(HubError, match="it is not signed"):
        puller.pull(f"{OWL}@v1")
    with pytest.raises(ConflictError, match="it is there already, and not signed"):
        publisher.push(sign_with=private)


def test_a_folder_of_keys_that_is_not_there(puller, tmp_path, monkeypatch):
    """Where the environment names a folder of keys that is not there, nothing is taken unchecked."""
    monkeypatch.setenv(signing.KEYS_VARIABLE, str(tmp_path / "typo"))
    with pytest.raises(InputError, match="which is not there"):
        puller.pull(f"{OWL}@v1")


def test_without_the_library(publisher, puller, private, monkeypatch):
    """Where the library is not installed nothing is signed, and nothing from a pinned namespace is taken."""
    signed(publisher, private)
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'hydra-detect\[signing\]'"):
        puller.pull("org/signed@v1")
    with pytest.raises(ExtraMissingError):
        publisher.push("fox", "org/fox", sign_with=private)


@pytest.mark.parametrize("text", [b"", b"no key", None])
def test_what_is_no_key(publisher, tmp_path, text):
    """A file that is no private key of an elliptic curve, and one that is not there, are refused before anything."""
    path = tmp_path / "key"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(InputError, match="private key of an elliptic curve"):
        publisher.push("fox", "org/fox", sign_with=path)
    assert "org/fox" not in publisher.hub.repos


def test_a_key_as_the_documentation_makes_it(publisher, puller, tmp_path, monkeypatch):
    """The key that openssl makes, in the form that it writes, signs and checks."""
    folder = tmp_path / "keys"
    folder.mkdir()
    private, public = tmp_path / "key.pem", folder / "org.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(
        ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)], check=True, capture_output=True
    )
    monkeypatch.setenv(signing.KEYS_VARIABLE, str(folder))
    signed(publisher, private)
    assert str(puller.pull("org/signed@v1")) == "owl@1"
