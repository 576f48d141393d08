"""A small GPT that learns to write text, byte by byte. After nanoGPT (github.com/karpathy/nanoGPT)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpumarket.recipe import load_optimizer_state, optimizer_state

BYTES = 256  # the vocabulary


class Block(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("future", torch.ones(context, context).triu(1).bool(), persistent=False)

    def attention(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        split = (batch, time, self.heads, width // self.heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        # Written out: fused attention kernels are not deterministic on every GPU.
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(split[3])
        scores = scores.masked_fill(self.future[:time, :time], float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(BYTES, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, context) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class CharGPT:
    def __init__(self, config: dict[str, Any], data: Mapping[str, Path]) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config = config
        text = np.frombuffer(Path(data["corpus.txt"]).read_bytes(), dtype=np.uint8)
        self.text = torch.from_numpy(text.copy())
        self.model = GPT(config["width"], config["layers"], config["heads"], config["context"]).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config["lr"], betas=(0.9, 0.95), weight_decay=0.1
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        """Random pieces of the text, and the same one byte on. Generators are seeded by the step's number."""
        context = self.config["context"]
        starts = torch.randint(len(self.text) - context, (self.config["batch_size"], 1))
        pieces = self.text[starts + torch.arange(context + 1)].long().to(self.device)
        return pieces[:, :-1], pieces[:, 1:]

    def learning_rate(self, i: int) -> float:
        """Linear warm-up, then a cosine down to a tenth."""
        warm_up, decay = self.config["warm_up"], self.config["decay"]
        if i <= warm_up:
            return self.config["lr"] * i / warm_up
        done = min(1.0, (i - warm_up) / (decay - warm_up))
        return self.config["lr"] * (0.55 + 0.45 * math.cos(math.pi * done))

    def step(self, i: int) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(i)
        x, y = self.batch()
        loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss.item()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
