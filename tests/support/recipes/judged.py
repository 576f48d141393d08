"""A recipe that is evaluated at each checkpoint, and may start from given weights. All of it is a function of i."""

import time

import torch
from torch import nn

from worker.training.optimizers import load_optimizer_state, optimizer_state


class Judged:
    """`config["judged"]` lists what evaluate() says at the checkpoints, the last of them for all that follow."""

    def __init__(self, config, data):
        self.config, self.data = config, data
        self.model = nn.Linear(16, 16)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.seen = 0

    def step(self, i):
        time.sleep(self.config.get("pause", 0))
        self.seen = i
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 / i
        x = torch.randn(8, 16)
        loss = (self.model(x) - x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        print(f"step {i} done")
        return {"loss": loss.item()}

    def evaluate(self):
        judged = self.config["judged"]
        return {"loss": judged[min(self.seen // 4, len(judged)) - 1], "bias": self.model.bias.sum()}

    def load_weights(self, tensors):
        self.model.load_state_dict(tensors)

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


class Meddles(Judged):
    def evaluate(self):
        self.model.bias.zero_()
        return {"loss": 1.0}
