"""Checkpoints: a training that was stopped, by whatever means, goes on as if nothing had happened.

A checkpoint is one safetensors file, .checkpoints/MODEL/KEY/STEP-SHA256.safetensors. KEY stands for everything that
decides the result (parameters, data, code, machine), and SHA256 is that of the file itself: so neither a foreign nor a
damaged file is ever used. It holds weights, their average, the optimiser's moments, the history and the states of
torch's global generators. All other randomness follows from the number of the step; to be sure of that, a checkpoint
also names the batch that the next step will see.
"""

import fcntl
import hashlib
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors, serialise, sha256_of_file, write_bytes
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.processes import Processes
from diffusion_ladder.training.history import History
from diffusion_ladder.training.loop import Batch, TrainingState

KEPT = 2  # the last one, and the one before in case the last is damaged

NextBatch = Callable[[int], Batch]


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Weights, averages and the optimiser's moments by name."""
    parameters = dict(state.network.named_parameters())
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    for kind, average in state.averages().items():
        tensors |= {f"{kind}.{name}": part for name, part in zip(parameters, average.average, strict=True)}
    for name, parameter in parameters.items():
        moments = state.optimiser.state.get(parameter, {})
        tensors |= {f"optimiser.{name}.{moment}": tensor for moment, tensor in moments.items()}
    return tensors


@torch.no_grad()
def restore_state(state: TrainingState, tensors: dict[str, Tensor], steps: int) -> None:
    """Give a fresh state what `state_tensors` took, in the memory order that it had."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    state.network.load_state_dict(parts["network"])
    parameters = dict(state.network.named_parameters())
    for kind, average in state.averages().items():
        for name, tensor in zip(parameters, average.average, strict=True):
            tensor.copy_(parts[kind][name])
    for key, tensor in parts["optimiser"].items():
        name, _, moment = key.rpartition(".")
        parameter = parameters[name]
        like = torch.empty_like(parameter) if tensor.shape == parameter.shape else tensor.to(parameter.device)
        state.optimiser.state[parameter][moment] = like.copy_(tensor)
    state.steps = steps


def give_to_all(processes: Processes, state: TrainingState, history: History) -> None:
    """Give every process the state and the history of the main one."""
    tensors = {name: tensor.cpu() for name, tensor in {**state_tensors(state), **history.tensors()}.items()}
    tensors, steps, facts = processes.from_main((tensors, state.steps, history.facts()))
    if processes.rank != 0:
        restore_state(state, tensors, steps)
        history.restore(tensors, facts)


def random_states() -> dict[str, Tensor]:
    """The states of torch's global generators, uint8: nothing here draws from them, but a network's layers might."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(tensors: dict[str, Tensor]) -> None:
    """Put `random_states` back; raises KeyError or RuntimeError where that can't be done."""
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def digest_of(batch: Batch) -> str:
    """SHA-256 of the examples, timesteps, noise and labels of a batch."""
    parts = [batch.x0, batch.timesteps, batch.noise, *([] if batch.labels is None else [batch.labels])]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where they are.
    """

    def __init__(
        self, root: Path, model: str, key: str, seconds: float, next_batch: NextBatch, waits: bool = False
    ) -> None:
        """Look into the folder; nothing is written yet.

        Args:
            root: .checkpoints.
            model: the rung, or another name for what no two may train at once.
            key: hash of parameters, data, code and machine.
            seconds: between two checkpoints.
            next_batch: gives the batch of a step, counted from 0.
            waits: whether to wait for another process that trains the same, instead of refusing.
        """
        self.model_folder = root / model
        self.folder = self.model_folder / key[:16]
        self.key = key
        self.seconds = seconds
        self.next_batch = next_batch
        self.waits = waits
        self.saved_at = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same model; what a killed one left half-written is removed.

        Raises:
            UserError: another process is training it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.model_folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if self.waits else fcntl.LOCK_NB))
            except BlockingIOError:
                raise UserError(f"another process is training this model ({lock.name}): end it, or wait") from None
            for temporary in self.folder.glob(".*"):
                temporary.unlink()
            yield

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self.saved_at >= self.seconds

    @property
    def latest(self) -> Path | None:
        """The newest one."""
        return max(self.folder.glob("*.safetensors"), default=None)

    @property
    def words(self) -> str:
        """Where the newest one is."""
        return f"the last good checkpoint is {self.latest}" if self.latest else "there is no checkpoint yet"

    def save(self, state: TrainingState, history: History) -> Path:
        """Write a checkpoint, then remove all but the newest ones.

        Raises:
            UserError: a number in it is not finite, or the file can't be written; earlier ones stay.
        """
        self.require_finite(history)
        tensors = state_tensors(state)
        if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise UserError(f"step {state.steps}: {bad[0]} is not finite; lower training.learning_rate; {self.words}")
        tensors |= history.tensors() | random_states()
        facts = {"key": self.key, "next_batch": digest_of(self.next_batch(state.steps)), "history": history.facts()}
        data = serialise(tensors, facts | {"steps": state.steps})
        path = self.folder / f"{state.steps:09d}-{hashlib.sha256(data).hexdigest()}.safetensors"
        try:
            write_bytes(path, data)
        except UserError as error:
            raise UserError(f"{error}; {self.words}") from error
        for old in sorted(self.folder.glob("*.safetensors"))[:-KEPT]:
            old.unlink()
        self.saved_at = time.monotonic()
        return path

    def require_finite(self, history: History) -> None:
        """Raise a UserError that names the step, the likely cause and the last good checkpoint."""
        if failure := history.failure():
            raise UserError(f"{failure}; {self.words}")

    def restore(self, state: TrainingState, history: History) -> Path | None:
        """Go back to the newest checkpoint that is whole; None where there is none, and nothing is changed.

        Raises:
            UserError: the random numbers to come would be others than those of the run that was stopped.
        """
        for path in sorted(self.folder.glob("*.safetensors"), reverse=True):
            if complaint := self.complaint(path):
                print(f"{path} {complaint}: discarded", file=sys.stderr)
                path.unlink()
                continue
            tensors, facts = read_tensors(path), read_metadata(path)
            restore_state(state, tensors, facts["steps"])
            history.restore(tensors, facts["history"])
            self.restore_randomness(path, tensors, facts)
            return path
        return None

    def complaint(self, path: Path) -> str | None:
        """Why a file can't be used; None if it can."""
        if sha256_of_file(path) != path.stem.partition("-")[2]:
            return "is truncated or was altered"
        if read_metadata(path)["key"] != self.key:
            return "was made with other parameters, data or code"
        return None

    def restore_randomness(self, path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Put the random states back, and make sure that the next step sees what it would have seen."""
        try:
            restore_random_states(tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path}: its random state can't be restored ({error}); remove it to begin anew") from None
        if digest_of(self.next_batch(facts["steps"])) != facts["next_batch"]:
            raise UserError(
                f"{path}: its random state can't be restored (step {facts['steps'] + 1} would see another batch); "
                "remove it to begin anew"
            )

    def others(self) -> list[Path]:
        """Folders with checkpoints of the same model that were made with other parameters, data or code."""
        return sorted({path.parent for path in self.model_folder.glob("*/*.safetensors")} - {self.folder})

    def remove(self) -> None:
        """Remove all checkpoints of the model, which is complete."""
        shutil.rmtree(self.model_folder)


@contextmanager
def noted_signals(repeated: bool = False) -> Iterator[list[int]]:
    """Within it, SIGINT and SIGTERM are only noted in the list, for the next good moment.

    A second one acts at once, unless signals are `repeated`: the launcher of several processes passes on to them what
    they have received already.
    """
    noted: list[int] = []
    usual: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        noted.append(number)
        if not repeated:
            restore()

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a process in the background may be told to ignore it
            usual[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        restore()
