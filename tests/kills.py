"""Processes that are killed at a chosen call to the file system, or made to fail there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

CALLS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir", "shutil.copyfile"}
CALLS |= {"shutil.rmtree", "fcntl.flock", "ctypes.dlsym", "ctypes.dlsym/handle", "tempfile.mkstemp", "tempfile.mkdtemp"}


class Calls:
    """Counts this process's calls to the file system; in front of the `limit`-th, `then` is called. Hooks stay for good."""

    def __init__(self, limit: int, then: Callable[[], None]) -> None:
        self.count, self.limit, self.then = 0, limit, then
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: object) -> None:
        if event in CALLS:
            self.count += 1
            if self.count == self.limit:
                self.then()


def run_and_kill(work: Callable[[], object], at_call: int = 0, after_seconds: float = 0.0) -> bool:
    """Run `work` in a child, which is killed at a call, or after a time; whether it was. What it raises is raised here."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kill_self = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            if after_seconds:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, after_seconds)  # its default action ends the process like a kill
            Calls(at_call, kill_self)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError("the work failed")
    return os.WIFSIGNALED(status)
