"""A head that was trained here, on the Hub: its card says all that is known of it, and what it has seen stays known."""

import io
import json

import attrs
import lifecycle_fixtures
import publishing_fixtures
import pytest
import yaml
from engine_fixtures import every_photograph
from PIL import Image
from publishing_fixtures import OWL, Puller

from hydra_detect import About, HeadRegistry, HydraDetector, codec, push, push_backbone
from hydra_detect.data.samples import Role
from hydra_detect.errors import InputError
from hydra_detect.hub import client
from hydra_detect.hub.cards import of_head
from hydra_detect.hub.documents import HeadConfig
from hydra_detect.hub.receiving import Beside
from hydra_detect.hub.refs import HubRef
from hydra_detect.lifecycle import beside
from hydra_detect.storage import layout

taught, publisher = lifecycle_fixtures.taught, publishing_fixtures.publisher
REPO = "org/hydra-lamp"


@pytest.fixture
def lamp(taught, hub, monkeypatch):
    """Publish a trained head; return its store, its version and its card."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(client, "PAUSES", (0, 0, 0, 0))
    store = taught[0]
    (backbone,) = HeadRegistry(store).backbones()
    push_backbone(store, backbone, "org/night", endpoint=hub.endpoint)
    about = About(license="mit", data="Drawn lamps, public domain.", description="Lamps in the dark.")
    push(store, "lamp", REPO, about=about, endpoint=hub.endpoint)
    return store, HeadRegistry(store)["lamp"], hub.repos[REPO].content("README.md").decode()


def test_the_card_says_all(lamp):
    """What it detects, how to use it, sizes, figures with intervals and digests, calibration, data, licence, limits."""
    store, version, card = lamp
    metrics, split = beside.evaluation_of(store, version), beside.split_of(store, version)
    for said in (
        "Detects `lamp`. Lamps in the dark.",
        f'HydraDetector.from_pretrained("org/night", heads=["{REPO}@v1"])',
        f"digest `{version.record.tensors}`",
        f"digest `{version.record.backbone.digest}`",
        f"digest of the samples `{metrics.samples_digest}`",
        f"| {metrics.micro.rates.f1} |",
        "95 % intervals",
        "Scores as chances: temperature",
        "Drawn lamps, public domain.",
        f"The roles of {len(split.samples)} samples",
        "## Limits",
        f"It was measured on {metrics.samples} samples",
        "| parity | ",
    ):
        assert said in card, said


def test_the_front_matter_is_what_the_hub_reads(lamp):
    """It is YAML: library, pipeline, what it is an adapter of, licence, tags, and the figures as a model index."""
    from huggingface_hub import ModelCard

    facts = yaml.safe_load(lamp[2].split("---")[1])
    assert facts["library_name"] == "hydra-detect"
    assert facts["pipeline_tag"] == "object-detection"
    assert (facts["base_model"], facts["base_model_relation"]) == ("org/night", "adapter")
    assert facts["license"] == "mit"
    assert facts["tags"] == ["hydra-head", "signal:lamp"]
    (result,) = ModelCard(lamp[2]).data.eval_results[:1]
    assert result.task_type == "object-detection"
    names = {one.metric_type for one in ModelCard(lamp[2]).data.eval_results}
    assert {"f1", "precision", "recall", "ap50"} <= names


def test_what_it_has_seen_stays_known(lamp, hub, tmp_path):
    """After a pull the roles of its samples are known by their pictures; their names were never published."""
    store, version, _card = lamp
    puller = Puller(hub, tmp_path / "puller")
    there = HeadRegistry(puller.store)[puller.pull(f"{REPO}@v1")]
    own, theirs = beside.split_of(store, version), beside.split_of(puller.store, there)
    assert {(one.picture, one.role) for one in own.samples} == {(one.picture, one.role) for one in theirs.samples}
    assert {one.role for one in own.samples} >= {Role.TRAIN, Role.TEST}
    published = hub.repos[REPO].content("beside.json").decode()
    assert not [one.id for one in own.samples if json.dumps(one.id)[1:-1] in published]
    assert beside.evaluation_of(puller.store, there) == beside.evaluation_of(store, version)
    assert beside.calibration_of(puller.store, there) == beside.calibration_of(store, version)
    assert there.record.operating_policy == version.record.operating_policy
    assert sorted(there.files) == sorted(
        [layout.TENSORS, layout.RECORD, layout.SPLIT, layout.EVALUATION, layout.CALIBRATION, layout.ORIGIN]
    )


def test_texts_of_others_are_data(lamp, hub):
    """A class name, a licence or a description with YAML, Markdown or line breaks in it changes no other line."""
    _store, version, _card = lamp
    text = hub.repos[REPO].content("config.json")
    config = HeadConfig(**{**_fields(text), "record": attrs.evolve(version.record, class_names=('a": |- ---',))})
    about = About(license="mit\nlibrary_name: evil", data="x\n# Evil", description="a | b\n\n## c")
    card = of_head(config, Beside(), HubRef(REPO), about).decode()
    facts = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert facts["library_name"] == "hydra-detect"
    assert facts["license"] == "mit\nlibrary_name: evil"
    assert facts["tags"][1] == 'signal:a": |- ---'
    assert "\n# Evil" not in card
    assert "\n## c" not in card


def _fields(text):
    """Return the fields of a config without its record, as values."""
    made = codec.decode(HeadConfig, text, "it")
    return {field.name: getattr(made, field.name) for field in attrs.fields(HeadConfig)}


def test_an_example_is_drawn(publisher, hub):
    """The card shows a photograph with what the head found in it; without the photograph there is nothing to show."""
    found = HydraDetector.from_store(publisher.store, ["owl"], device="cpu").predict(every_photograph()[0])
    publisher.push(about=About(example=found))
    with Image.open(io.BytesIO(hub.repos[OWL].content("picture.png"))) as picture:
        assert picture.format == "PNG"
        assert max(picture.size) <= 1024
    assert "![What it finds](picture.png)" in hub.repos[OWL].content("README.md").decode()
    with pytest.raises(InputError, match=r"the photograph that they are of \(gone\.jpg\) cannot be read"):
        About(example=attrs.evolve(found, source="gone.jpg"))
