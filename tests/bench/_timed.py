"""chargpt that watches the clock between its steps; a recipe, which runs in the sandbox beside recipe.py."""

import time

from recipe import CharGPT


class Timed(CharGPT):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.gaps, self.began, self.ended = [], None, None

    def step(self, i):
        now = time.time()
        self.began = self.began or now
        self.gaps = [*self.gaps, now - self.ended][-self.config["every"] :] if self.ended else []
        super().step(i)
        self.ended = time.time()
        # The longest gap is the one after a checkpoint; the others are the trace's.
        gaps = {"stall": max(self.gaps), "gap": min(self.gaps)} if self.gaps else {}
        return gaps | {"began": self.began, "ended": self.ended}
