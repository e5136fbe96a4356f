"""One rung on several processes, GPUs or machines: HuggingFace Accelerate does the communication.

Each process takes its share of every batch, and what it computes comes together in the order of one process: so the
number of processes changes the order in which numbers are added up, and nothing else. One process needs none of this,
and doesn't import Accelerate.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Launch

Value = TypeVar("Value")


class ProcessLostError(UserError):
    """Another process has ended before the work was done."""


class Processes:
    """The processes that work on a rung, of which this is one: here, the only one.

    Attributes:
        rank: of this process, from 0.
        count: of all processes.
    """

    rank = 0
    count = 1

    def share(self, total: int) -> slice:
        """The rows out of `total` that this process computes, in the order of ranks; shares differ by one at most.

        Raises:
            UserError: there are fewer rows than processes.
        """
        if total < self.count:
            raise UserError(f"{total} examples or samples can't be shared among {self.count} processes: launch fewer")
        start, stop = (rank * total // self.count for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def distribute(self, network: nn.Module) -> nn.Module:
        """The network as the training loop has to call it; its parameters are the same ones, equal in all processes."""
        return network

    def backward(self, losses: Tensor, total: int) -> None:
        """Give the parameters the gradient of the mean of all `total` losses; those of this process are (B,)."""
        (losses.sum() / total).backward()

    def gather(self, part: Tensor, start: int, total: int) -> Tensor:
        """The whole (total, ...) of which every process has a part (B, ...), which begins at row `start`."""
        return part

    def any(self, flag: bool) -> bool:
        """Whether any of the processes raises its flag."""
        return flag

    def from_main(self, value: Value) -> Value:
        """The value that the main process has."""
        return value

    def wait(self) -> None:
        """Wait until all processes have got here."""


ONE_PROCESS = Processes()


class AcceleratedProcesses(Processes):
    """Several processes, started by `torchrun` or `accelerate launch`."""

    def __init__(self, launch: Launch, device: torch.device) -> None:
        """Wait for the other processes.

        Args:
            launch: which process this is.
            device: where it computes; of several GPUs, each process on a machine takes its own.

        Raises:
            UserError: Accelerate was told to work in another way.
        """
        from accelerate import Accelerator, InitProcessGroupKwargs

        # On a GPU too, flags go from processor to processor: no GPU has to be waited for.
        backend = [InitProcessGroupKwargs(backend="cuda:nccl,cpu:gloo")] if device.type == "cuda" else []
        threads = torch.get_num_threads()
        self.accelerator = Accelerator(cpu=device.type != "cuda", mixed_precision="no", kwargs_handlers=backend)
        torch.set_num_threads(threads)  # Accelerate has its own idea
        self.rank, self.count = launch.rank, launch.count
        kind, place = self.accelerator.distributed_type.value, self.accelerator.device.type
        if kind not in ("MULTI_CPU", "MULTI_GPU") or place != device.type:
            raise UserError(
                f"runtime.device gives {device.type}, but Accelerate was launched for {kind} on {place}: "
                f"launch it for plain data parallelism on {device.type}"
            )

    def distribute(self, network: nn.Module) -> nn.Module:
        """The network in torch's DistributedDataParallel, which averages the gradients over the processes."""
        return self.accelerator.prepare_model(network)

    def backward(self, losses: Tensor, total: int) -> None:
        """Give the parameters the gradient of the mean of all `total` losses; those of this process are (B,)."""
        with communication():
            self.accelerator.backward(losses.sum() * (self.count / total))  # to be averaged over the processes

    def gather(self, part: Tensor, start: int, total: int) -> Tensor:
        """The whole (total, ...) of which every process has a part (B, ...), which begins at row `start`."""
        whole = part.new_zeros(total, *part.shape[1:])
        whole[start : start + len(part)] = part
        with communication():
            return self.accelerator.reduce(whole, "sum")

    def any(self, flag: bool) -> bool:
        """Whether any of the processes raises its flag."""
        with communication():
            return bool(self.accelerator.reduce(torch.tensor(int(flag)), "sum"))

    def from_main(self, value: Value) -> Value:
        """The value that the main process has, pickled on the way."""
        from accelerate.utils import broadcast_object_list

        with communication():
            return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until all processes have got here."""
        with communication():
            self.accelerator.wait_for_everyone()


@contextmanager
def communication() -> Iterator[None]:
    """Within it, a broken connection raises ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        # Gloo's errors have no class of their own, but begin with the path of its source file.
        if isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error):
            raise ProcessLostError("the connection to another process broke: its own message tells why") from None
        raise


@contextmanager
def processes_of(launch: Launch, device: torch.device) -> Iterator[Processes]:
    """The processes that were launched together with this one, until the work is done; or this one alone."""
    if launch.count == 1:
        yield ONE_PROCESS
        return
    processes = AcceleratedProcesses(launch, device)
    yield processes
    processes.accelerator.end_training()
