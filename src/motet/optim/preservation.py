"""Direction preservation for Muon: APT, arXiv 2604.08939 (reconstruction)."""

from typing import NamedTuple

import torch
from torch import Tensor

VARIANTS = ("L1", "L2", "L3", "L4", "L5", "L6")
AT_INPUT = ("L1", "L2", "L3", "L6")
"""Variants that change what is orthogonalised; the others change the result."""
BY_TASKS = ("L1", "L2", "L5", "L6")
"""Variants that look at the tasks' gradients."""

_GUARD = 1e-3
"""A direction shorter than this share of what it is the rest of counts as rounding noise."""


class RankOne(NamedTuple):
    """K gradients of one parameter as outer products, Gₖ = left_k right_kᵀ: (K, rows), (K, columns).

    A layer y = W x has this gradient where all samples share x or the cotangent of y; else the sums or means over
    the batch of both make a summary of it. A convolution's rows are its output channels.
    """

    left: Tensor
    right: Tensor


class EffectiveRank(NamedTuple):
    """Effective ranks of one parameter's matrices in one step, (parts,) each."""

    plain: Tensor
    """Of what plain Muon orthogonalises."""
    preserved: Tensor
    """Of what was orthogonalised."""
    update: Tensor
    """Of the update."""


def effective_rank(matrices: Tensor) -> Tensor:
    """exp(-Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σσ: Roy & Vetterli, EUSIPCO 2007. (…, m, n) → (…), float64.

    Between 1 and min(m, n); 0 for a zero matrix, NaN for one that is not finite.
    """
    X = matrices.detach().to(_wide(matrices))
    top = X.abs().amax(dim=(-2, -1), keepdim=True)
    # A library of the SVD may refuse what is not finite, or what is tiny.
    values = torch.linalg.svdvals(torch.where(top > 0, X / top, X).nan_to_num(0.0, 0.0, 0.0))
    p = values / values.sum(-1, keepdim=True)
    rank = torch.special.entr(p).sum(-1).exp()
    top = top[..., 0, 0]
    return torch.where(top > 0, rank, torch.zeros_like(rank)).where(top.isfinite(), torch.full_like(rank, torch.nan))


def preserved_input(
    variant: str, strength: float, update: Tensor, momentum: Tensor, gradient: Tensor, tasks: Tensor | RankOne | None
) -> Tensor:
    r"""What Newton–Schulz is given in place of U, so that directions survive that weighting or momentum suppressed.

    With the mean of the tasks' unit gradients Ḡ = (1/K) Σₖ Gₖ/‖Gₖ‖_F,

        L1   U' = U + ρ ‖U‖_F Ḡ/‖Ḡ‖_F
        L2   U' = U + ρ ‖U‖_F P/‖P‖_F,   P = Ḡ - ⟨Ḡ, U⟩/⟨U, U⟩ U: only what U lacks
        L3   U' = ‖U‖_F ((1 - ρ) M/‖M‖_F + ρ D/‖D‖_F): momentum and instant gradient, no tasks
        L6   L1 with ρ (1 - erank(U)/min(m, n)) (erank[G₁ … G_K] - 1)/(K - 1): only as far as U is flat
             and the tasks differ

    so that ‖U'‖_F ≤ (1 + ρ) ‖U‖_F.

    Args:
        variant: One of `AT_INPUT`.
        strength: ρ.
        update: U, what plain Muon orthogonalises: with Nesterov's correction where that is on.
        momentum: M.
        gradient: D, the one gradient that the tasks' are combined into.
        tasks: G₁ … G_K, or None.

    Shapes:
        update, momentum, gradient (B, m, n) → (B, m, n); tasks (K, B, m, n), or rank-one (K, B, m), (K, B, n).

    Scale:
        Independent of the scale of every single Gₖ and proportional to U's, for float32 norms from 1e-18 to 1e18;
        a matrix beyond adds nothing.

    Cost:
        One pass over the K gradients; L6 a singular value decomposition of U, which outweighs Newton–Schulz.

    Note:
        Where P or Ḡ is mere rounding noise (under a thousandth: U already holds Ḡ, or the tasks cancel) U' = U, since
        the orthogonalisation would blow the noise up to full length. So it is where a task's gradient is not finite,
        and for L1, L2 and L6 with one task: nothing competes with it.
    """
    if variant == "L3":
        mixed = (1 - strength) * _unit(momentum) + strength * _unit(gradient)
        blend: Tensor = (_length(update) * mixed).to(update)
        return blend
    assert tasks is not None
    count = len(tasks.left if isinstance(tasks, RankOne) else tasks)
    if count == 1:
        return update
    mean, gram = _unit_mean(tasks), _unit_gram(tasks) if variant == "L6" else None
    whole, missing = _length(mean), mean
    if variant == "L2":
        along = _unit(update)
        missing = mean - torch.einsum("bmn,bmn->b", mean, along)[:, None, None] * along
    length = _length(missing)
    heard = (length > _GUARD * whole) & (whole > _GUARD)
    rho: Tensor | float = strength
    if gram is not None:
        # The Gram matrix of unit rows has the squares of their singular values.
        values = torch.linalg.eigvalsh(gram.nan_to_num()).clamp(min=0).sqrt()
        p = values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
        differ = (torch.special.entr(p).sum(-1).exp() - 1) / (count - 1)
        flat = 1 - effective_rank(update) / min(update.shape[-2:])
        rho = (strength * flat.clamp(0, 1) * differ.clamp(0, 1)).to(mean)[:, None, None]
    # Not 0 · NaN: an unheard direction may be anything.
    added = torch.where(heard, missing * (rho * _length(update) * _inverse(length)), torch.zeros_like(missing))
    return update + added.to(update)


def blended(strength: float, orthogonal: Tensor, update: Tensor) -> Tensor:
    """L4: O' = (1 - ρ) NS(U) + ρ √min(m, n) U/‖U‖_F, between the flattened update and the plain one: (B, m, n)."""
    k = min(update.shape[-2:]) ** 0.5
    plain: Tensor = strength * k * _unit(update)
    return (1 - strength) * orthogonal + plain.to(orthogonal.dtype)


def oracle(strength: float, orthogonal: Tensor, by_task: Tensor) -> Tensor:
    """L5: O' = (1 - ρ) NS(U) + ρ s Σₖ NS(Mₖ), with s for equal norms: (B, m, n), (K, B, m, n) → (B, m, n).

    Reconstruction: how the sum is scaled is open. With equal norms the learning rate keeps its meaning, and where
    the tasks' row and column spaces are orthogonal it is NS(U) itself.
    """
    whole = _unit(by_task.sum(0, dtype=torch.float32)) * _length(orthogonal.float())
    return (1 - strength) * orthogonal + (strength * whole).to(orthogonal.dtype)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _norm(tensor: Tensor, dim: int | tuple[int, ...] = -1, keepdim: bool = False) -> Tensor:
    """‖x‖ in at least float32; zero, as if there were nothing, where the squares overflow."""
    # In float64 a float32 norm takes 25 times as long on a CPU.
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=keepdim, dtype=dtype)
    return torch.where(norm.isinf(), torch.zeros_like(norm), norm)


def _length(matrices: Tensor) -> Tensor:
    """‖X‖_F: (…, m, n) → (…, 1, 1)."""
    return _norm(matrices, dim=(-2, -1), keepdim=True)


def _unit(matrices: Tensor) -> Tensor:
    """X/‖X‖_F, zero for zero, at least float32: (…, m, n)."""
    return matrices * _inverse(_length(matrices))


def _inverse(norms: Tensor) -> Tensor:
    """1/x, zero for zero; NaN stays."""
    return torch.where(norms == 0, torch.zeros_like(norms), 1 / norms)


def _unit_mean(tasks: Tensor | RankOne) -> Tensor:
    """Ḡ: (K, B, m, n) → (B, m, n), at least float32."""
    if isinstance(tasks, RankOne):
        left, right = _rank_one_units(tasks)
        return torch.einsum("kbm,kbn->bmn", left, right) / len(left)
    G = tasks if tasks.dtype in (torch.float32, torch.float64) else tasks.float()
    return torch.einsum("kb,kbmn->bmn", _inverse(_length(G))[..., 0, 0] / len(G), G)


def _unit_gram(tasks: Tensor | RankOne) -> Tensor:
    """⟨Gᵢ, Gⱼ⟩ / (‖Gᵢ‖ ‖Gⱼ‖) of every matrix: (K, B, m, n) → (B, K, K), float64."""
    if isinstance(tasks, RankOne):
        left, right = (part.to(_wide(part)) for part in _rank_one_units(tasks))
        return torch.einsum("ibm,jbm->bij", left, left) * torch.einsum("ibn,jbn->bij", right, right)
    rows = _unit(tasks).flatten(2).transpose(0, 1)
    rows = rows.to(_wide(rows))
    return rows @ rows.mT


def _rank_one_units(tasks: RankOne) -> tuple[Tensor, Tensor]:
    """Both factors of unit length, zero for zero: (K, B, m), (K, B, n)."""
    dtype = torch.promote_types(torch.promote_types(tasks.left.dtype, tasks.right.dtype), torch.float32)
    left, right = tasks.left.to(dtype), tasks.right.to(dtype)
    return left * _inverse(_norm(left))[..., None], right * _inverse(_norm(right))[..., None]
