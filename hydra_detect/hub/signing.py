"""Signatures over releases: OpenSSF model signing with a key of one's own, and the key that a namespace is held to.

A key that lies at `<keys>/<namespace>.pem` is pinned: whatever comes from that namespace has to be signed with it.
<keys> is $HYDRA_DETECT_KEYS, or ~/.config/hydra-detect/keys. A signature says who published these bytes, and not that
they are the newest, or any good.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_detect.detections import missing_extra
from hydra_detect.errors import HubError, InputError
from hydra_detect.hub import layout
from hydra_detect.names import one_line
from hydra_detect.storage import files

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS_VARIABLE = "HYDRA_DETECT_KEYS"
_KEY = ".pem"
_MOST_TOLD = 200


def pinned_key(repo: str) -> Path | None:
    """Return the public key that a repository's namespace is held to; None if none is pinned.

    A Hub may answer to a name in any case, so case is not looked at.

    Raises:
        InputError: If the folder of keys that the environment names is not there.

    """
    named, namespace = os.environ.get(KEYS_VARIABLE), repo.partition("/")[0].casefold()
    folder = Path(named) if named else Path.home() / ".config" / "hydra-detect" / "keys"
    asked = f"look for the key of {repo}"
    if not files.exists(folder, asked):
        if named:
            remedy = f"Name a folder with {KEYS_VARIABLE}, or unset it."
            raise InputError(asked, f"{KEYS_VARIABLE} names {named}, which is not there", remedy)
        return None
    there = {name.removesuffix(_KEY).casefold(): name for name in files.names_in(folder, asked) if name.endswith(_KEY)}
    return folder / there[namespace] if namespace in there else None


def sign(contents: Mapping[str, bytes], key: str | os.PathLike[str]) -> bytes:
    """Return the signature over the files of a release.

    Args:
        contents: The files by name.
        key: A file with a private key: an elliptic curve's, unencrypted PEM.

    Raises:
        ExtraMissingError: If model-signing is not installed.
        InputError: If there is no such key, or it is of another kind.

    """
    asked = f"sign with {key}"
    config = _library(asked).signing.Config()
    with tempfile.TemporaryDirectory() as folder:
        place = _written(contents, folder)
        try:
            config.use_elliptic_key_signer(private_key=Path(key)).sign(place, Path(folder) / layout.SIGNATURE)
        except (OSError, ValueError, TypeError) as error:
            remedy = "Give a file with the private key of an elliptic curve (P-256), as PEM without a password."
            raise InputError(asked, one_line(str(error))[:_MOST_TOLD], remedy) from None
        return (Path(folder) / layout.SIGNATURE).read_bytes()


def check(contents: Mapping[str, bytes], signature: bytes | None, key: Path, asked: str) -> None:
    """See that files were signed with the key that is pinned.

    Raises:
        ExtraMissingError: If model-signing is not installed: nothing is taken unchecked then.
        HubError: If they were not, or by another key.

    """
    if signature is None:
        found = f"it is not signed, and {key.stem!r} is held to a key"
        raise HubError(asked, found, f"Ask whoever published it; or remove {key}, and take what is unsigned.")
    config = _library(asked).verifying.Config()
    with tempfile.TemporaryDirectory() as folder:
        place, proof = _written(contents, folder), Path(folder) / layout.SIGNATURE
        proof.write_bytes(signature)
        try:
            config.use_elliptic_key_verifier(public_key=key).verify(place, proof)
        except Exception as error:  # noqa: BLE001  whatever a hostile signature makes of the library: it is not valid
            found = f"its signature is not valid for {key}: {one_line(str(error))[:_MOST_TOLD]}"
            raise HubError(asked, found, "Ask whoever published it; nothing was kept.") from None


def _written(contents: Mapping[str, bytes], folder: str) -> Path:
    place = Path(folder) / "release"
    place.mkdir()
    for name, data in contents.items():
        (place / name).write_bytes(data)
    return place


def _library(asked: str) -> Any:
    try:
        import model_signing
        from model_signing import signing, verifying  # noqa: F401  which the module itself does not import
    except ImportError:
        raise missing_extra(asked, "signing") from None
    return model_signing
