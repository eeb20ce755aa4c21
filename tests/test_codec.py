"""The codec: what is written reads back, the unknown is kept, and a stranger's JSON only ever meets our errors."""

import json
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_strategies import backbone_records, head_records, unknowns
from store_fixtures import a_backbone, a_record, some_tensors

from hydra_detect import codec
from hydra_detect.contracts import Preprocessing
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.records import BackboneRecord, HeadRecord, OperatingPolicy

# What is not even JSON to us, and a word of the reason.
NO_JSON = {
    "nothing": (b"", "no valid JSON"),
    "a word": (b"owl", "no valid JSON"),
    "cut short": (b'{"schema": 1', "no valid JSON"),
    "two values": (b"{}{}", "no valid JSON"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"a": Infinity}', "Infinity is not JSON"),
    "minus Infinity": (b'{"a": [-Infinity]}', "-Infinity is not JSON"),
    "beyond every float": (b'{"a": 1e999}', "Out of range"),
    "below every float": (b"-1e999", "Out of range"),
    "a key twice": (b'{"a": 1, "a": 1}', "a key stands twice"),
    "a key twice, spelt differently": (b'{"a": 1, "\\u0061": 2}', "a key stands twice"),
    "a key twice, deep": (b'{"a": [{"b": 1, "b": 2}]}', "a key stands twice"),
    "byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "UTF-16": ("{}".encode("utf-16"), "no valid JSON"),
    "no UTF-8": (b'{"a": "\xff"}', "no valid JSON"),
    "encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "no valid JSON"),
    "lone surrogate": (b'{"a": "\\ud800"}', "surrogates not allowed"),
    "lone surrogate as a key": (b'{"\\udfff": 1}', "surrogates not allowed"),
    "deep lists": (b"[" * 200_000, "no valid JSON"),
    "deep closed lists": (b"[" * 200_000 + b"]" * 200_000, "no valid JSON"),
    "deep objects": (b'{"a":' * 150_000, "no valid JSON"),
    "rather deep": (b"[" * 65 + b"]" * 65, "nests deeper than 64"),
    "too deep for Python or not": (b"[" * 960 + b"]" * 960, "nests deeper|no valid JSON"),
    "long number": (b"1" * 1_000_000, "4300 digits"),
    "long negative number": (b'{"schema": -' + b"9" * 5_000 + b"}", "4300 digits"),
    "2 MiB": (b" " * (2 << 20), "2097152 bytes, more than the 1048576"),
    "NUL": (b"\0", "no valid JSON"),
    "control character in a text": (b'"\n"', "no valid JSON"),
    "single quotes": (b"{'a': 1}", "no valid JSON"),
    "trailing comma": (b"[1,]", "no valid JSON"),
}
SCHEMAS = [None, 0, -1, True, 1.0, "1", [1], {}]


def plain(**changes):
    """Return the JSON values of a valid head record, with changes at dotted places; `...` removes a field."""
    value = json.loads(codec.encode(a_record(some_tensors())))
    for path, item in changes.items():
        *folders, last = path.split("__")
        place = value
        for folder in folders:
            place = place[folder]
        if item is ...:
            del place[last]
        else:
            place[last] = item
    return json.dumps(value).encode()


@given(backbone_records)
def test_backbone_record_round_trip(record):
    """A backbone record reads back as itself, and writes the same bytes again."""
    data = codec.encode(record)
    again = codec.decode(BackboneRecord, data, "it")
    assert again == record
    assert codec.encode(again) == data


@settings(max_examples=30)
@given(head_records())
def test_head_record_round_trip(record):
    """A head record reads back as itself, and writes the same bytes again."""
    data = codec.encode(record)
    again = codec.decode(HeadRecord, data, "it")
    assert again == record
    assert codec.encode(again) == data


@given(unknowns, unknowns, unknowns)
def test_unknown_fields_survive(top, nested, listed):
    """Fields of a later version come back in the object they stood in, at every depth."""
    value = json.loads(codec.encode(a_record(some_tensors())))
    value |= top
    value["backbone"]["architecture"] |= nested
    value["backbone"]["levels"][1] |= listed
    record = codec.decode(HeadRecord, json.dumps(value).encode(), "it")
    assert (record.unknown, record.backbone.architecture.unknown) == (top, nested)
    assert (record.backbone.levels[0].unknown, record.backbone.levels[1].unknown) == ({}, listed)
    assert json.loads(codec.encode(record)) == value
    assert json.loads(codec.encode(attrs.evolve(record, notes="changed"))) == value | {"notes": "changed"}


def test_a_field_called_unknown_is_one_more():
    """A later version may call a field `unknown`: it is kept under that name too."""
    record = codec.decode(OperatingPolicy, b'{"schema": 1, "score_threshold": 0.5, "unknown": {"a": 1}}', "it")
    assert record.unknown == {"unknown": {"a": 1}}
    assert json.loads(codec.encode(record))["unknown"] == {"a": 1}


def test_encoding_is_canonical():
    """Equal records are equal bytes: key order, 32 against 32.0 and the sign of zero leave no trace."""
    tensors = some_tensors()
    one = a_record(tensors, claimed_metrics={"f1": 1, "ap": 0}, libraries={"a": "1", "b": "2"})
    other = a_record(tensors, claimed_metrics={"ap": -0.0, "f1": 1.0}, libraries={"b": "2", "a": "1"})
    other = attrs.evolve(other, settings=attrs.evolve(other.settings, anchor_sizes=((32.0,), (64.0,))))
    assert one == other
    assert codec.encode(one) == codec.encode(other)
    low, high = OperatingPolicy(score_threshold=0), OperatingPolicy(score_threshold=-0.0)
    assert low == high
    assert codec.encode(low) == codec.encode(high)


def test_the_text_itself():
    """The canonical text is sorted, indented by one, UTF-8 as it is, and ends with a newline."""
    record = OperatingPolicy(score_threshold=0.5, chosen_on="Wälder", class_thresholds={"owl": 0.75})
    assert codec.encode(record).decode() == (
        '{\n "chosen_on": "Wälder",\n "class_thresholds": {\n  "owl": 0.75\n },\n "objective": "",\n "schema": 1,\n'
        ' "score_threshold": 0.5,\n "temperature": 1.0\n}\n'
    )


def test_marks_are_counted_before_anything_is_parsed():
    """A text may have so many commas and opening brackets; what costs more to parse than to refuse is not parsed."""
    text = b'{"a": [1, 2]}'
    assert codec.loads(text, "it", most_marks=3) == {"a": [1, 2]}
    with pytest.raises(CorruptError, match="cannot read it: it has more than 2 commas and brackets"):
        codec.loads(text, "it", most_marks=2)


@pytest.mark.parametrize("text", [b"1.5", b"1e3", b"[0, 1E0]", b"1" * 19, b"-0.0"])
def test_only_sizes(text):
    """Where sizes alone are asked for, a fraction, an exponent or a number of 19 digits is refused."""
    assert codec.loads(b"[1, -2, 999999999999999999]", "it", has_only_sizes=True) == [1, -2, 999999999999999999]
    with pytest.raises(CorruptError, match="is no size"):
        codec.loads(text, "it", has_only_sizes=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800", {"\ud800": 1}, {1, 2}, b"x"])
def test_what_json_has_not_is_not_written(value):
    """NaN, infinity, lone surrogates and foreign types are refused when they are written."""
    with pytest.raises(RecordError, match="cannot write a record: "):
        codec.dumps(value)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (OperatingPolicy(score_threshold=0.5, chosen_on="x" * (1 << 20)), "more than the 1048576"),
        (OperatingPolicy(score_threshold=0.5, chosen_on="\udcff"), "surrogates not allowed"),
        (OperatingPolicy(score_threshold=0.5, chosen_on=5), "chosen_on: TypeError: expected str, found 5"),
        (Preprocessing(min_size=800.0), "min_size: TypeError: expected int, found 800.0"),
        (OperatingPolicy(score_threshold=0.5, unknown={"a": float("nan")}), "not JSON compliant"),
    ],
)
def test_what_could_not_be_read_is_not_written(record, found):
    """A record that no one could read again is refused while the mistake can still be mended."""
    with pytest.raises(RecordError, match="writ") as caught:
        codec.encode(record)
    assert found in caught.value.found


@pytest.mark.parametrize(("data", "found"), NO_JSON.values(), ids=NO_JSON)
def test_hostile_json_is_refused(data, found):
    """Bytes that are not plain, finite, shallow JSON with unique keys are damaged to us, whatever is wrong."""
    for buffer in (data, memoryview(data)):
        with pytest.raises(CorruptError, match=found) as caught:
            codec.loads(buffer, "the record")
        assert caught.value.asked == "read the record"
        assert len(str(caught.value)) < 500


hostile_text = st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass"))


@given(st.binary(max_size=40) | hostile_text)
def test_any_bytes_meet_only_our_errors(data):
    """Whatever bytes come, they are read or refused by an error of ours, and what is read can be written."""
    try:
        value = codec.loads(data, "it")
    except CorruptError as error:
        assert error.asked == "read it"  # noqa: PT017  both ways are lawful
    else:
        assert codec.loads(codec.dumps(value), "it") == value


def test_a_limit_of_its_own():
    """Who says how long a text may be gets it up to there and no further, whether that is less or more than usual."""
    for size, limit in ((10, 10), (codec.MAX_JSON_BYTES + 1, codec.MAX_JSON_BYTES + 1)):
        data = b'"' + b"x" * (size - 2) + b'"'
        assert len(codec.loads(data, "it", limit=limit)) == size - 2
        with pytest.raises(CorruptError, match=f"it is {size} bytes, more than the {size - 1} that it may have"):
            codec.loads(data, "it", limit=size - 1)
    with pytest.raises(CorruptError, match="more than the 1048576 that it may have"):
        codec.loads(data, "it")


@pytest.mark.parametrize("depth", [1, 64])
def test_depth_within_the_limit(depth):
    """Nesting up to 64 is read."""
    data = b"[" * (depth - 1) + b"1" + b"]" * (depth - 1)
    assert json.dumps(codec.loads(data, "it")).encode() == data


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_odd_schemas_are_refused(schema):
    """A schema that is no whole number from 1 is refused."""
    with pytest.raises(RecordError, match="no number from 1"):
        codec.decode(HeadRecord, plain(schema=schema), "it")


@pytest.mark.parametrize("schema", [2, 3, 10**60])
def test_newer_schema_is_refused(schema):
    """A newer schema is refused with both numbers and the way out, before anything in it is looked at."""
    with pytest.raises(RecordError, match="reads up to 1") as caught:
        codec.decode(HeadRecord, json.dumps({"schema": schema, "tensors": 5}).encode(), "it")
    assert str(schema)[:40] in caught.value.found
    assert caught.value.facts == {"schema": schema}
    assert caught.value.remedy == "Upgrade hydra-detect."


@pytest.mark.parametrize("data", [b"[]", b"1", b'"owl"', b"null", b"true"])
def test_a_record_is_an_object(data):
    """Valid JSON that is no object is no record."""
    with pytest.raises(CorruptError, match="no JSON object"):
        codec.decode(HeadRecord, data, "it")


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("backbone__preprocessing__min_size", "800", "expected int, found '800'"),
        ("backbone__preprocessing__min_size", True, "expected int, found True"),
        ("backbone__preprocessing__min_size", 800.0, "expected int, found 800.0"),
        ("backbone__preprocessing__min_size", None, "expected int, found None"),
        ("backbone__preprocessing__min_size", 0, "min_size"),
        ("backbone__preprocessing__mean", "123", "expected a list, found '123'"),
        ("backbone__preprocessing__mean", {}, "expected a list"),
        ("backbone__preprocessing__mean", [1, "2", 3], "expected float, found '2'"),
        ("backbone__preprocessing__mean", [1, True, 3], "expected float, found True"),
        ("backbone__preprocessing__mean", [1, 10**400, 3], "int too large to convert to float"),
        ("backbone__levels", {}, "expected a list"),
        ("backbone__levels", [], "levels"),
        ("backbone__levels", [5], "expected an object, found 5"),
        ("backbone__levels", [{"name": "0", "channels": 1}], "stride: missing"),
        ("backbone", [], "expected an object"),
        ("backbone", ..., "backbone: missing"),
        ("settings", None, "expected an object, found None"),
        ("settings__anchor_sizes", [[1], 2], "expected a list, found 2"),
        ("settings__box_norm", 1, "expected bool, found 1"),
        ("settings__box_norm", "false", "expected bool, found 'false'"),
        ("class_names", "ab", "expected a list, found 'ab'"),
        ("class_names", {"owl": 1, "fox": 2}, "expected a list"),
        ("class_names", ["owl", 5], "expected str, found 5"),
        ("class_names", ["owl"], "1 names were given and the weights have 2 classes"),
        ("tensors", "0" * 64, "as a digest"),
        ("tensors", 5, "expected str, found 5"),
        ("backbone_name", "../x", "as a backbone name"),
        ("kind", "backbone", "'kind' must be in"),
        ("libraries", [], "expected an object, found []"),
        ("libraries", {"torch": 2}, "expected str, found 2"),
        ("claimed_metrics", {"f1": "high"}, "expected float, found 'high'"),
        ("sample_count", 1.5, "sample_count"),
        ("sample_count", -1, "sample_count"),
        ("operating_policy", [], "operating_policy"),
        ("notes", None, "expected str, found None"),
    ],
)
def test_wrong_kinds_are_refused(path, value, found):
    """A value of another kind is never converted; the refusal names the field and shows the value."""
    with pytest.raises(RecordError, match="cannot read it") as caught:
        codec.decode(HeadRecord, plain(**{path: value}), "it")
    assert found in caught.value.found
    if "expected" in found:
        assert all(f"{part}: " in caught.value.found for part in path.split("__"))


def test_several_problems_are_told_at_once():
    """All wrong fields of one object are named together."""
    with pytest.raises(RecordError, match=r"missing; .*: missing; ") as caught:
        codec.decode(HeadRecord, plain(notes=5, tensors=..., class_names=...), "it")
    for name in ("notes", "tensors: missing", "class_names: missing"):
        assert name in caught.value.found


@settings(max_examples=100)
@given(st.data())
def test_any_value_anywhere_meets_only_our_errors(data):
    """Any JSON value in the place of any other gives a record or a RecordError, and nothing else."""
    value = json.loads(codec.encode(a_record(some_tensors())))
    place = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, Mapping) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(st.sampled_from([None, True, -1, 0, 1, 0.5, 10**400, "", "owl", [], [[]], {}, {"a": 1}]))
    try:
        record = codec.decode(HeadRecord, json.dumps(value).encode(), "it")
    except RecordError as error:
        assert error.asked == "read it"  # noqa: PT017  both ways are lawful
    else:
        assert codec.decode(HeadRecord, codec.encode(record), "it") == record


def test_backbone_and_head_are_not_confused():
    """The record of a backbone is not taken for one of a head, nor the other way round."""
    with pytest.raises(RecordError, match="kind"):
        codec.decode(BackboneRecord, plain(contract=json.loads(plain())["backbone"]), "it")
    with pytest.raises(RecordError, match="tensors: missing"):
        codec.decode(HeadRecord, codec.encode(a_backbone()[1]), "it")
