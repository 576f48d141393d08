"""The folder that a recipe writes to. What lies there is a stranger's: no link is followed, and no size believed."""

import contextlib
import os
import stat
import subprocess
from pathlib import Path

from worker.sandbox.bubblewrap import scratch_folder
from worker.training.failures import Failure, is_full


class OutputFolder:
    """`out` in a run's folder, made anew. What is taken from it then lies beside it, out of the recipe's reach."""

    def __init__(self, run: Path) -> None:
        self._run, self.path = run, run / "out"
        self.remove()
        self.path.mkdir(parents=True)

    def remove(self) -> None:
        """What the process wrote, however deep or closed to us it made its folders."""
        for folder in (self.path, scratch_folder(self.path)):
            if os.path.lexists(folder):
                subprocess.run(["chmod", "-R", "u+rwX", folder], stderr=subprocess.DEVNULL)
                subprocess.run(["rm", "-rf", "--one-file-system", folder], stderr=subprocess.DEVNULL)

    def take(self, name: str, limit: int) -> Path:
        """Copies a file, which may still be open. Raises OSError if this machine's disk is full."""
        target = self._run / name
        partial = target.with_name(name + ".partial")
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:  # what holds the folder is ours, but its permissions are the recipe's
            raise Failure("protocol", f"can't open the output folder: {error.strerror}") from error
        try:
            _copy(folder, name, partial, limit)
            os.replace(partial, target)
        except Failure:
            partial.unlink(missing_ok=True)
            raise
        except OSError as error:
            partial.unlink(missing_ok=True)
            if is_full(error):
                raise
            raise Failure("protocol", f"can't take {name} from the output folder: {error.strerror}") from error
        finally:
            os.close(folder)
        return target

    def drop(self, *names: str) -> None:
        """Deletes files; a process that put a folder in their place has to live with it."""
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(self.path / name)


def _copy(folder: int, name: str, target: Path, limit: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with open(source, "rb") as file, open(target, "wb") as copy:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise Failure("protocol", f"{name} is not a file")
        left = limit
        while data := file.read(min(left + 1, 1 << 20)):
            left -= len(data)
            if left < 0:
                raise Failure("disk", f"{name} has over {limit} bytes")
            copy.write(data)
        copy.flush()
        os.fsync(copy.fileno())
