"""Looking at the disk for what a stranger's labels name: is it there, and what does it say.

Whatever a name is, and whatever the system says to it, the answer is a value or an `InputError` that names the place.
Knows no format.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from hydra_detect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_BYTES = 1 << 30  # the largest set of COCO labels in wide use has half of this

# What the system answers to a name that nothing has, and to one that nothing can have.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EBADF)


@attrs.frozen(kw_only=True)
class Places:
    """The folders in which the pictures of a data set are looked for: nothing outside of them is read.

    Links in them are followed, as the user put them there.

    Args:
        folders: Those that names of pictures are relative to, the likeliest first.
        labels: That of the labels: a name that leads upwards may be relative to it, too.

    """

    folders: Sequence[Path]
    labels: Path

    @functools.cached_property
    def outermost(self) -> list[Path]:
        """The folders that lie in no other of them."""
        found = {tidy(folder) for folder in self.folders}
        return sorted(folder for folder in found if found.isdisjoint(folder.parents))

    def of(self, name: str) -> list[Path]:
        """Return where a picture of this name can be, the likeliest first; nowhere, if that is outside."""
        if not Path(name).anchor and ".." not in Path(name).parts:
            return [folder / name for folder in self.folders]
        # ".." is taken back before anything is opened: behind a link it would lead out of another folder.
        meant = [Path(os.path.normpath(folder / name)) for folder in (*self.folders, self.labels)]
        return [place for place in meant if not set(self.outermost).isdisjoint(tidy(place).parents)]

    def find(self, name: str) -> Path | None:
        """Return the file of a picture of this name, None if there is none."""
        return next(filter(is_file, self.of(name)), None)


def tidy(path: Path) -> Path:
    """Return a path that can be compared; links stay, so that they may lead to another disk."""
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps "..", Path.resolve follows links


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Say of an error in labels in which file they stand."""
    try:
        yield
    except InputError as error:
        raise InputError(asked_of(file), error.found, error.remedy, file=str(file)) from None


def asked_of(file: Path) -> str:
    """Return what is asked where the labels in a file are read."""
    return f"read the labels in {str(file)!r}"


def is_file(path: Path) -> bool:
    """Tell whether there is a file.

    Raises:
        InputError: If the system does not say, as of what is in a folder that may not be searched.

    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder.

    Raises:
        InputError: As `is_file`.

    """
    return stat.S_ISDIR(_mode(path))


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, by name, but for what is hidden.

    Raises:
        InputError: If it cannot be listed.

    """
    with looking_at(folder):
        return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))


def under(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what has a name of a pattern, in a folder and in those within it; of a folder that is not there, nothing.

    What is hidden is passed over: copies that Jupyter makes of pictures, and macOS' notes beside them ("._a.png").

    Raises:
        InputError: As `entries`.

    """
    if is_folder(folder):
        with looking_at(folder):
            yield from (found for found in folder.rglob(pattern) if not any(map(_is_hidden, _below(folder, found))))


def _below(folder: Path, found: Path) -> tuple[str, ...]:
    return found.relative_to(folder).parts


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def text_of(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return the text in a file.

    Raises:
        InputError: If it cannot be read, is larger, or is no UTF-8.

    """
    try:
        with file.open("rb") as opened:
            data = opened.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        found = getattr(error, "strerror", None) or "it cannot be read"
        raise InputError(asked_of(file), found, "Check the path and its permissions.") from error
    if len(data) > most_bytes:
        raise InputError(asked_of(file), f"it is larger than {most_bytes} bytes", "Divide it into several files.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(asked_of(file), "it is no UTF-8 text", "Save it as UTF-8.") from None


def _mode(path: Path) -> int:
    """Return what kind of thing is there, 0 for nothing."""
    with looking_at(path):
        try:
            return os.stat(path).st_mode  # noqa: PTH116  Path.is_file would be silent or not as Python's version has it
        except ValueError:  # a NUL, or half a surrogate pair
            return 0
        except OSError as error:
            if error.errno in _NOTHING:
                return 0
            raise


@contextlib.contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Say of an error of the system at which place it came, and that it is one of the input."""
    try:
        yield
    except OSError as error:
        found = error.strerror or "the system does not say"
        raise InputError(f"look at {str(path)!r}", found, "Check the path and its permissions.") from error
