"""Data-parallel search: processes of ``torch.distributed`` that come to what one process comes to.

Every process makes the same draws and takes its part of each batch; gradients are summed before they are clipped. A
supernet's batch norms use batch statistics, so these have to be of the whole batch: with each process's own the search
is another one, as with batches so much smaller. PyTorch's own synchronised norm is for GPUs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas_core.groups import Group


class Processes(Group):
    """All processes of the default group, which is there already (``torch.distributed.init_process_group``).

    All of them run the same search with the same problem and get the same events; one has to listen.
    """

    def __init__(self, shared_statistics: bool = True) -> None:
        """Without ``shared_statistics`` batch norms see their own part alone: fewer exchanges, another search."""
        self.rank, self.size, self.shared_statistics = dist.get_rank(), dist.get_world_size(), shared_statistics

    def part(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every ``size``-th image. Raises ValueError for fewer images than processes."""
        if len(labels) < self.size:
            raise ValueError(f"a batch of {len(labels)} images cannot be shared by {self.size} processes")
        return images[self.rank :: self.size], labels[self.rank :: self.size]

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def any(self, flag: bool) -> bool:
        seen = torch.tensor(float(flag))
        dist.all_reduce(seen)
        return bool(seen > 0)

    def join(self, module: nn.Module) -> None:
        if not self.shared_statistics:
            return
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SharedNorm(child))
            else:
                self.join(child)


class SharedNorm(nn.BatchNorm2d):
    """A batch norm that keeps no running statistics and takes those of the batches of all processes."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """In the place of ``norm``, with its parameters."""
        if norm.track_running_stats:
            raise ValueError("a norm with running statistics is no norm of a supernet")
        super().__init__(norm.num_features, norm.eps, affine=norm.affine, track_running_stats=False)
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Tensor) -> Tensor:  # (N, C, H, W) -> the same
        out: Tensor = _Normalised.apply(input, self.eps)  # type: ignore[no-untyped-call]
        return out if self.weight is None else out * self.weight[:, None, None] + self.bias[:, None, None]


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps), by channel over the batches of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        channels, count = x.shape[1], x.numel() // x.shape[1]
        sums = torch.cat([x.sum(dim=(0, 2, 3)), x.new_tensor([count])])
        dist.all_reduce(sums)
        ctx.count = sums[channels]
        deviation = x - (sums[:channels] / ctx.count)[:, None, None]
        squares = (deviation**2).sum(dim=(0, 2, 3))
        dist.all_reduce(squares)
        scale = (squares / ctx.count + eps).rsqrt()
        normalised: Tensor = deviation * scale[:, None, None]
        ctx.save_for_backward(normalised, scale)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        normalised, scale = ctx.saved_tensors
        sums = torch.stack([gradient.sum(dim=(0, 2, 3)), (gradient * normalised).sum(dim=(0, 2, 3))])
        dist.all_reduce(sums)
        mean, along = sums[:, :, None, None] / ctx.count
        return (gradient - mean - normalised * along) * scale[:, None, None], None
