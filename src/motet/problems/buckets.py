"""Batches of bags of similar size, within a budget of instances."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Buckets:
    """The bags of each batch, in a new order every epoch, so that padding costs little and no batch is too large.

    Bags whose sizes have the same power of two below them are shuffled together, and cut in that order of size; the
    batches are shuffled again. A batch padded to its largest bag has ``budget`` instances at most, or is one bag that
    has more by itself.

    Args:
        sizes: Instances of each bag, (B,).
        budget: Most instances of a batch with its padding, 1 or more.
        most: Most bags of a batch. None: as many as the budget allows.
        seed: The same seed and epoch give the same batches.

    Raises:
        ValueError: if a size is negative, or an option out of range.

    Note:
        Bags of one batch are alike in size, so batches are less alike than random ones: where size tells of the label,
        their gradients are noisier. It serves as ``batch_sampler`` of a DataLoader.

    >>> buckets = Buckets([1, 900, 2, 3, 800, 1], budget=1000)
    >>> sorted(sorted(bags.tolist()) for bags in buckets)
    [[0, 2, 3, 5], [1], [4]]
    """

    def __init__(self, sizes: Sequence[int] | Tensor, budget: int, most: int | None = None, seed: int = 0) -> None:
        self.sizes = torch.as_tensor(sizes, dtype=torch.int64)
        if self.sizes.ndim != 1 or (len(self.sizes) and int(self.sizes.min()) < 0):
            raise ValueError("Buckets: sizes must be the number of instances of each bag, 0 or more")
        if budget < 1:
            raise ValueError(f"Buckets: budget must be 1 instance or more, not {budget}")
        if most is not None and most < 1:
            raise ValueError(f"Buckets: most must be 1 bag or more, not {most}")
        self.budget, self.most, self.seed, self.epoch = budget, most or len(self.sizes), seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next pass is; without it, passes count by themselves."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        batches = self.batches(self.epoch)
        self.epoch += 1
        return iter(batches)

    def batches(self, epoch: int) -> list[Tensor]:
        """The bags of each batch of an epoch, every bag once."""
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(len(self.sizes), generator=generator)
        # frexp's exponent is the power of two: a stable sort by it leaves bags of one bucket shuffled.
        bucket = torch.frexp(self.sizes[order].double()).exponent
        batches: list[list[int]] = [[]]
        largest = 0
        for bag in order[bucket.sort(stable=True).indices].tolist():
            size = max(largest, int(self.sizes[bag]))
            full = len(batches[-1]) == self.most or (len(batches[-1]) + 1) * size > self.budget
            if batches[-1] and full:
                batches.append([])
                size = int(self.sizes[bag])
            batches[-1].append(bag)
            largest = size
        order = torch.randperm(len(batches), generator=generator)
        return [torch.tensor(batches[number]) for number in order.tolist() if batches[number]]
