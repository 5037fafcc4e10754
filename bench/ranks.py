"""One run computed by several processes, its ranks: each computes its own rows in the backbone.

Everything else is computed by every rank on the whole batch, in the same way. So losses, samplers, draws,
queues, prototypes and momentum encoders work as in one process, and no method needs to know about ranks. A
backbone's method that is decorated with `by_rows` takes and returns whole batches; inside it each rank has
its own rows.

Gradients: on leaving such a method, each rank keeps the gradient of its own rows, times the number of ranks;
on entering it, the ranks' gradients are gathered and divided by that number. The average over ranks after the
backward pass is then the gradient of the whole batch: for the backbone's parameters a sum of shares, for all
others what each rank had already.

With one rank, that is without `join`, nothing here has any effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.errors import BenchError

P = ParamSpec("P")
T = TypeVar("T")

#: How long a rank waits for the others within a step before it gives up.
PATIENCE = timedelta(minutes=5)

_rank, _world = 0, 1
_in_rows = False


class LostRankError(RuntimeError):
    """Another rank did not answer: it failed or died."""


@contextmanager
def join(store: Any, rank: int, world: int, device: str) -> Iterator[None]:
    """Join `world` ranks that share a torch `Store`, on the current CUDA device or on the CPU."""
    global _rank, _world
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    _rank, _world = rank, world
    try:
        yield
        dist.destroy_process_group()  # not after an error, as it would wait for the others
    finally:
        _rank, _world = 0, 1


def world() -> int:
    """Return how many ranks there are."""
    return _world


def rank() -> int:
    """Return this process's rank, from 0."""
    return _rank


def in_rows() -> bool:
    """Whether this is inside a `by_rows` method, where a rank sees only its rows of a batch."""
    return _in_rows


# -- rows ---------------------------------------------------------------------------------------------
def own_rows(count: int) -> slice:
    """Return this rank's share of so many rows; with fewer rows than ranks, all of them."""
    return slice(*_bounds(count)[_rank]) if count >= _world else slice(0, count)


def all_rows(own: Tensor, count: int, dim: int = 0) -> Tensor:
    """Gather the ranks' rows, `count` in all, along a dimension; without a gradient."""
    if not 1 < _world <= count:
        return own
    sizes = [stop - start for start, stop in _bounds(count)]
    missing = max(sizes) - own.shape[dim]  # one row at most; all ranks must exchange the same shape
    if missing:
        own = torch.cat([own, own.narrow(dim, 0, missing)], dim)
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in sizes]
    _exchange(dist.all_gather, parts, own.contiguous())
    return torch.cat([part.narrow(dim, 0, size) for part, size in zip(parts, sizes, strict=True)], dim)


def by_rows(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorate a backbone's method, so that each rank computes its rows of the last argument and gets all.

    Images or maps have their rows in the first dimension, the result in the backbone's `rows_dim`. Batch norm
    uses the statistics of all ranks' rows. Nested calls are part of the outer one. A batch with fewer rows
    than ranks is computed whole by every rank. If a method calls a backbone stage by stage, all ranks' maps
    are exchanged between the stages, which is correct but slower than pooled features.
    """

    @wraps(function)
    def shared(*arguments: P.args, **options: P.kwargs) -> Tensor:
        count = len(arguments[-1]) if _world > 1 else 0  # type: ignore[arg-type]
        if _in_rows or count < _world or _world == 1:
            return function(*arguments, **options)
        rows: Tensor = _Share.apply(arguments[-1])
        with _within(), _WholeBatchNorm(count):
            own = function(*arguments[:-1], rows, **options)  # type: ignore[arg-type]
        dim: int = arguments[0].rows_dim  # type: ignore[attr-defined]
        if own.shape[dim] != len(rows):
            raise BenchError(
                f"{type(arguments[0]).__name__} gives {tuple(own.shape)} for {len(rows)} images; set its "
                "`rows_dim` to their dimension, so that several ranks can share them"
            )
        return _Gather.apply(own, count, dim)

    return shared


@contextmanager
def _within() -> Iterator[None]:
    global _in_rows
    _in_rows = True
    try:
        yield
    finally:
        _in_rows = False


def _bounds(count: int) -> list[tuple[int, int]]:
    return list(pairwise(count * i // _world for i in range(_world + 1)))


class _Share(torch.autograd.Function):
    """A rank's rows of a batch that all ranks have."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:
        ctx.count = len(whole)
        return whole[own_rows(len(whole))].clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_rows(gradients[0], ctx.count) / _world


class _Gather(torch.autograd.Function):
    """All ranks' rows, of which each rank has its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int, dim: int) -> Tensor:
        ctx.count, ctx.dim = count, dim
        return all_rows(own, count, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows = own_rows(ctx.count)
        return gradients[0].narrow(ctx.dim, rows.start, rows.stop - rows.start) * _world, None, None


# -- batch norm ---------------------------------------------------------------------------------------
class _WholeBatchNorm(TorchFunctionMode):
    """Inside it, batch norm of a rank's rows uses the statistics of all `count` rows."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.shares = [(stop - start) / count for start, stop in _bounds(count)]

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        if function is F.batch_norm:
            return self.batch_norm(*arguments, **(options or {}))
        return function(*arguments, **(options or {}))

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        normalised, mean, var = _BatchNorm.apply(x, weight, bias, eps, self.shares)
        if running_mean is not None and running_var is not None:
            count = x.numel() / x.shape[1] / self.shares[_rank]
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
        return normalised


class _BatchNorm(torch.autograd.Function):
    """Normalise own rows (B, C, ...) by the mean and variance (C,) of all ranks' rows, and return these."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shares: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.dim())]
        own = torch.stack(torch.var_mean(x.float(), dims, correction=0))
        parts = [torch.empty_like(own) for _ in shares]
        _exchange(dist.all_gather, parts, own)
        mean = sum_of(share * part[1] for share, part in zip(shares, parts, strict=True))
        var = sum_of(
            share * (part[0] + (part[1] - mean).square()) for share, part in zip(shares, parts, strict=True)
        )
        ctx.save_for_backward(x, weight, mean, var)
        ctx.dims, ctx.eps, ctx.share = dims, eps, shares[_rank]
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        along = [1, -1, *[1] * (x.dim() - 2)]  # of (C,), beside (B, C, ...)
        gradient, scale = gradients[0].float(), (var + ctx.eps).rsqrt()
        unit = (x.float() - mean.view(along)) * scale.view(along)
        own = torch.stack([gradient.sum(ctx.dims), (gradient * unit).sum(ctx.dims)])
        whole = own.clone()
        _exchange(dist.all_reduce, whole)
        means = whole * (ctx.share * x.shape[1] / x.numel())
        offset = means[0].view(along) + unit * means[1].view(along)
        if weight is not None:
            scale = scale * weight
        of_x = ((gradient - offset) * scale.view(along)).to(x.dtype)
        wanted = zip(ctx.needs_input_grad, (of_x, own[1], own[0], None, None), strict=True)
        return tuple(each if needed else None for needed, each in wanted)


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors."""
    return torch.stack(list(parts)).sum(0)


# -- a whole run --------------------------------------------------------------------------------------
@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks, which is bitwise equal on all of them."""
    if _world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for kind in dict.fromkeys(g.dtype for g in gradients):
        some = [g for g in gradients if g.dtype == kind]
        flat = torch.cat([g.flatten() for g in some])
        _exchange(dist.all_reduce, flat)
        flat /= _world
        for gradient, mean in zip(some, flat.split([g.numel() for g in some]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def agree(number: int, device: str) -> bool:
    """Whether this rank has the same number as the first."""
    first = torch.tensor([number], device=device)
    follow_first([first])
    return int(first) == number


@torch.no_grad()
def follow_first(tensors: Iterable[Tensor]) -> None:
    """Copy the first rank's values of these tensors to all ranks, as GPUs may round differently."""
    every = [tensor for tensor in tensors if tensor.numel()]
    flat = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in every])
    _exchange(dist.broadcast, flat, 0)
    sizes = [tensor.numel() * tensor.element_size() for tensor in every]
    for tensor, part in zip(every, flat.split(sizes), strict=True):
        tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))


def _exchange(collective: Callable[..., Any], *arguments: Any) -> None:
    try:
        collective(*arguments)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostRankError(f"rank {_rank} waited for the others in vain ({reason})") from error
