"""A recipe that takes its time: config["pause"] seconds a step.

It may fail at step config["fail_at"], or hang at step config["hang_at"].
"""

import time

import torch
from torch import nn

from worker.training.optimizers import load_optimizer_state, optimizer_state


class Slow:
    def __init__(self, config, data):
        self.config = config
        self.model = nn.Linear(64, 64)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def step(self, i):
        # Each one, also the first: a quick step before slow ones would make those look like a hang.
        time.sleep(self.config["pause"])
        if i == self.config.get("hang_at"):
            time.sleep(3600)
        if i == self.config.get("fail_at"):
            raise ValueError(f"no luck at step {i}")
        x = torch.randn(32, 64)
        loss = (self.model(x) - x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": optimizer_state(self.optimizer, self.model)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
