"""A recipe that prints in each step: by itself, by a program that it starts, and through C's own buffer."""

import ctypes
import os
import subprocess
import time

import torch
from torch import nn

LIBC = ctypes.CDLL(None)


class Prints:
    def __init__(self, config, data):
        self.config, self.model = config, nn.Linear(4, 4)

    def step(self, i):
        time.sleep(self.config["pause"])
        print(f"{os.getpid()} step {i} {'.' * 300}")
        subprocess.run(["/bin/echo", f"{os.getpid()} echo {i}"], check=True)
        LIBC.puts(f"{os.getpid()} puts {i}".encode())
        if i == self.config.get("fail_at"):
            print("the secret word is swordfish", flush=True)
            raise ValueError("swordfish is the secret word")
        return {"loss": self.model(torch.randn(2, 4)).sum().item()}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
