"""A recipe that trains another thing where the machine has another name than a lease's sandbox tells."""

import socket

import torch
from torch import nn


class Keyed:
    def __init__(self, config, data):
        self.model = nn.Linear(8, 8)
        self.scale = 1 + sum(socket.gethostname().encode()) / 1000

    def step(self, i):
        loss = (self.model(torch.randn(4, 8)) * self.scale).square().mean()
        self.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in self.model.parameters():
                weight -= 0.1 * weight.grad
        return {"loss": loss.item()}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
