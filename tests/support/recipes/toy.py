"""Recipes for tests: small, and made to show what goes wrong. Copied into a job's folder as recipe.py."""

import contextlib
import os
import random
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn

from worker.training.optimizers import load_optimizer_state, optimizer_state


class Toy:
    """Uses every generator, dropout, a schedule, and an optimizer with state."""

    def __init__(self, config, data):
        self.config, self.data = config, data
        self.model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 16))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.seen = 0

    def step(self, i):
        self.seen += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 / i
        x = torch.randn(8, 16) + random.random() + float(np.random.rand())
        loss = (self.model(x) - x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "seen": self.seen}

    def state_dict(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "seen": self.seen,
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        self.seen = int(state["seen"])


class Forgetful(Toy):
    """Does not restore its optimizer."""

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])


class ImportsSibling(Toy):
    def __init__(self, config, data):
        super().__init__(config, data)
        import sibling  # noqa: F401


class At(Toy):
    """Does something bad at step `config["at"]`."""

    def step(self, i):
        # Step 1 is run once more, before training, to count its work.
        if i == self.config["at"]:
            return self.bad(i)
        return super().step(i)


class Raises(At):
    def bad(self, i):
        raise ValueError(f"no luck at step {i}")


class Exits(At):
    def bad(self, i):
        sys.exit(0)


class NotFinite(At):
    def bad(self, i):
        return {"loss": float("nan")}


class NoMetrics(At):
    def bad(self, i):
        return 0.5


class Hangs(At):
    def bad(self, i):
        time.sleep(3600)


class Dies(At):
    def bad(self, i):
        print("last words", flush=True)
        os._exit(7)


class EatsMemory(At):
    def bad(self, i):
        return {"loss": torch.ones(1 << 40).sum().item()}


class EatsMemoryBitByBit(At):
    def bad(self, i):
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))


class LeavesAProcess(At):
    def bad(self, i):
        command = ["/usr/bin/setsid", "/usr/bin/sleep", self.config["sleep"]]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return Toy.step(self, i)


class Chatty(At):
    def bad(self, i):
        print("first line")
        print("x" * 1_000_000)
        os.write(1, b'{"type": "done"}\n')
        print("last line", flush=True)
        return Toy.step(self, i)


class Lies(At):
    """Finds the pipe to the worker, and writes to it."""

    def bad(self, i):
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                    os.write(fd, self.config["line"].encode() + b"\n")
        time.sleep(3600)
