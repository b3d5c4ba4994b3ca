"""A Gram matrix from products with it alone: what the probe route gives its methods in place of G."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.solvers.threads import one_thread

_NEWTON = 8
_LONGEST = 3.0
"""Largest factor by which one product may change a task's norm."""
_SETTLED = 1e-3
"""Relative error of a predicted product at which the weights are taken to have arrived."""
_SETTLING = 8
"""K over this is the number of products in one step along the method's own weights, before directions are sought."""
_NOTHING = 1e-6


class ProductGram:
    r"""An estimate Ĝ of the Gram matrix that every product t = G v corrects, so that Ĝ v = t afterwards.

    A method takes its weights from Ĝ, and the step along them gives the next product. Where the weights come to rest,
    Ĝw = Gw: whatever is decided by Gw alone (MGDA, Nash-MTL, FairGrad) is then as with G itself. UPGrad, and CAGrad
    through |g₀|, depend on more of G: they come near, and are exact only with several products in one step.

    Each correction has two parts. First the tasks' norms: Ĝ ← N Ĝ N with the diagonal N > 0 for which N Ĝ N v = t,
    as far as vₖtₖ > 0 and no norm changes threefold. For a diagonal Ĝ that is the fixed point w ← √(w / Gw) of
    Nash-MTL, and its like for other methods. Then the angles, by the BFGS update

        Ĝ ← Ĝ - Ĝv vᵀĜ / vᵀĜv + t tᵀ / vᵀt,

    which keeps Ĝ positive semidefinite. Several products in one step go along G-conjugate directions, so that each
    leaves intact what the others taught: after K of them Ĝ = G.

    A task that is absent keeps its own entries; its cosines with the present ones follow theirs.

    Shapes:
        gram (K, K), products and weights (K,), all float64.

    Cost:
        Eight Cholesky factorisations of K×K a step.

    >>> G = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> estimate = ProductGram()
    >>> estimate.begin(torch.arange(2), 2)
    >>> for v in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])):
    ...     v = estimate.next_probe(v.double())
    ...     estimate.update(v, G @ v)
    >>> torch.allclose(estimate.gram(), G)
    True
    """

    def __init__(self) -> None:
        self._gram = torch.zeros(0, 0, dtype=torch.float64)
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._rows = torch.zeros(0, dtype=torch.long)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._products = 0
        self._settled = False

    def begin(self, rows: Tensor, count: int) -> None:
        """Start a step on the tasks ``rows`` (K,) of ``count`` known ones: its products are of one Gram matrix."""
        known = len(self._gram)
        if known < count:
            grown = self._gram.new_zeros(count, count)
            grown[:known, :known] = self._gram
            self._gram = grown
            self._seen = torch.cat([self._seen, self._seen.new_zeros(count - known)])
        self._rows = rows.to(self._gram.device)
        self._pairs, self._products, self._settled = [], 0, False

    def gram(self) -> Tensor:
        """Ĝ of the step's tasks: (K, K). A task without products yet is of mean length, and at right angles."""
        own = self._gram[self._rows][:, self._rows]
        fresh = ~self._seen[self._rows]
        norms = own.diagonal()[~fresh]
        own.diagonal()[fresh] = norms.mean() if len(norms) else 1.0
        return own

    def next_probe(self, weights: Tensor) -> Tensor | None:
        """Along which weights one more product of this step teaches most: (K,) → (K,), or None if nothing is left.

        At first the method's own weights, until they come to rest or for K/8 products; then what is new in them,
        conjugate to the products before; and where nothing is, the task whose gradient is known least.
        """
        weights = as_double(weights.detach()).to(self._gram.device)
        if self._products == 0 or (not self._settled and self._products < len(weights) // _SETTLING):
            return weights
        gram = self.gram()
        new = self._conjugate(weights)
        if new @ gram @ new > _SETTLED**2 * (weights @ gram @ weights):
            return new
        explained = sum(t.square() / (v @ t) for v, t in self._pairs)
        sizes = gram.diagonal()
        left = torch.where(sizes > 0, 1 - explained / sizes, 0.0)
        if not left.amax() > 1e-6:
            return None
        unit = torch.zeros_like(weights)
        unit[left.argmax()] = sizes[left.argmax()].rsqrt()
        return self._conjugate(unit)

    @one_thread
    def update(self, weights: Tensor, product: Tensor) -> None:
        """Learn t = G v: (K,), (K,). Entries of t that are not finite are passed over, as of absent tasks."""
        v, t = (as_double(given.detach()).to(self._gram.device) for given in (weights, product))
        known = t.isfinite()
        gram = self.gram()
        if not known.all():
            # What the others added to the product is not known any better than the estimate.
            t = (t - gram[:, ~known] @ v[~known])[known]
        rows, v = self._rows[known], v[known]
        gram = gram[known][:, known]
        size = v @ t
        if not size > _NOTHING * (v * t).abs().sum():  # G is positive semidefinite: this is noise, or a zero.
            self._products += 1
            return
        self._settled = bool((gram @ v - t).norm() <= _SETTLED * t.norm())
        self._start(rows, v, t)
        if not self._pairs:
            self._rescale(rows, v, t)
        self._turn(rows, v, t)
        self._products += 1
        if self._settled or self._products >= len(self._rows) // _SETTLING:
            whole = self._rows.new_zeros(len(self._rows), dtype=torch.float64)
            self._pairs.append((whole.masked_scatter(known, v), whole.masked_scatter(known, t)))

    def state_dict(self) -> dict[str, Tensor]:
        """{"gram": (tasks, tasks), "seen": (tasks,)}: all that lasts from step to step."""
        return {"gram": self._gram.clone(), "seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if it is something else.
        """
        gram, seen = state.get("gram"), state.get("seen")
        if gram is None or seen is None or gram.shape != (len(seen), len(seen)):
            raise ValueError("this is no state of products: it needs gram (K, K) and seen (K,)")
        self._gram, self._seen = state["gram"].clone(), state["seen"].clone()

    def _start(self, rows: Tensor, v: Tensor, t: Tensor) -> None:
        """Norms of tasks seen for the first time, as if their gradients were at right angles to all others."""
        fresh = ~self._seen[rows]
        if fresh.any():
            plain = torch.where(v * t > 0, t / v, 0.0)
            least = 0.1 * plain.sum() / (plain > 0).sum()
            new = rows[fresh]
            self._gram[new, new] = torch.where(plain > 0, plain, least)[fresh]
            self._seen[new] = True

    def _rescale(self, rows: Tensor, v: Tensor, t: Tensor) -> None:
        factors = _norm_factors(self._gram[rows][:, rows], v, t).clamp(1 / _LONGEST, _LONGEST)
        self._gram[rows] *= factors[:, None]
        self._gram[:, rows] *= factors

    def _turn(self, rows: Tensor, v: Tensor, t: Tensor) -> None:
        """The BFGS update. Absent tasks take the product that leaves their own block as it was."""
        before = self._gram[:, rows] @ v
        predicted = v @ before[rows]
        if not predicted > 0:
            self._gram[rows[:, None], rows] += torch.outer(t, t) / (v @ t)
            return
        whole = before * (v @ t / predicted).sqrt()
        whole[rows] = t
        present = torch.zeros_like(self._seen)
        present[rows] = True
        change = torch.outer(whole, whole) / (v @ t) - torch.outer(before, before) / predicted
        self._gram += torch.where(present[:, None] | present, change, 0.0)

    def _conjugate(self, v: Tensor) -> Tensor:
        for _ in range(2):  # Once more for what rounding left.
            for known, product in self._pairs:
                v = v - known * (product @ v) / (known @ product)
        return v


def _norm_factors(gram: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """n > 0 with n ∘ G(n ∘ v) = t, where v ∘ t > 0, and 1 elsewhere: (K,).

    With x = n ∘ v and y = v ∘ t that is x ∘ Gx = y: the minimum of ½xᵀGx - Σ y log x, by Newton's method.
    """
    y = v * t
    least = 1e-2 * y.abs().mean()
    fits = (y > 1e-4 * least) & (v > 0)
    y = torch.where(fits, y, least)
    system = gram + 1e-12 * torch.diag(gram.diagonal())
    x = torch.where(fits, v, (y / system.diagonal().clamp(min=1e-300)).sqrt().clamp(max=v.abs().amax()))
    for _ in range(_NEWTON):
        factor, _ = torch.linalg.cholesky_ex(system + torch.diag(y / x**2))
        step = torch.cholesky_solve((y / x - system @ x).unsqueeze(1), factor).squeeze(1)
        x = x + step * (-0.9 / (step / x).amin().clamp(max=-1e-300)).clamp(max=1)
    return torch.where(fits & x.isfinite(), x / v, 1.0)
