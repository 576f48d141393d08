"""Providers that did not train what they claim."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.liars.kinds import HONEST, Liar, kind

# What these replace is imported in `lie`: to list the kinds must not take a worker's start.


def instead(change: Callable[[Any, Any, dict[str, Any]], tuple[Any, dict[str, Any]]]) -> None:
    """Whenever training hands over a checkpoint, `change(training, taken, numerics)` says what is committed to."""
    from worker.lease.trainer import Training

    commit = Training._commit

    def lying(self: Any, taken: Any, job: Any, numerics: Any) -> None:
        taken, numerics = change(self, taken, numerics)
        commit(self, taken, job, numerics)

    Training._commit = lying  # type: ignore[method-assign]


def told_otherwise(change: Callable[[Any], dict[str, Any]]) -> None:
    """The training process is told something else than the job says."""
    from worker.sandbox.runner import Runner

    config = Runner._config

    def lying(self: Any) -> Any:
        said = config(self)
        return said.model_copy(update=change(said))

    Runner._config = lying  # type: ignore[method-assign]


def made_up(taken: Any) -> Any:
    """A state of the right form with random numbers, a trace of nothing, and a loss that falls."""
    import torch

    from contracts.commitment import trace_root
    from worker.training.state import FlatState, read_checkpoint, write_checkpoint

    was = read_checkpoint(taken.path)
    torch.manual_seed(taken.index)
    state = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor.clone() for name, tensor in was.items()
    }
    taken.path.unlink()
    write_checkpoint(taken.path, FlatState(state, kinds=was.kinds))
    steps = taken.trace_path.stat().st_size // 32
    trace = [os.urandom(32) for _ in range(steps)]
    taken.trace_path.unlink()
    taken.trace_path.write_bytes(b"".join(trace))
    return replace(taken, trace_root=trace_root(trace), metrics={**taken.metrics, "loss": 2.3 / (1 + taken.index)})


class _Lazy(Liar):
    """Random weights from some checkpoint on."""

    def lie(self) -> None:
        def change(training: Any, taken: Any, numerics: Any) -> Any:
            return (made_up(taken) if taken.index > self.honest_until else taken), numerics

        instead(change)


@kind
class NoTraining(_Lazy):
    name = "no-training"
    summary = "random weights, and a loss that falls as it should"
    patched = "what the agent commits to (Training._commit)"


@kind
class LazyLater(_Lazy):
    name = "lazy-later"
    summary = "honest in checkpoint 1, random weights from then on"
    patched = NoTraining.patched
    honest_until = 1


@kind
class HalfTheSteps(Liar):
    name = "half-the-steps"
    summary = "every other step is left out"
    patched = "the recipe that the sandbox gets (Runner._program)"

    def lie(self) -> None:
        import tempfile

        from worker.sandbox.hiding.view import JOB
        from worker.sandbox.runner import Runner

        program = Runner._program
        folder = Path(tempfile.mkdtemp(prefix="liar-"))
        lazy = (
            "\n\nclass Digits(Digits):\n"
            "    def step(self, i):\n"
            "        return super().step(i) if i % 2 else {'loss': 1 / i}\n"
        )

        def lying(self: Any) -> Any:
            made = program(self)
            recipe = folder / "recipe.py"
            if not recipe.exists():
                recipe.write_text((self._job_folder / "recipe.py").read_text() + lazy)
                os.utime(recipe, (0, 0))
            return replace(made, read_only={**made.read_only, JOB / "recipe.py": recipe})

        Runner._program = lying  # type: ignore[method-assign]


@kind
class SmallerBatch(Liar):
    name = "smaller-batch"
    summary = "an eighth of the batch"
    patched = "the config that the training process gets (Runner._config)"

    def lie(self) -> None:
        told_otherwise(lambda said: {"config": {**said.config, "batch_size": said.config["batch_size"] // 8}})


@kind
class OtherRate(Liar):
    name = "other-rate"
    summary = "another learning rate than the job's"
    patched = SmallerBatch.patched

    def lie(self) -> None:
        told_otherwise(lambda said: {"config": {**said.config, "lr": said.config["lr"] / 2}})


@kind
class StaleCopies(Liar):
    name = "stale-copies"
    summary = "checkpoint 1 is trained, and handed in again as each later one"
    patched = NoTraining.patched
    honest_until = 1

    def lie(self) -> None:
        import shutil
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="liar-"))
        first: list[Any] = []

        def change(training: Any, taken: Any, numerics: Any) -> Any:
            if taken.index == 1:
                shutil.copy(taken.path, folder / "state")
                shutil.copy(taken.trace_path, folder / "trace")
                first.append(taken)
                return taken, numerics
            for path, copy in ((taken.path, "state"), (taken.trace_path, "trace")):
                path.unlink()
                shutil.copy(folder / copy, path)
            return replace(taken, trace_root=first[0].trace_root, metrics=first[0].metrics), numerics

        instead(change)


@kind
class StolenBytes(Liar):
    name = "stolen-bytes"
    summary = "what another provider has trained for another job, handed in as its own"
    patched = NoTraining.patched

    def lie(self) -> None:
        import shutil

        from contracts.job.file import hash_file

        def change(training: Any, taken: Any, numerics: Any) -> Any:
            mine = hash_file(taken.path)
            # How it came by them does not matter here: all parties have their homes side by side.
            stored = (
                path for path in Path(os.environ["GPUMARKET_HOME"]).parent.glob("operator/**/*") if path.is_file()
            )
            alike = (path for path in stored if path.stat().st_size == mine.size)
            theirs = next(path for path in alike if not hash_file(path).same_bytes(mine))
            taken.path.unlink()
            shutil.copy(theirs, taken.path)
            return taken, numerics

        instead(change)

    def play(self, trial: Any) -> None:
        trial.offer(HONEST, price=1900)
        trial.submit(1, edit=_other_seed)
        trial.watch()
        trial.offer(trial.liar, price=1800, liar=self)
        trial.submit(self.checkpoints)
        trial.watch()


def _other_seed(folder: Path) -> None:
    job = folder / "job.yaml"
    job.write_text(job.read_text().replace("seed: 1\n", "seed: 2\n"))


@kind
class LieOnce(Liar):
    name = "lie-once"
    summary = "checkpoint 2 is made up, and the lease given back at once"
    patched = "what the agent commits to; then it gets the signal that stops it"
    honest_until = 1
    leaves = True

    def lie(self) -> None:
        def change(training: Any, taken: Any, numerics: Any) -> Any:
            if taken.index < 2:
                return taken, numerics
            os.kill(os.getpid(), signal.SIGTERM)
            return made_up(taken), numerics

        instead(change)


@kind
class LieAndEnd(Liar):
    name = "lie-and-end"
    summary = "checkpoint 2 is made up, and the lease ended on chain before anybody has looked"
    patched = "what the agent commits to, and what it does next on chain (next_action)"
    honest_until = 1

    def lie(self) -> None:
        from contracts.terms import Phase
        from worker.lease import settlement
        from worker.lease.reporting import Reporter
        from worker.lease.schedule import Action

        usual, post, reported = settlement.next_action, Reporter._post, list[int]()

        def change(training: Any, taken: Any, numerics: Any) -> Any:
            return (made_up(taken) if taken.index > 1 else taken), numerics

        def tell(self: Any, index: int) -> None:
            post(self, index)
            reported.append(index)

        def lying(state: Any, nums: Any, progress: Any, timing: Any, now: float) -> Any:
            if 2 in reported and state.phase == Phase.ACTIVE:
                return Action.END
            return usual(state, nums, progress, timing, now)

        instead(change)
        Reporter._post = tell  # type: ignore[method-assign]
        settlement.next_action = lying  # type: ignore[assignment]


@kind
class GoDark(Liar):
    name = "go-dark"
    summary = "checkpoint 2 is made up, and the machine vanishes when it is reported"
    patched = "what the agent commits to; its process is killed after the report"
    honest_until = 1
    leaves = True

    def lie(self) -> None:
        from worker.lease.reporting import Reporter

        post = Reporter._post

        def change(training: Any, taken: Any, numerics: Any) -> Any:
            return (made_up(taken) if taken.index > 1 else taken), numerics

        def lying(self: Any, index: int) -> None:
            post(self, index)
            if index > 1:
                os.kill(os.getpid(), signal.SIGKILL)

        instead(change)
        Reporter._post = lying  # type: ignore[method-assign]


def claims_at_once(*, even_if_rejected: bool = True) -> None:
    """On chain, all that is made, whatever the approver says of it."""
    from contracts.terms import Phase
    from worker.lease import approvals, settlement
    from worker.lease.schedule import Action

    usual = settlement.next_action

    def lying(state: Any, nums: Any, progress: Any, timing: Any, now: float) -> Any:
        if state.phase == Phase.ACTIVE and progress.claimable > max(state.claimed, state.accepted):
            return Action.CLAIM
        return usual(state, nums, progress, timing, now)

    settlement.next_action = lying  # type: ignore[assignment]
    if even_if_rejected:
        approvals.Approvals._take_rejection = lambda self, said: None  # type: ignore[method-assign]


@kind
class WrongRoot(Liar):
    name = "wrong-root"
    summary = "the right bytes under another root, claimed on chain in spite of the rejection"
    patched = "the commitment (TakenCheckpoint.commit), and that a rejection is heeded"
    honest_until = 1

    def lie(self) -> None:
        from contracts.commitment import checkpoint_root, next_tip, numerics_class
        from worker.training.checkpoints import Commitment, TakenCheckpoint

        commit = TakenCheckpoint.commit

        def lying(self: Any, job: bytes, numerics: Any, before: bytes) -> Any:
            made = commit(self, job, numerics, before)
            if self.index < 2:
                return made
            state = bytes(32)
            root = checkpoint_root(job, self.index, self.step, state, made.trace_root, numerics_class(numerics))
            return Commitment(state, made.trace_root, root, next_tip(before, root))

        TakenCheckpoint.commit = lying  # type: ignore[method-assign]
        claims_at_once()


@kind
class WithheldBytes(Liar):
    name = "withheld-bytes"
    summary = "claims on chain, and shows nobody the state"
    patched = "reports to the market (Reporter._post), and the time of claims"
    hides = True

    def lie(self) -> None:
        from worker.lease.reporting import Reporter

        Reporter._post = lambda self, index: None  # type: ignore[method-assign]
        claims_at_once()


@kind
class OwnClass(Liar):
    name = "own-class"
    summary = "claims to have trained on a machine of a numerics class that nobody else has"
    patched = "the numerics that are signed with a checkpoint (Training._commit)"

    def lie(self) -> None:
        def change(training: Any, taken: Any, numerics: Any) -> Any:
            return made_up(taken), {**numerics, "torch": "2.13.0+mine"}

        instead(change)


@kind
class FakeRoots(Liar):
    name = "fake-roots"
    summary = "1,024 made-up roots claimed on chain at once"
    patched = "what is claimed on chain (Settlement._call)"
    checkpoints = 1_100
    steps = 1
    stops_when_ruled = True
    hides = True

    def lie(self) -> None:
        from contracts.commitment import next_tip
        from contracts.terms import MAX_PENDING, Phase
        from contracts.types import from_hex, to_hex
        from worker.lease import settlement
        from worker.lease.schedule import Action

        usual, call = settlement.next_action, settlement.Settlement._call

        def lying(state: Any, nums: Any, progress: Any, timing: Any, now: float) -> Any:
            if state.phase == Phase.ACTIVE and not state.claimed and progress.claimable:
                return Action.CLAIM
            return usual(state, nums, progress, timing, now)

        def fake(self: Any, action: Any, state: Any) -> Any:
            if action != Action.CLAIM:
                return call(self, action, state)
            roots = [os.urandom(32) for _ in range(MAX_PENDING)]
            tip = from_hex(self._folder.tip(0))
            for root in roots:
                tip = next_tip(tip, root)
            claim = self._chain.claim(self._folder.file.terms, MAX_PENDING, to_hex(tip), [to_hex(one) for one in roots])
            return claim, {"n": MAX_PENDING}

        settlement.next_action = lying  # type: ignore[assignment]
        settlement.Settlement._call = fake  # type: ignore[method-assign]
