"""Recipes that stop and go on: ports of real scripts that must be exact, and each usual cause why one is not."""

import os
import random
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from worker.state import load_optimizer_state, optimizer_state


class Momentum:
    """What the others vary: a model, and an optimizer whose state is saved."""

    dtype = torch.float32

    def __init__(self, config, data):
        self.model = nn.Linear(8, 8).to(self.dtype)
        self.opt = self.optimizer()

    def optimizer(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def batch(self, i):
        return torch.randn(4, 8, dtype=self.dtype)

    def loss(self, i):
        return self.model(self.batch(i)).float().square().mean()

    def step(self, i):
        loss = self.loss(i)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return {"loss": loss}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": optimizer_state(self.opt, self.model)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.opt, self.model, state["optimizer"])


# ------------------------------------------------------------------ exact


class CountingAdam(torch.optim.Optimizer):
    """Counts its steps in a Python int, as older AdamWs do."""

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            s = self.state[p]
            if not s:
                s["step"], s["m"], s["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
            s["step"] += 1
            s["m"].lerp_(p.grad, 0.1)
            s["v"].lerp_(p.grad * p.grad, 0.001)
            size = 1e-3 * (1 - 0.999 ** s["step"]) ** 0.5 / (1 - 0.9 ** s["step"])
            p.addcdiv_(s["m"], s["v"].sqrt().add_(1e-8), value=-size)


class WideAdam(torch.optim.Optimizer):
    """Keeps its moments in float32 beside weights in bfloat16, and what holds for all parameters beside theirs."""

    @torch.no_grad()
    def step(self):
        self.state["steps"] = self.state.get("steps", 0) + 1
        for p in self.param_groups[0]["params"]:
            s, g = self.state[p], p.grad.float()
            if not s:
                s["m"], s["v"], s["last"] = torch.zeros_like(g), torch.zeros_like(g), None
            s["m"].lerp_(g, 0.1)
            s["v"].lerp_(g * g, 0.01)
            p.add_((-1e-3 * s["m"] / (s["v"].sqrt() + 1e-8) / self.state["steps"]).to(p.dtype))


class IntStep(Momentum):
    def optimizer(self):
        return CountingAdam(self.model.parameters(), {"lr": 1e-3})


class WideMoments(Momentum):
    dtype = torch.bfloat16

    def optimizer(self):
        return WideAdam(self.model.parameters(), {"lr": 1e-3})


class PlainMilestones(Momentum):
    """MultiStepLR put back by its counter, which must be a number to be among the milestones."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.sched = torch.optim.lr_scheduler.MultiStepLR(self.opt, milestones=[15], gamma=0.1)

    def step(self, i):
        metrics = super().step(i)
        self.sched.step()
        return metrics | {"lr": self.opt.param_groups[0]["lr"]}

    def state_dict(self):
        return super().state_dict() | {"last_epoch": self.sched.last_epoch}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.sched.last_epoch = state["last_epoch"]


class WholeSchedule(PlainMilestones):
    """The scheduler's own state_dict, with its Counter of milestones and lists of rates."""

    def state_dict(self):
        return Momentum.state_dict(self) | {"sched": self.sched.state_dict()}

    def load_state_dict(self, state):
        Momentum.load_state_dict(self, state)
        self.sched.load_state_dict(state["sched"])


class NumpyBest(Momentum):
    """Keeps the best mean loss, which numpy computed."""

    best = float("inf")

    def step(self, i):
        metrics = super().step(i)
        self.best = min(self.best, np.mean([metrics["loss"].item()]))
        return metrics | {"best": self.best}

    def state_dict(self):
        return super().state_dict() | {"best": self.best}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.best = state["best"]


class NumpyBestAsFloat(NumpyBest):
    """Takes it up as a float, which it is not in a run without interruption."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.best = state["best"].item()


class Scaled(Momentum):
    """AMP's GradScaler, by its own state_dict: floats and an int."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3)

    def step(self, i):
        loss = self.loss(i)
        self.opt.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.opt)
        self.scaler.update()
        return {"loss": loss, "scale": self.scaler.get_scale()}

    def state_dict(self):
        return super().state_dict() | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.scaler.load_state_dict(state["scaler"])


class SavedGenerators(Momentum):
    """Generators of its own, all in the state: integers beyond 64 bits, a tuple of hundreds, bytes."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.python, self.numpy, self.torch = random.Random(1), np.random.default_rng(2), torch.Generator()

    def batch(self, i):
        x = torch.randn(4, 8, generator=self.torch)
        return x + self.python.gauss() + float(self.numpy.normal())

    def state_dict(self):
        own = {"python": self.python.getstate(), "numpy": self.numpy.bit_generator.state}
        return super().state_dict() | own | {"torch": self.torch.get_state()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.python.setstate(state["python"])
        self.numpy.bit_generator.state = state["numpy"]
        self.torch.set_state(state["torch"])


class TiedAverage(Momentum):
    """One tensor under two names: what is added to it by one is seen by the other."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.mean = self.shown = torch.zeros(8)

    def step(self, i):
        metrics = super().step(i)
        self.mean.add_(self.model.bias.detach())
        return metrics | {"mean": self.shown.sum()}

    def state_dict(self):
        return super().state_dict() | {"mean": self.mean, "shown": self.shown}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.mean, self.shown = state["mean"], state["shown"]


class AsksForTensors(Momentum):
    """Signed when numbers came back as tensors."""

    seen = 0

    def step(self, i):
        self.seen += 1
        return super().step(i) | {"seen": self.seen}

    def state_dict(self):
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.seen = state["seen"].item()


class FlatBuffer(Momentum):
    """Its parameters are views of one buffer, which is in the state as well: each is put back by copying into it."""

    def __init__(self, config, data):
        super().__init__(config, data)
        parameters = list(self.model.parameters())
        self.flat = torch.cat([one.detach().reshape(-1) for one in parameters])
        for one, part in zip(parameters, self.flat.split([one.numel() for one in parameters]), strict=True):
            one.data = part.view_as(one)

    def step(self, i):
        self.flat.mul_(0.99)
        return super().step(i)

    def state_dict(self):
        return super().state_dict() | {"flat": self.flat, "turned": self.model.weight.T}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.flat.copy_(state["flat"])


class CountsKinds(Momentum):
    """Counters that grow at a step where a plain dict would raise."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.seen = Counter()

    def step(self, i):
        self.seen[i // 3] += 1
        return super().step(i) | {"seen": len(list(self.seen.elements()))}

    def state_dict(self):
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.seen = state["seen"]


EXACT = (
    "Momentum", "IntStep", "WideMoments", "PlainMilestones", "WholeSchedule", "NumpyBest", "Scaled",
    "SavedGenerators", "TiedAverage", "AsksForTensors", "FlatBuffer", "CountsKinds",
)  # fmt: skip


# ------------------------------------------------------------------ not exact, each for a cause of its own


class Accumulates(Momentum):
    """Exact after each fourth step, as its gradients are not in the state."""

    period = 4

    def step(self, i):
        loss = self.loss(i)
        (loss / self.period).backward()
        if i % self.period == 0:
            self.opt.step()
            self.opt.zero_grad()
        return {"loss": loss}


class AccumulatesBeyond(Accumulates):
    """No checkpoint of 10 steps ends with its periods."""

    period = 3


class OptimizerLeftOut(Momentum):
    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])


class NeverGoesOn(Momentum):
    """Prints what it does, and fails only where it goes on from a state."""

    def step(self, i):
        print(f"trains step {i}")
        return super().step(i)

    def load_state_dict(self, state):
        print("looks for its schedule")
        raise KeyError("schedule")


class OwnTorchGenerator(Momentum):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.generator = torch.Generator().manual_seed(3)

    def batch(self, i):
        return torch.randn(4, 8, generator=self.generator)


class OwnNumpyGenerator(Momentum):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.generator = np.random.default_rng(3)

    def batch(self, i):
        return torch.from_numpy(self.generator.normal(size=(4, 8))).float()


class OwnPythonRandom(Momentum):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.random = random.Random(3)

    def batch(self, i):
        return torch.full((4, 8), self.random.random())


class ShufflingLoader(Momentum):
    def __init__(self, config, data):
        super().__init__(config, data)
        examples = TensorDataset(torch.randn(64, 8))
        self.batches = iter(DataLoader(examples, batch_size=1, shuffle=True))

    def batch(self, i):
        return next(self.batches)[0]


class ScheduleLeftOut(PlainMilestones):
    """Its counter starts anew, so that the rate falls too late."""

    def state_dict(self):
        return Momentum.state_dict(self)

    def load_state_dict(self, state):
        Momentum.load_state_dict(self, state)


class ScalerLeftOut(Scaled):
    def state_dict(self):
        return Momentum.state_dict(self)

    def load_state_dict(self, state):
        Momentum.load_state_dict(self, state)


class Urandom(Momentum):
    def batch(self, i):
        return torch.full((4, 8), int.from_bytes(os.urandom(2), "big") / 65536)


class UrandomStart(Momentum):
    """Random where it begins, and nowhere else: each run is another, though each goes on exactly."""

    def __init__(self, config, data):
        super().__init__(config, data)
        with torch.no_grad():
            self.model.weight.fill_(int.from_bytes(os.urandom(2), "big") / 65536)


class UrandomWeights(Momentum):
    def step(self, i):
        with torch.no_grad():
            self.model.weight += float(int.from_bytes(os.urandom(2), "big"))
        return super().step(i)
