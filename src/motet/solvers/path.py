"""Quadratic programmes over the positive orthant, by following the solution as the linear term moves on a line."""

import torch
from torch import Tensor

LOOK = 4
"""Corners between two looks of the host at another device, which has to wait for it."""


class Path:
    """A table of min ½ xᵀMx + qᵀx over x ≥ 0 that can be brought to the solution for any q in the span of its columns.

    With a support S and the rest R the table is symmetric,

        T_SS = I - M_SS⁻¹,  T_SR = M_SS⁻¹ M_SR,  T_RR = M_RR - M_RS M_SS⁻¹ M_SR - I,

    and holds for every column q the values z: -x on S, with x = -M_SS⁻¹ q_S, and on R the slack q_R + M_RS x. They
    solve the programme once x ≥ 0 and the slack ≥ 0. `settle` gets there on a path: x + th and the slack + th are
    positive for a large t, and as t falls to zero an entry reaches zero at every corner, changes sides, and is positive
    from there on the other. This is parametric principal pivoting (Cottle, Pang & Stone, The Linear Complementarity
    Problem, 1992). A change of sides adds a matrix of rank one to the table.

    Shapes:
        matrix M (B, K, K) positive definite, owner (P,) the number of each programme's M, columns (P, K, c),
        support (P, K) bool.

    Cost:
        A Cholesky factorisation of the support's size; K×(K + c + 2) products a corner, all P programmes side by side.
    """

    def __init__(self, matrix: Tensor, owner: Tensor, columns: Tensor, support: Tensor) -> None:
        count, tasks, width = columns.shape
        self.side = torch.where(support, -1.0, 1.0).to(matrix)
        self.table = matrix.new_empty(count, tasks, tasks + width + 2)
        self.square, self.columns = self.table[:, :, :tasks], self.table[:, :, tasks:-2]
        self.start, self.slope = self.table[:, :, -2], self.table[:, :, -1]
        self.owner = owner
        self.programme = torch.arange(count, device=matrix.device)
        self.zero = matrix.new_zeros(())
        # No two entries share a slope: tasks that are alike would reach their corners together.
        self.slopes = torch.linspace(1, 2, tasks, dtype=matrix.dtype, device=matrix.device)

        index, rows, factor = on_support(matrix, owner, support)
        own = torch.nn.functional.pad(columns, (0, 0, 0, 1)).gather(1, index.unsqueeze(2).expand(-1, -1, width))
        half = torch.linalg.solve_triangular(factor, torch.cat([rows[:, :, :tasks], own], 2), upper=False)
        torch.sub(matrix[owner], torch.eye(tasks, dtype=matrix.dtype, device=matrix.device), out=self.square)
        self.columns.copy_(columns)
        # With M_SS = LLᵀ and rows L⁻¹(M - I)_S this one product is right for all blocks, T_SS included.
        self.table[:, :, :-2].baddbmm_(half[:, :, :tasks].mT, half, alpha=-1)

    def settle(self, mix: Tensor) -> Tensor:
        """Solve for the q that mixes the columns so, and return x: (P, c) → (P, K)."""
        self.start.copy_((self.columns * -mix.unsqueeze(1)).sum(2))
        self.slope.copy_(self.slopes * self.side)
        every = 1 if self.table.device.type == "cpu" else LOOK
        for turn in range(10 * len(self.slopes)):
            moving = self._pivot()
            if turn % every == 0 and not moving.any():
                break
        return torch.where(self.side < 0, self.start, self.zero).clamp_(min=0)

    def refined(self, x: Tensor, lift: Tensor) -> Tensor:
        """A settled x after a step of the proximal point method towards the solution for C, with M = C + δI: (P, K)."""
        nearer = x - torch.bmm(self.square, x.unsqueeze(2)).squeeze(2)  # M_SS⁻¹ x on S
        return torch.where(self.side < 0, x + lift.unsqueeze(1) * nearer, self.zero).clamp_(min=0)

    def renewed(self, matrix: Tensor, columns: Tensor) -> "Path":
        """The same table, made anew from the support: without what rounding has left in it."""
        return Path(matrix, self.owner, columns, self.side < 0)

    def along(self, column: int) -> Tensor:
        """How x changes with minus the share of a column, as long as its support stays: (P, K)."""
        return torch.where(self.side < 0, self.columns[:, :, column], self.zero)

    def _pivot(self) -> Tensor:
        """Pass the next corner, and say with ones which programmes have one: (P, 1)."""
        falling = self.side * self.slope > 1e-14
        level, index = torch.where(falling, self.start / self.slope, self.zero).max(1, keepdim=True)
        moving = torch.heaviside(level, self.zero)
        row = self.table[self.programme, index.squeeze(1)]
        side = self.side.gather(1, index)
        share = moving / (row.gather(1, index) + side)
        self.table.addcmul_(row[:, : len(self.slopes)].unsqueeze(2), (row * share).unsqueeze(1), value=-1)
        self.side.scatter_(1, index, torch.addcmul(side, side, moving, value=-2))
        return moving


def on_support(matrix: Tensor, owner: Tensor, support: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The supports' indices, filled up with K; their rows of M - I with a zero behind; the Cholesky factors of M_SS.

    Shapes:
        (B, K, K), (P,), (P, K) bool → (P, m), (P, m, K + 1), (P, m, m) for supports of up to m.
    """
    tasks = support.shape[1]
    size = max(1, int(support.sum(1).amax()))
    inside, index = support.to(matrix).topk(size, 1)
    index = torch.where(inside > 0, index, tasks)
    shifted = torch.nn.functional.pad(matrix, (0, 1, 0, 1))  # row and column K are zero
    shifted.diagonal(dim1=1, dim2=2)[:, :tasks].sub_(1)
    rows = shifted.view(-1, tasks + 1).index_select(0, (owner.unsqueeze(1) * (tasks + 1) + index).view(-1))
    rows = rows.view(*index.shape, tasks + 1)
    block = rows.gather(2, index.unsqueeze(1).expand(-1, size, -1))
    block.diagonal(dim1=1, dim2=2).add_(1)
    return index, rows, torch.linalg.cholesky_ex(block).L
