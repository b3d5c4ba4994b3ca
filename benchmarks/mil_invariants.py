"""What must not matter to a pooling of bags, tried on torchmil's models and on motet's: a table for the docs.

python benchmarks/mil_invariants.py     # needs torchmil (pip install torchmil==1.0.2)

Three bags of 7, 12 and 4 instances, eval mode, random weights. Each cell is the largest change of an output, over all
bags, when something changes that should not matter; ✓ is at most 1e-5. A model that needs more than instances, a mask
and a graph is not run, and the table says what it asked for.
"""

import copy
import inspect
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from motet.nn import pooling
from motet.nn.instance_pooling import GraphInstancePooling

D, SIZES = 16, (7, 12, 4)
Model = Callable[..., Tensor]


def adjacency(x: Tensor, mask: Tensor) -> Tensor:
    """A graph of the present instances that follows their features, so that it moves with them."""
    close = (-torch.cdist(x, x).square() / x.shape[-1]).exp()
    seen = mask[:, :, None] & mask[:, None, :]
    close = torch.where(seen & ~torch.eye(x.shape[1], dtype=torch.bool), close, 0)
    degree = close.sum(-1).clamp(min=1e-6).rsqrt()
    return close * degree[:, :, None] * degree[:, None, :]


def of_torchmil(model: nn.Module) -> Model:
    takes = inspect.signature(model.forward).parameters

    def run(x: Tensor, mask: Tensor, graph: Tensor, seed: int = 0) -> Tensor:
        given = {}
        if "adj" in takes:
            given["adj"] = graph
        if "mask" in takes:
            given["mask"] = mask
        torch.manual_seed(seed)
        out = model(x, **given)
        return (out[0] if isinstance(out, tuple) else out).reshape(len(x), -1)

    return run


def of_motet(model: nn.Module) -> Model:
    def run(x: Tensor, mask: Tensor, graph: Tensor, seed: int = 0) -> Tensor:  # noqa: ARG001
        return model(x, mask)[0]

    return run


def torchmil_models() -> dict[str, Callable[[], nn.Module]]:
    from torchmil import models

    names = [name for name in dir(models) if inspect.isclass(getattr(models, name)) and not name.startswith("MILModel")]
    found = {}
    for name in names:
        model = getattr(models, name)
        takes = inspect.signature(model.__init__).parameters
        given = {"in_shape": (D,)} if "in_shape" in takes else {"in_dim": D} if "in_dim" in takes else {}
        if takes.get("feat_ext") is not None and takes["feat_ext"].default is inspect.Parameter.empty:
            given["feat_ext"] = nn.Identity()
        found[name] = lambda model=model, given=given: model(**given)
    return found


def motet_models() -> dict[str, Callable[[], nn.Module]]:
    names = ("MeanPooling", "MaxPooling", "GatedAttentionPooling", "TransformerPooling")
    found = {name: lambda name=name: getattr(pooling, name)(D) for name in names}
    return found | {"GraphInstancePooling": lambda: GraphInstancePooling(D, 3)}


def change(one: Tensor, other: Tensor) -> float:
    both = (one - other).abs()
    return float("nan") if both.isnan().any() else float(both.max())


def cell(measure: Callable[[], float]) -> str:
    try:
        value = measure()
    except Exception as error:  # a model that can't be run so is a finding too
        return f"fails: {type(error).__name__}"
    return "NaN" if value != value else f"{value:.0e}" if value > 1e-5 else "✓"


def row(build: Callable[[], nn.Module], wrap: Callable[[nn.Module], Model]) -> list[str]:
    torch.manual_seed(0)
    mask = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    x = torch.where(mask[..., None], torch.randn(len(SIZES), max(SIZES), D), 0)
    graph = adjacency(x, mask)
    with torch.no_grad():
        try:
            model = build().eval()
            run = wrap(model)
            reference = run(x, mask, graph)
            if change(run(x, mask, graph, seed=1), reference) > 1e-5:
                return ["draws at random in eval mode: can't be compared", *["–"] * 4]
        except Exception as error:
            return [f"not run: {str(error)[:90]}", *["–"] * 4]

        def alone() -> float:
            outs = [run(x[b : b + 1, :n], mask[b : b + 1, :n], graph[b : b + 1, :n, :n]) for b, n in enumerate(SIZES)]
            return change(torch.cat(outs), reference)

        def filled(value: Tensor | float) -> float:
            return change(run(torch.where(mask[..., None], x, value), mask, graph), reference)

        def permuted() -> float:
            order = torch.arange(max(SIZES)).repeat(len(SIZES), 1)
            for b, n in enumerate(SIZES):
                order[b, :n] = torch.randperm(n)
            mixed = torch.stack([bag[o] for bag, o in zip(x, order, strict=True)])
            return change(run(mixed, mask, adjacency(mixed, mask)), reference)

        cells = [
            cell(alone),
            cell(lambda: filled(3 * torch.randn_like(x))),
            cell(permuted),
            cell(lambda: filled(torch.nan)),
        ]

    def gradients() -> float:
        trained = copy.deepcopy(model)
        inputs = x.masked_fill(~mask[..., None], float("nan")).requires_grad_()
        wrap(trained)(inputs, mask, graph).sum().backward()
        found = [p.grad for p in [inputs, *trained.parameters()] if p.grad is not None]
        return 0.0 if all(g.isfinite().all() for g in found) else float("nan")

    return [*cells, cell(gradients)]


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | alone = in a batch | padding's content | order | NaN padding | gradients with NaN padding |")
    print("|---|---|---|---|---|---|")
    for library, models, wrap in (
        ("torchmil", torchmil_models(), of_torchmil),
        ("motet", motet_models(), of_motet),
    ):
        for name, build in models.items():
            print(f"| {library} {name} | {' | '.join(row(build, wrap))} |", flush=True)


if __name__ == "__main__":
    main()
