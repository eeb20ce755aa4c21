"""Hostile safetensors files: half made up by families of tricks, half mutated from whole ones; each has a number.

Run as a program, it feeds them to our own decoder in a process of little memory, and prints what came of it.
"""

import contextlib
import itertools
import json
import random
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np

from hydra_detect.errors import CorruptError
from hydra_detect.storage import artifacts
from hydra_detect.tensors import ITEM_BYTES, RawTensor, tensors_digest

LIMIT = 1 << 20
LONG = 0.025
"""Seconds from which on a file is tried again: it may have been the machine."""
TOKENS = (
    "-1", "0", "1", "2", "4", "-0", "1.0", "0.5", "1e3", "1E400", "1e-400", "01", "+1", "0x10", "1_0", ".5", "1.",
    "2147483648", "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "1180591620717411303424", "9" * 18, "9" * 19, "9" * 400,
    "9" * 4301, "-" + "9" * 30, "true", "false", "null", "NaN", "Infinity", "-Infinity", "nan", "None", '"1"', '""',
    '"F32"', "[]", "[0]", "[[]]", "[1,]", "{}", '{"1":1}', '{"a":{}}', "'1'", '"\\ud800"', '"\\udc00\\ud800"', '"\\x"',
    '"a\tb"', "[" * 70 + "]" * 70, "\\", "", ",", ":", "/**/1",
)  # fmt: skip
DTYPES = (
    "F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "I16", "U16", "U32", "U64", "I8", "F8_E4M3", "F8_E5M2",
    "f32", "F32 ", " F32", "F-32", "C64", "F128", "STR", "", "\\u0046\\u0033\\u0032", "F32\\u0000", "object", "O",
)  # fmt: skip
NAMES = (
    "", "a", "__metadata__", "__metadata__ ", "__METADATA__", "\\u005f_metadata__", "\\u0000", "\\ud83d\\ude00",
    "\\ud83d", "\\udead", "..", "../a", "/", "a\\u202eb", "__class__", "__proto__", "constructor", "a" * 3000,
    "\\u00e9", "e\\u0301", "caf\u00e9", "\U0001f989", "a,b", "[{", '\\"', "\\\\", "\\/", "0", "null", "NaN",
)  # fmt: skip
AROUND = (
    b"", b" ", b"\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"//\n", b"{}", b",", b"\xed\xa0\x80", b"\xc0\x80", b"\x1a",
)  # fmt: skip
UNITS = (
    "[],", "{},", "0,", "1.5,", '"",', "null,", "[[[[[[[[0]]]]]]]],", "9" * 4000 + ",", "1.2345678901234567e-300,",
    '"\\ud800",', '"\\u0041",', "1e9,", "true,", "[" * 60 + "]" * 60 + ",", "-1,",
)  # fmt: skip


def packed(text, data=b"", length=None):
    """Return a file with this header, and another length than the true one if asked."""
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    return struct.pack("<Q", (len(raw) if length is None else length) % (1 << 64)) + raw + data


def entry(dtype='"F32"', shape="[1]", offsets="[0,4]", more=""):
    """Return the text of one tensor's entry."""
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}'


def _values(pick):
    field, token = pick.choice(["dtype", "shape", "offsets"]), pick.choice(TOKENS)
    return packed(f'{{"a":{entry(**{field: token})}}}', b"1234"[: pick.choice([0, 3, 4, 4])])


def _shapes(pick):
    shape = ",".join(pick.choice(TOKENS if pick.random() < 0.3 else TOKENS[:30]) for _ in range(pick.randint(0, 10)))
    size = pick.choice([0, 0, 1, 4, 8])
    return packed(f'{{"a":{entry(shape=f"[{shape}]", offsets=f"[0,{size}]")}}}', bytes(size))


def _zero_shapes(pick):
    axes = ["0", *(str(pick.choice([0, 1, 2**31, 2**40, 2**62, 10**17, 10**18])) for _ in range(pick.randint(0, 7)))]
    pick.shuffle(axes)
    shape = ",".join(axes)
    return packed(f'{{"a":{entry(shape=f"[{shape}]", offsets="[0,0]")}}}')


def _offsets(pick):
    pair = ",".join(pick.choice(TOKENS) for _ in range(pick.choice([0, 1, 2, 2, 2, 3])))
    return packed(f'{{"a":{entry(offsets=f"[{pair}]")}}}', bytes(pick.choice([0, 1, 4, 8])))


def _names(pick):
    names = [pick.choice(NAMES) for _ in range(pick.randint(1, 4))]
    parts = [f'"{name}":{entry(offsets=f"[{4 * place},{4 * place + 4}]")}' for place, name in enumerate(names)]
    return packed("{" + ",".join(parts) + "}", bytes(4 * len(names)))


def _twice(pick):
    first, second = pick.choice([("a", "a"), ("a", "\\u0061"), ("", ""), ("a", "b"), ("__metadata__", "__metadata__")])
    more = pick.choice(["", ',"dtype":"F32"', ',"shape":[2]', ',"data_offsets":[0,4]', ',"x":1', ',"x":1,"x":2'])
    return packed(f'{{"{first}":{entry(more=more)},"{second}":{entry(offsets="[4,8]")}}}', bytes(8))


def _places(pick):
    sizes = [4 * pick.randint(0, 6) for _ in range(pick.randint(1, 40))]
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    pairs = [list(pair) for pair in itertools.pairwise(ends)]
    for _ in range(pick.randint(0, 3)):
        pick.choice(pairs)[pick.randint(0, 1)] += pick.choice([-8, -4, -1, 1, 4, 8, 2**32, -(2**40)])
    if pick.random() < 0.3:
        pick.shuffle(pairs)
    parts = {
        f"t{place}": {"dtype": "F32", "shape": [size // 4], "data_offsets": pair}
        for place, (size, pair) in enumerate(zip(sizes, pairs, strict=True))
    }
    return packed(json.dumps(parts), bytes(max(0, ends[-1] + pick.choice([0, 0, 0, -4, -1, 1, 4]))))


def _lengths(pick):
    text = f'{{"a":{entry()}}}' + " " * pick.randint(0, 9)
    exact = len(text)
    length = pick.choice([0, 1, exact - 1, exact + 1, exact + 4, exact + 5, LIMIT, LIMIT + 1, 2**31, 2**32, 2**63, -1])
    return packed(text, b"1234", length)[: pick.choice([None, None, 7, 8, 9, 20])]


def _depths(pick):
    depth = pick.choice([1, 10, 62, 63, 64, 65, 66, 100, 500, 900, 990, 1000, 5000, 60_000, 200_000])
    opening, closing = pick.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    inner = opening * depth + pick.choice(["", "1", entry()]) + closing * pick.choice([0, depth, depth - 1, depth + 1])
    shaped = '{"a":{"dtype":"F32","data_offsets":[0,4],"shape":', "}}"
    before, after = pick.choice([('{"a":', "}"), ('{"__metadata__":', "}"), ("", ""), shaped])
    return packed(before + inner + after, b"1234")


def _metadata(pick):
    inside = pick.choice([*TOKENS, '{"format":"pt"}', '{"a":1}', '{"a":{"b":[]}}', f'{{"a":"{"x" * 2000}"}}', entry()])
    parts = [f'"__metadata__":{inside}', f'"a":{entry()}']
    pick.shuffle(parts)
    return packed("{" + ",".join(parts[: pick.randint(1, 2)]) + "}", pick.choice([b"", b"1234"]))


def _edges(pick):
    whole = f'{{"a":{entry()}}}'
    return packed(pick.choice(AROUND) + whole.encode() + pick.choice(AROUND), b"1234" + pick.choice(AROUND))


def _encodings(pick):
    whole = f'{{"{pick.choice("aé猫🦉")}":{entry()}}}'
    coding = pick.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "latin-1", "utf-8-sig", "cp1252"])
    return packed(whole.encode(coding, errors="replace") + b" " * pick.randint(0, 3), b"1234")


def _tops(pick):
    return packed(pick.choice(TOKENS) + pick.choice(["", " ", "\n", pick.choice(TOKENS)]), bytes(pick.choice([0, 4])))


def _dtypes(pick):
    size = pick.choice([0, 1, 2, 3, 4, 6, 8, 16, 24, 32])
    shape = pick.choice(["[]", "[1]", "[2]", "[3]", "[4]", "[2,2]", "[0]", "[1,3]"])
    return packed(f'{{"a":{entry(f"{chr(34)}{pick.choice(DTYPES)}{chr(34)}", shape, f"[0,{size}]")}}}', bytes(size))


def _any(pick, depth=0):
    kind = pick.random()
    if depth > 5 or kind < 0.5:
        return pick.choice(TOKENS[:12] + TOKENS[30:34])
    if kind < 0.7:
        return "[" + ",".join(_any(pick, depth + 1) for _ in range(pick.randint(0, 4))) + "]"
    keys = ("dtype", "shape", "data_offsets", "a", "b")
    return "{" + ",".join(f'"{key}":{_any(pick, depth + 1)}' for key in pick.sample(keys, pick.randint(0, 4))) + "}"


def _anything(pick):
    return packed(f'{{"a":{_any(pick)},"b":{_any(pick)}}}', bytes(pick.choice([0, 1, 4, 8])))


def _heavy(pick):
    unit, size = pick.choice(UNITS), LIMIT - pick.randint(0, 200)
    kind = pick.random()
    if kind < 0.6:
        before, after = pick.choice([('{"a":[', "0]}"), ('{"__metadata__":{"a":[', "0]}}"), ("[", "0]")])
        return packed(before + unit * ((size - 40) // len(unit)) + after)
    if kind < 0.8:
        count = pick.choice([1, 2000, 2047, 2048, 2049, 9000])
        width = (size - 2) // count - 70
        parts = (f'"{n}{"x" * max(0, width)}":{entry(shape="[0,1,1,1]", offsets="[0,0]")}' for n in range(count))
        return packed("{" + ",".join(parts) + "}")
    filler = pick.choice([" ", "\n", "\0", "[", '{"":', '"', "\\", "9", "a"])
    before, after = pick.choice(["{", '{"', '{"a":', ""]), pick.choice(["}", '":1}'])
    return packed(before + filler * ((size - 10) // len(filler)) + after)


FAMILIES = (
    _values, _shapes, _zero_shapes, _offsets, _names, _twice, _places, _lengths, _depths, _metadata, _edges, _encodings,
    _tops, _dtypes, _anything,
)  # fmt: skip
ONE_IN_HEAVY = 40


def made_up(number):
    """Return the made-up file of this number."""
    pick = random.Random(f"made up {number}")  # noqa: S311
    if number % ONE_IN_HEAVY == 0:
        return _heavy(pick)
    return FAMILIES[number % len(FAMILIES)](pick)


def whole_files():
    """Return files that are as they should be, to mutate: few and many tensors of all dtypes."""
    source = np.random.default_rng(0)
    kinds = [
        RawTensor(dtype, (2, 3), source.integers(0, 60, 6 * size, dtype=np.uint8).tobytes())
        for dtype, size in ITEM_BYTES.items()
    ]
    sets = (
        {"w": kinds[1]}, {f"layer.{n}.weight": kind for n, kind in enumerate(kinds)},
        {f"block.{n}.bias": RawTensor("F32", (n % 5,), bytes(4 * (n % 5))) for n in range(60)},
        {"empty": RawTensor("F32", (0, 7), b""), "scalar": RawTensor("I64", (), bytes(8))},
    )  # fmt: skip
    return [artifacts.encode_tensors(tensors) for tensors in sets]


def _mutate(pick, data, donor):
    (length,) = struct.unpack("<Q", data[:8])
    end = max(9, 8 + length) if pick.random() < 0.9 else len(data)
    low = 0 if pick.random() < 0.1 else 8
    begin = pick.randrange(low, end)
    stop = min(end, begin + pick.choice([0, 1, 1, 2, 4, 16]))
    kind = pick.random()
    if kind < 0.3:
        data[begin] ^= 1 << pick.randrange(8)
    elif kind < 0.5:
        data[begin:stop] = pick.choice(TOKENS).encode()
    elif kind < 0.65:
        del data[begin:stop]
    elif kind < 0.8:
        data[begin:begin] = data[pick.randrange(8, end) :][: pick.choice([1, 4, 30, 80])]
    elif kind < 0.9:
        data[begin:stop] = donor[pick.randrange(len(donor)) :][: pick.choice([1, 8, 40])]
    else:
        digits = [place for place in range(8, end) if 48 <= data[place] <= 57]
        if digits:
            data[pick.choice(digits)] = pick.choice(b"0123456789-.e")


def mutated(number, sources):
    """Return the mutated file of this number; in most of them the length of the header is made right again."""
    pick = random.Random(f"mutated {number}")  # noqa: S311
    data, donor = bytearray(pick.choice(sources)), pick.choice(sources)
    (length,) = struct.unpack("<Q", data[:8])
    body = len(data) - 8 - length
    for _ in range(pick.choice([1, 1, 1, 2, 3, 8])):
        if len(data) > 16:
            length = struct.unpack("<Q", data[:8])[0]
            data[:8] = struct.pack("<Q", min(length, len(data) - 9))
            _mutate(pick, data, donor)
    if pick.random() < 0.8:
        data[:8] = struct.pack("<Q", max(0, len(data) - 8 - body))
    return bytes(data)


def check(data):
    """Decode a file; whether it was accepted. What is accepted has to hold together."""
    try:
        tensors = artifacts.decode_tensors(data, "it")
    except CorruptError as error:
        assert error.asked == "read it"  # noqa: PT017  both outcomes are lawful
        assert len(str(error)) < 1000  # noqa: PT017
        return False
    (length,) = struct.unpack("<Q", data[:8])
    assert sum(tensor.nbytes for tensor in tensors.values()) == len(data) - 8 - length
    assert list(tensors) == sorted(tensors)
    assert len(tensors_digest(tensors).hex) == 64
    assert all(isinstance(tensor.is_finite(), bool) for tensor in tensors.values())
    if len(data) < LIMIT // 2:
        assert artifacts.decode_tensors(artifacts.encode_tensors(tensors), "it") == tensors
    return True


def seconds(data):
    """Return whether a file is accepted, and the processor time that this took, the least of up to three tries."""
    least = float("inf")
    for _ in range(3):
        started = time.thread_time()
        with contextlib.suppress(CorruptError):
            artifacts.decode_tensors(data, "it")
        least = min(least, time.thread_time() - started)
        if least < LONG:
            break
    return check(data), least


def peak():
    """Return the most memory that this process ever held, in bytes; unlike ru_maxrss, not its parent's before it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main(count, memory):
    """Feed so many distinct files to the decoder in so much memory; print what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sources = whole_files()
    assert all(map(check, [packed("{}"), *sources]))
    before, seen, accepted, longest, failures = peak(), set(), 0, (0.0, ""), []
    for made, enough in (("made_up", count // 2), ("mutated", count)):
        for number in itertools.count():
            if len(seen) >= enough:
                break
            data = made_up(number) if made == "made_up" else mutated(number, sources)
            if hash(data) in seen:
                continue
            seen.add(hash(data))
            try:
                is_accepted, took = seconds(data)
            except BaseException as error:  # noqa: BLE001  the parent reports it
                failures.append(f"{made}({number}): {type(error).__name__}: {error!s:.200}")
            else:
                accepted += is_accepted
                longest = max(longest, (took, f"{made}({number})"))
    found = {"cases": len(seen), "accepted": accepted, "growth": peak() - before, "failures": failures[:20]}
    print(json.dumps({**found, "longest": longest[0], "which": longest[1]}))  # noqa: T201  the parent reads it


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
