"""Recipes that do in step 2 what works at home, and not in a sandbox; and one that scales its loss."""

import os
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import torch
from torch import nn


class AtHome:
    def __init__(self, config, data):
        self.config, self.data, self.model = config, data, nn.Linear(4, 4)

    def step(self, i):
        if i == 2:
            getattr(self, self.config["does"])()
        return {"loss": self.model(torch.randn(2, 4)).sum().item()}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])

    def opens_a_file(self):
        Path("/home/me/train.bin").read_bytes()

    def opens_a_file_of_the_job(self):
        Path("/home/me/recipe.py").read_bytes()

    def downloads(self):
        urllib.request.urlopen("https://huggingface.co/gpt2")

    def connects(self):
        socket.create_connection(("10.1.2.3", 80), timeout=5)

    def writes(self):
        Path("/usr/share/notes.txt").write_text("x")

    def makes_a_folder_at_home(self):
        os.makedirs("/home/me/.cache/torch")

    def imports(self):
        import transformers_of_mine  # noqa: F401

    def runs_a_program(self):
        subprocess.run(["nvidia-smi-of-mine"])

    def starts_threads(self):
        for _ in range(500):
            threading.Thread(target=threading.Event().wait, daemon=True).start()

    def asks(self):
        input("go on? ")

    def looks_for_a_variable(self):
        os.environ["WANDB_API_KEY"]

    def fills_memory_folder(self):
        for number in range(20):
            with open(f"/dev/shm/{number}", "wb") as file:
                file.write(bytes(30 << 20))

    def fails_of_itself(self):
        self.model(torch.randn(2, 5))


class Scaled:
    """Loss scaling from 2**16: the first step overflows, is skipped, and reports an infinite gradient norm."""

    def __init__(self, config, data):
        self.model, self.scale = nn.Linear(8, 8), 2.0**16

    def step(self, i):
        loss = self.model(torch.randn(4, 8)).square().mean() * 10
        self.model.zero_grad()
        (loss * self.scale).backward()
        grads = [p.grad.to(torch.float16).float() for p in self.model.parameters()]
        norm = torch.stack([g.norm() for g in grads]).norm() / self.scale
        if not torch.isfinite(norm):
            self.scale /= 2
        return {"loss": loss, "grad_norm": norm}

    def state_dict(self):
        return {"model": self.model.state_dict(), "scale": self.scale}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.scale = state["scale"]
