"""What the processes of one run do together; with a single process everything here is the identity.

The division of labour of all trainers: every process knows the whole optimiser batch and works on
its share of the rows, gradients are added up once an optimiser step, and what one process alone may do
(writing files, judging an evaluation) is done by the main one while the others wait for the outcome.
So N processes do what one would with the same batch, up to the order in which numbers are added.
`accelerate` starts the processes and owns the process group; this file knows no model and no data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modern_rlhf.errors import ModernRLHFError, TrainingError

T = TypeVar("T")

BUCKET = 1 << 24
"""Numbers sent in one sum of gradients at most."""


class Processes:
    """The processes of this run, seen from one of them.

    Attributes:
        rank, count: which process this is, of how many.
        device: where tensors have to lie to be sent.

    Every method but `share` and `is_main` has to be called by all processes, in the same order.

    Raises:
        TrainingError: another process ended, so that what it should have sent never comes.
    """

    def __init__(self, *, rank: int, count: int, device: torch.device | str) -> None:
        self.rank = rank
        self.count = count
        self.device = torch.device(device)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, number: int) -> range:
        """This process's part of `number` things: consecutive, sizes differing by at most one."""
        return range(
            self.rank * number // self.count,
            (self.rank + 1) * number // self.count,
        )

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on its own device."""
        if self.count == 1:
            return value
        summed = value.to(self.device, copy=True)
        with _together():
            torch.distributed.all_reduce(summed)
        return summed.to(value.device)

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        with _together():
            torch.distributed.all_gather_object(gathered, value)
        return gathered

    def on_main(self, action: Callable[[], T]) -> T:
        """What `action` returns in the main process, which alone runs it; its errors reach all.

        Raises:
            ModernRLHFError: whatever the action raised.
        """
        if self.count == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except ModernRLHFError as error:
                outcome[1] = error
        with _together():
            torch.distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        value: T = outcome[0]
        return value

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes; one that no process has stays None."""
        if self.count == 1:
            return
        present = self.sum(torch.tensor([float(p.grad is not None) for p in parameters])).tolist()
        bucket: list[nn.Parameter] = []
        numbers = 0
        for parameter, found in zip(parameters, present, strict=True):
            if not found:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and (
                numbers + parameter.numel() > BUCKET or parameter.dtype != bucket[0].dtype
            ):
                self._sum_bucket(bucket)
                bucket, numbers = [], 0
            bucket.append(parameter)
            numbers += parameter.numel()
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: Sequence[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _together():
            torch.distributed.all_reduce(flat)
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Turns the many errors of a broken process group into one line that says what happened."""
    try:
        yield
    except RuntimeError as error:  # gloo raises it plain, NCCL a subclass
        first = str(error).strip().splitlines()[0][:200]
        raise TrainingError(
            "another process of this run has ended, so this one stops too: look at that process's "
            f"last message, then run the same command with --resume ({first})"
        ) from error
