"""The test Hub and model cards: what stops a commit, what is warned of, and the tags that come of the rest."""

import hub_cards
import pytest
from huggingface_hub import CommitOperationAdd, EvalResult, ModelCardData


def test_no_card_has_no_tags():
    """Without metadata there is nothing to tell but where it is."""
    assert hub_cards.tags({}, ()) == ["region:us"]


def test_a_card_of_the_client_is_taken():
    """What the client itself writes has no errors, results of evaluations included."""
    result = EvalResult(
        task_type="object-detection", dataset_type="org/owls", dataset_name="Owls", metric_type="f1", metric_value=0.9
    )
    data = ModelCardData(
        language="en", license="mit", library_name="hydra-detect", base_model="org/backbone", model_name="owl",
        datasets=["org/owls"], tags=["hydra-head"], eval_results=[result], pipeline_tag="object-detection",
    )  # fmt: skip
    text = f"---\n{data.to_yaml()}\n---\n# Owl"
    assert hub_cards.check(text) == ([], [])
    assert {"dataset:org/owls", "base_model:org/backbone", "en"} < set(hub_cards.tags(hub_cards.metadata(text), ()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("---\nlicense: [\n---\n", "YAML"), ("---\n- a\n---\n", "must be a mapping"),
        ("---\nlicense: mine\n---\n", '"license" must be one of'), ("---\ntags: owl\n---\n", '"tags" must be an array'),
        ("---\ntags: [1]\n---\n", '"tags" with value 1'), ("---\na: 1\na: 2\n---\n", "duplicated mapping key: a"),
        ("---\nbase_model: /home/me/backbone\n---\n", "must be a model id"),
        ("---\nlanguage: English!\n---\n", "ISO 639"),
        ("---\nbase_model: a/b\nbase_model_relation: child\n---\n", "must be one of"),
        ("---\nbase_model_relation: adapter\n---\n", 'needs a "base_model"'),
        ("---\npipeline_tag: finding-owls\n---\n", "must be one of"),
        ("---\nlibrary_name: Hydra Detect\n---\n", "lower-case"),
        ("---\nmodel-index: 1\n---\n", 'name" is required'), ("---\nlicense: !!python/name:os.system\n---\n", "YAML"),
        ("---\nmodel-index: [{name: a, results: [{task: {}, dataset: {type: d}, metrics: []}]}]\n---\n", "required"),
    ],
)  # fmt: skip
def test_cards_that_are_refused(hub, text, words):
    """A card that is wrong stops a commit before anything is sent."""
    hub.repo("org/owl")
    with pytest.raises(ValueError, match=words):
        hub.api().create_commit("org/owl", [CommitOperationAdd("README.md", text.encode())], commit_message="card")
    assert [request.path for request in hub.requests] == ["/api/validate-yaml"]


@pytest.mark.parametrize("text", ["# no metadata", "---\n---\n# none", "---\nnever ends", ""])
def test_a_card_without_metadata_is_warned_of(hub, text):
    """A card that says nothing is taken, with a warning from the client."""
    hub.repo("org/owl")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        hub.api().create_commit("org/owl", [CommitOperationAdd("README.md", text.encode())], commit_message="card")
    assert hub.api().model_info("org/owl").tags == ["region:us"]
