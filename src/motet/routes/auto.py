"""Which route to take when the user leaves it open."""

from dataclasses import dataclass
from typing import Literal

from motet.routes.cost import Work

RouteName = Literal["auto", "exact", "last-layer", "features", "probe", "disjoint"]
ROUTES = ("exact", "last-layer", "features", "probe", "disjoint")

_FEW = 4
"""Up to this many tasks the exact route costs at most three plain steps."""


@dataclass(frozen=True)
class Wish:
    """What the method and the caller leave to choose from.

    Attributes:
        needs: What the method works on: "losses", "gram" or "jacobian".
        tasks: K.
        features: Whether the features were given.
        shared: Whether the shared parameters were given.
        budget: Largest allowed factor over the plain step, or None.
        same_rows: Whether the gradients must be of the same parameters in every step.
        single: Whether all but the exact route are ruled out: a second batch, or weights per layer.
        assignment: Whether the task of every sample is known.
        hindered: Why the trunk can be gone through once only, or "".
        unprobed: Why the probe route can't be taken, or "".
        samples: Whether the noise between the samples is wanted.
        unsampled: Why the last layer can't tell single samples' gradients, or "".
    """

    needs: str
    tasks: int
    features: bool
    shared: bool
    budget: float | None = None
    same_rows: bool = False
    single: bool = False
    assignment: bool = False
    hindered: str = ""
    unprobed: str = ""
    samples: bool = False
    unsampled: str = ""


def choose(wish: Wish, work: Work | None = None) -> tuple[str, str]:
    """The route and the reason: ``choose(Wish("gram", 40, features=True, shared=False))``.

    The truest route comes first: exact (or disjoint, as true), last-layer, probe, features. Without a budget that is
    the exact one up to four tasks and the last layer from there on; with one the first that keeps within.

    Args:
        wish: What is wanted.
        work: Sizes of the graph, for the estimate; None takes a trunk without heads.

    Raises:
        ValueError: if nothing was given that a route could start from.
    """
    if wish.needs == "losses":
        return "none", "the method needs the losses' values only"
    if wish.samples and not wish.features:
        raise ValueError(
            "the method needs the noise between samples, which only gradients at the features tell: pass features=z, "
            "the tensor that all heads take, with one row a sample"
        )
    if not wish.features and not wish.shared:
        raise ValueError(
            "the method needs the tasks' gradients: pass features=z, the tensor that all heads take, "
            "or shared=model.trunk.parameters()"
        )
    costs = (work or Work(1.0, 0.0, 0, 0, 0.0, 0)).ratios(wish.tasks, wish.samples)
    about = {route: f"about {cost:.1f}× a plain step by the sizes of its layers" for route, cost in costs.items()}
    over = "" if wish.budget is None or costs["exact"] <= wish.budget else f", over the budget of {wish.budget:g}×"
    if wish.samples:
        why = "the method needs the gradients of single samples"
        if hindrance := wish.hindered or wish.unsampled:
            why = f"{why}, and takes those at the features: {hindrance}"
        elif wish.budget is None or costs["last-layer"] <= wish.budget:
            near = "those of the trunk's last layer are nearer to the trunk's own than those at the features"
            return "last-layer", f"{why}, and {near}; {about['last-layer']}"
        else:
            why = f"{why}, and those of the last layer are {about['last-layer']}, over the budget of {wish.budget:g}×"
        short = wish.budget is not None and costs["features"] > wish.budget
        over = f", over the budget of {wish.budget:g}×" if short else ""
        return "features", f"{why}; {about['features']}{over}"
    if wish.assignment and wish.needs == "gram" and not wish.single:
        return "disjoint", "every sample belongs to one task, so one backward pass tells all gradients"
    if wish.hindered and wish.features and wish.needs == "gram" and not wish.single:
        return "features", wish.hindered
    if wish.single or wish.same_rows:
        why = "the method needs whole gradients of the same parameters in every step"
        return "exact", f"{why}; {about['exact']}{over}"
    if wish.needs == "jacobian":
        if not wish.features or wish.budget is None or costs["exact"] <= wish.budget:
            return "exact", f"the method needs whole gradients; {about['exact']}{over}"
        return "features", f"the only route to gradients within the budget of {wish.budget:g}×; {about['features']}"
    if wish.budget is None:
        if not wish.features:
            return "exact", f"only the shared parameters are known; {about['exact']}"
        if wish.tasks <= _FEW:
            return "exact", f"with {wish.tasks} tasks it is {about['exact']}"
        return "last-layer", f"{about['last-layer']}; the exact route would be {costs['exact']:.1f}×"
    for route in ("exact", "last-layer", "probe", "features"):
        if wish.unprobed and route == "probe":
            continue
        if (wish.features or route in ("exact", "probe")) and costs[route] <= wish.budget:
            return route, f"{about[route]}, within the budget of {wish.budget:g}×"
    cheapest = "features" if wish.features else "exact" if wish.unprobed else "probe"
    return cheapest, f"the cheapest there is; {about[cheapest]}, over the budget of {wish.budget:g}×"
