"""Disks that stop at a step: by killing the process, or by refusing everything from then on."""

import os
import signal

from hydra_detect.storage.disk import Disk

STEPS = (
    "make_folder", "create", "write", "sync", "sync_folder", "link", "rename", "replace", "unlink", "remove_folder",
)  # fmt: skip


class Stopped(BaseException):
    """The process is dead: no `except Exception` and no clean-up of the library's may bring it back."""


class CountingDisk:
    """A disk that counts its steps, and stops before step number `at`; half a write is a step of its own."""

    def __init__(self, at=0, disk=None):
        self.disk, self.at, self.count, self.log = disk or Disk(), at, 0, []

    def __getattr__(self, name):
        if name not in STEPS:
            raise AttributeError(name)
        real = getattr(self.disk, name)

        def step(*arguments):
            self.tick(name)
            if name == "write":
                descriptor, data = arguments
                half = len(data) // 2
                if half:
                    real(descriptor, data[:half])
                    self.tick("half a write")
                    return real(descriptor, data[half:])
            return real(*arguments)

        return step

    def tick(self, name):
        """Count a step, and stop if it is the one."""
        self.count += 1
        self.log.append(name)
        if self.count == self.at:
            self.stop()

    def stop(self):
        """Do what is done at the step; nothing here."""


class KillingDisk(CountingDisk):
    """Kills the process, as the system does when memory runs out."""

    def stop(self):
        """Kill."""
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingDisk(CountingDisk):
    """Stops without killing: from the step on nothing reaches the disk any more."""

    def tick(self, name):
        """Count a step; refuse it and all later ones from the stop on."""
        self.count += 1
        self.log.append(name)
        if self.at and self.count >= self.at:
            raise Stopped


def killed(work, at):
    """Run `work(disk)` in a child that is killed at a step; return "killed", "done" or "refused".

    Raises:
        AssertionError: If it failed with anything but one of our errors.

    """
    from hydra_detect.errors import HydraDetectError

    child = os.fork()
    if not child:
        code = 70
        try:
            work(KillingDisk(at))
            code = 0
        except HydraDetectError:
            code = 60
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return "killed"
    code = os.WEXITSTATUS(status)
    assert code in {0, 60}, f"the child failed at step {at}"
    return "done" if code == 0 else "refused"
