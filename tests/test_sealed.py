"""Documents that prove themselves: one canonical text, in which no bit can change unseen."""

import pytest
from hypothesis import given
from record_strategies import json_values, unknowns

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.storage import sealed

DOCUMENT = {"format": 1, "name": "owl", "files": {"a": [3, "é"]}, "ratio": 0.5, "none": None}


@given(unknowns)
def test_sealed_round_trip(document):
    """A sealed document opens to what was sealed, and is one canonical text."""
    data = sealed.seal(document)
    assert sealed.unseal(data, "it") == document
    assert sealed.seal(dict(reversed(document.items()))) == data


def test_every_flipped_bit_of_a_seal_is_found():
    """No bit of a sealed document can change unseen, those in white space and in the seal included."""
    data = sealed.seal(DOCUMENT)
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(CorruptError, match="cannot read the pointer: "):
                sealed.unseal(bytes(broken), "the pointer")


def test_every_truncation_of_a_seal_is_found():
    """A sealed document that is cut short or extended anywhere is refused."""
    data = sealed.seal(DOCUMENT)
    for broken in [*(data[:size] for size in range(len(data))), data + b"\n", data + b"\0", b" " + data, data * 2]:
        with pytest.raises(CorruptError, match="cannot read the pointer: "):
            sealed.unseal(broken, "the pointer")


@given(json_values)
def test_only_seals_are_unsealed(value):
    """JSON that was not sealed is refused, whatever it holds."""
    with pytest.raises(CorruptError, match="cannot read it: "):
        sealed.unseal(codec.dumps(value), "it")


def test_a_limit_of_its_own():
    """A document may be as long as whoever reads it allows, and no longer."""
    data = sealed.seal({"a": "x" * codec.MAX_JSON_BYTES})
    with pytest.raises(CorruptError, match=f"it is {len(data)} bytes, more than the {codec.MAX_JSON_BYTES}"):
        sealed.unseal(data, "it")
    assert sealed.unseal(data, "it", limit=len(data)) == {"a": "x" * codec.MAX_JSON_BYTES}
    with pytest.raises(CorruptError, match=f"more than the {len(data) - 1} that it may have"):
        sealed.unseal(data, "it", limit=len(data) - 1)


@pytest.mark.parametrize("form", [2, 10**9])
def test_a_newer_format_is_no_damage(form):
    """A format beyond the one that is known is told with both numbers, and with what to do."""
    with pytest.raises(RecordError, match=f"cannot read it: its format is {form} and this .* reads 1") as caught:
        sealed.check_format({"format": form}, 1, "it")
    assert (caught.value.remedy, caught.value.facts) == ("Upgrade hydra-detect.", {"format": form})


@pytest.mark.parametrize("document", [{}, *({"format": form} for form in (0, -1, True, 1.0, 2.0, "2", None, [2]))])
def test_what_is_no_format(document):
    """What is no whole number, or none that there ever was, is damage."""
    with pytest.raises(CorruptError, match="none that there is"):
        sealed.check_format(document, 1, "it")
    sealed.check_format({"format": 1}, 1, "it")
