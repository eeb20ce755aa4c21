"""Model cards as the test Hub reads them: the metadata at the top of README.md, checked and turned into tags."""

import re

import yaml

OPENING = "---"
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
LIBRARY = re.compile(r"[a-z0-9]+([-._][a-z0-9]+)*")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?|multilingual|code")
RELATIONS = ("adapter", "finetune", "merge", "quantized")
LICENSES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "afl-3.0", "artistic-2.0",
    "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "ecl-2.0",
    "epl-2.0", "eupl-1.2", "agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0",
    "ms-pl", "odbl", "ofl-1.1", "pddl", "unlicense", "zlib", "wtfpl", "unknown", "other",
)  # fmt: skip
PIPELINES = (
    "object-detection", "zero-shot-object-detection", "image-classification", "image-segmentation", "image-to-text",
    "image-feature-extraction", "depth-estimation", "keypoint-detection", "mask-generation", "text-classification",
    "text-generation", "feature-extraction", "other",
)  # fmt: skip


class Strict(yaml.SafeLoader):
    """YAML as the Hub reads it: a key twice in one mapping is an error."""


def mapping(loader, node):
    """Build a mapping, and refuse a key that comes twice."""
    keys = [loader.construct_object(key) for key, _value in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"duplicated mapping key: {key}", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def metadata(text):
    """Return the metadata of a card, nothing if it has none; ValueError says what is wrong with it."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != OPENING:
        return None
    ends = [number for number, line in enumerate(lines[1:], 1) if line.strip() == OPENING]
    if not ends:
        return None
    try:
        found = yaml.load("\n".join(lines[1 : ends[0]]), Loader=Strict)  # noqa: S506  it is a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"YAML: {error}") from error
    if found is not None and not isinstance(found, dict):
        raise ValueError("the metadata must be a mapping")
    return found


def check(text):
    """Return the errors and the warnings that the Hub has for a card."""
    try:
        data = metadata(text)
    except ValueError as error:
        return [str(error)], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = [error for name, rule in RULES.items() if name in data for error in rule(name, data[name])]
    if "base_model_relation" in data and "base_model" not in data:
        errors.append('"base_model_relation" needs a "base_model"')
    if data.get("license") == "other" and "license_name" not in data:
        return errors, ['"license_name" is recommended with the license "other"']
    return errors, []


def texts(value):
    """Return the texts of a field that is one or a list."""
    return value if isinstance(value, list) else [value]


def one_of(choices):
    """Return the rule that a field is one of the choices."""

    def rule(name, value):
        if value not in choices:
            yield f'"{name}" must be one of [{", ".join(choices)}]'

    return rule


def each(pattern, what, *, single=True):
    """Return the rule that a field is made of texts of a form."""

    def rule(name, value):
        if not single and not isinstance(value, list):
            yield f'"{name}" must be an array'
        for text in texts(value):
            if not isinstance(text, str) or not re.fullmatch(pattern, text):
                yield f'"{name}" with value {text!r} is not valid: {what}'

    return rule


def model_index(name, value):
    """Check the results of evaluations."""
    for model in value if isinstance(value, list) else [None]:
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            yield f'"{name}[0].name" is required'
            return
        for number, result in enumerate(texts(model.get("results", []))):
            at = f"{name}[0].results[{number}]"
            for part, needs in (("task", ("type",)), ("dataset", ("type", "name"))):
                yield from absent(f"{at}.{part}", result.get(part), needs)
            if not result.get("metrics"):
                yield f'"{at}.metrics" is required'
            for count, metric in enumerate(result.get("metrics") or []):
                yield from absent(f"{at}.metrics[{count}]", metric, ("type", "value"))


def absent(at, value, needs):
    """Return the messages for what a mapping lacks."""
    found = value if isinstance(value, dict) else {}
    return [f'"{at}.{need}" is required' for need in needs if found.get(need) is None]


RULES = {
    "license": one_of(LICENSES),
    "base_model_relation": one_of(RELATIONS),
    "pipeline_tag": one_of(PIPELINES),
    "library_name": each(LIBRARY, "a lower-case name", single=True),
    "base_model": each(REPO_ID, "it must be a model id from the Hub"),
    "datasets": each(REPO_ID, "it must be a dataset id from the Hub", single=False),
    "language": each(LANGUAGE, "it must be an ISO 639 code"),
    "tags": each(r"(?s).{1,200}", "a text is expected", single=False),
    "metrics": each(REPO_ID, "it must be a metric id", single=False),
    "model-index": model_index,
}


def card(repo, commit):
    """Return the metadata of a commit's card, nothing if it is missing or broken."""
    entry = commit.files.get("README.md")
    if entry is None:
        return {}
    try:
        return metadata(repo.blobs[entry.key].decode()) or {}
    except ValueError:
        return {}


def tags(data, files):
    """Return the tags that the Hub derives from a card and from the names of the files."""
    found = [*(["safetensors"] if any(path.endswith(".safetensors") for path in files) else [])]
    found += [data[name] for name in ("library_name", "pipeline_tag") if data.get(name)]
    found += [str(tag) for tag in texts(data.get("tags") or [])]
    relation = data.get("base_model_relation")
    for model in texts(data.get("base_model") or []):
        found += [f"base_model:{model}", *([f"base_model:{relation}:{model}"] if relation else [])]
    found += [f"dataset:{name}" for name in texts(data.get("datasets") or [])]
    found += [f"license:{data['license']}"] if data.get("license") else []
    return list(dict.fromkeys([*found, *map(str, texts(data.get("language") or [])), "region:us"]))
