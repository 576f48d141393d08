"""A small convolutional network that learns to read 8 x 8 handwritten digits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gpumarket.recipe import load_optimizer_state, optimizer_state


class Digits:
    def __init__(self, config: dict[str, Any], data: Mapping[str, Path]) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch_size = config["batch_size"]
        with np.load(data["digits.npz"]) as digits:
            # Pixels are 0 .. 16; the last `held_out` images are for the accuracy, never trained on.
            images = torch.from_numpy(digits["images"]).float()[:, None] / 16
            labels = torch.from_numpy(digits["labels"]).long()
        held_out = config["held_out"]
        self.images, self.labels = images[:-held_out].to(self.device), labels[:-held_out].to(self.device)
        self.test = images[-held_out:].to(self.device), labels[-held_out:].to(self.device)
        self.accuracy_every = config["accuracy_every"]

        width = config["width"]
        self.model = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Dropout(config["dropout"]),
            nn.Flatten(),
            nn.Linear(2 * width * 4 * 4, 10),
        ).to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=0.9)

    def step(self, i: int) -> dict[str, float]:
        self.model.train()
        # Generators are seeded before each step: this batch, and the dropout, are functions of i.
        batch = torch.randint(len(self.images), (self.batch_size,)).to(self.device)
        loss = F.cross_entropy(self.model(self.images[batch]), self.labels[batch])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        metrics = {"loss": loss.item()}
        if i % self.accuracy_every == 0:
            metrics["accuracy"] = self.accuracy()
        return metrics

    @torch.no_grad()
    def accuracy(self) -> float:
        self.model.eval()
        images, labels = self.test
        return (self.model(images).argmax(1) == labels).float().mean().item()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
