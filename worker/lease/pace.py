"""How long the next checkpoint will take. Pure."""

HANG_STEPS = 10  # as long as so many steps take, no step takes
HANG_SHARE = 0.25  # of a checkpoint's timeout: a shorter silence may be the writing of a checkpoint


class Pace:
    """Estimates from the steps of one run. Times are seconds of any one clock."""

    def __init__(self, checkpoint_every: int, started: float, first: int = 1) -> None:
        """The run starts with checkpoint `first`."""
        self._every = checkpoint_every
        self._start_step, self._started = (first - 1) * checkpoint_every, started
        self._step, self._at = self._start_step, started
        self._heard = started
        self._due = first * checkpoint_every  # the step that ends the checkpoint in the making

    def step(self, step: int, now: float) -> None:
        """Training step `step` is done."""
        self._step, self._at = step, now
        self._heard = now

    def checkpoint(self, index: int, now: float) -> None:
        """Checkpoint `index` is made; its last step was done some time before."""
        self._due = (index + 1) * self._every
        self._heard = now

    def held(self, seconds: float) -> None:
        """So long nothing was to be done."""
        self._started += seconds
        self._at += seconds
        self._heard += seconds

    def seconds_left(self, now: float) -> float | None:
        """To the end of the last step of the checkpoint in the making; None before the first step is done."""
        per_step = self._per_step()
        return None if per_step is None else max(0.0, (self._due - self._step) * per_step - (now - self._at))

    def checkpoint_seconds(self) -> float | None:
        """For all steps of one checkpoint; None before the first step is done."""
        per_step = self._per_step()
        return None if per_step is None else self._every * per_step

    def hang(self, now: float, timeout: float) -> float | None:
        """Seconds of silence, if that is no slow step any more but a hang; a checkpoint has `timeout` seconds."""
        silence = now - self._heard
        usual = self._per_step() or timeout / self._every
        return silence if silence > max(HANG_STEPS * usual, HANG_SHARE * timeout) else None

    def _per_step(self) -> float | None:
        done = self._step - self._start_step
        return (self._at - self._started) / done if done else None
