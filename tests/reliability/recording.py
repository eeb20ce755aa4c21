"""A disk that notes its steps, as strace would see them."""

import os
from pathlib import Path

from hydra_detect.storage.disk import Disk


class RecordingDisk(Disk):
    """Does each step, and notes the system call that it has to be, with its path."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "steps", [])

    def _note(self, kind, path):
        self.steps.append([kind, os.fspath(path)])

    def _note_open(self, kind, descriptor):
        self._note(kind, Path(f"/proc/self/fd/{descriptor}").readlink())

    def make_folder(self, path):
        """Note and do it."""
        self._note("mkdir", path)
        super().make_folder(path)

    def create(self, path, mode):
        """Note and do it."""
        self._note("create", path)
        return super().create(path, mode)

    def write(self, descriptor, data):
        """Note and do it; what fits into memory here is one call."""
        self._note_open("write", descriptor)
        super().write(descriptor, data)

    def sync(self, descriptor):
        """Note and do it; a folder's sync ends here too."""
        self._note_open("fsync", descriptor)
        super().sync(descriptor)

    def link(self, path, target):
        """Note and do it."""
        self._note("link", path)
        super().link(path, target)

    def rename(self, path, target):
        """Note and do it."""
        self._note("rename", path)
        super().rename(path, target)

    def replace(self, path, target):
        """Note and do it."""
        self._note("rename", path)
        super().replace(path, target)

    def unlink(self, path):
        """Note and do it."""
        self._note("unlink", path)
        super().unlink(path)

    def remove_folder(self, path):
        """Note and do it."""
        self._note("rmdir", path)
        super().remove_folder(path)
