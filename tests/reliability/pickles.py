"""Pickles that would run a command when they are loaded, in every shape in which people pass weights on."""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile

import numpy as np


class Fires:
    """Runs a command when it is unpickled: an empty file at `canary` says that it did."""

    def __init__(self, canary, how="system"):
        self.canary, self.how = str(canary), how

    def __reduce__(self):
        """Return what unpickling calls."""
        touch = f"open({self.canary!r}, 'w').close()"
        return {
            "system": (os.system, (f"touch {self.canary}",)), "exec": (exec, (touch,)), "eval": (eval, (touch,)),
            "call": (subprocess.call, (["touch", self.canary],)), "mkdir": (os.mkdir, (self.canary,)),
            "getattr": (getattr(os, "mkfifo"), (self.canary,)),  # noqa: B009  spelt as an attacker would
        }[self.how]  # fmt: skip


HOWS = ("system", "exec", "eval", "call", "mkdir", "getattr")


def _zip(members, prefix=b""):
    data = io.BytesIO()
    data.write(prefix)
    with zipfile.ZipFile(data, "a") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def _tar(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(content)
            archive.addfile(facts, io.BytesIO(content))
    return data.getvalue()


def _npy(value):
    data = io.BytesIO()
    np.save(data, np.array([value], dtype=object), allow_pickle=True)
    return data.getvalue()


def _legacy(payload, protocol=2):
    """Return the sequence of pickles that torch wrote before 1.6."""
    magic, version = 0x1950A86A20F9469CFC6C, 1001
    system = {"protocol_version": version, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(pickle.dumps(part, protocol) for part in (magic, version, system, payload, []))


def of_torch(payload, name="archive"):
    """Return a zip archive as torch writes them, around any pickle."""
    return _zip({f"{name}/data.pkl": payload, f"{name}/byteorder": b"little", f"{name}/version": b"3\n"})


def header_of(data, text="{}"):
    """Return the beginning of a safetensors file that is followed by other bytes, as if they were its tensors."""
    return struct.pack("<Q", len(text)) + text.encode() + data


def shapes(canary, whole):
    """Return files that are or hold such a pickle, by name.

    Args:
        canary: What a pickle that is loaded leaves behind.
        whole: A sound safetensors file, to hide behind.

    """
    plain = pickle.dumps(Fires(canary), 2)
    body = {"dtype": "U8", "shape": [len(plain)], "data_offsets": [0, len(plain)]}
    files = {f"protocol {number}": pickle.dumps(Fires(canary), number) for number in range(6)}
    files |= {f"by {how}": pickle.dumps(Fires(canary, how), 4) for how in HOWS}
    files |= {f"torch archive by {how}": of_torch(pickle.dumps(Fires(canary, how), 2)) for how in HOWS}
    files |= {
        "torch archive of a state dict": of_torch(pickle.dumps({"state_dict": {"w": Fires(canary)}}, 2)),
        "torch archive with it as key": of_torch(pickle.dumps({("w", 1): [Fires(canary)]}, 2)),
        "torch archive of another name": of_torch(plain, "model.safetensors"),
        "torch archive behind a header": _zip({"archive/data.pkl": plain, "archive/version": b"3"}, header_of(b"")),
        "torch archive behind a whole file": _zip({"archive/data.pkl": plain, "archive/version": b"3"}, whole),
        "TorchScript": _zip({"m/data.pkl": plain, "m/constants.pkl": plain, "m/code/x.py": b"", "m/version": b"3"}),
        "before torch 1.6": _legacy(Fires(canary)), "before torch 1.6, state dict": _legacy({"w": Fires(canary)}),
        "before torch 0.1.10": _tar({"sys_info": plain, "pickle": plain, "tensors": plain, "storages": plain}),
        "numpy objects": _npy(Fires(canary)), "numpy archive": _zip({"w.npy": _npy(Fires(canary))}),
        "gzip": gzip.compress(plain, mtime=0), "text before it": b"#!/usr/bin/env python\n" + plain,
        "behind a whole file": whole + plain, "before a whole file": plain + whole,
        "as tensor data": header_of(plain, json.dumps({"w": body})),
        "as header": header_of(b"", plain.decode("latin-1")),
        "as metadata": header_of(b"", json.dumps({"__metadata__": {"p": plain.decode("latin-1")}})),
        "twice": plain + plain, "cut": plain[:-1],
    }  # fmt: skip
    return files
