"""A small network of convolutions on generated images; a recipe, for `numerics`."""

import torch
from torch import nn

from gpumarket.recipe import load_optimizer_state, optimizer_state


class Convolution:
    def __init__(self, config, data):
        self.model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GroupNorm(4, 32), nn.SiLU(), nn.Flatten(), nn.Linear(32 * 16 * 16, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)

    def step(self, i):
        images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": optimizer_state(self.optimizer, self.model)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
