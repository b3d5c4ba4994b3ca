"""Which route to take when the user leaves it open."""

from typing import Literal

RouteName = Literal["auto", "exact", "last-layer", "features"]
ROUTES = ("exact", "last-layer", "features")

# Measured steps over the plain sum's at K = 2…40 (docs/benchmarks.md): the last layer costs a few per cent a
# task on convolutions and about a tenth on plain perceptrons.
_LAST_LAYER_PER_TASK = 0.1


def choose(
    needs: str, tasks: int, features: bool, shared: bool, budget: float | None, same_rows: bool = False
) -> tuple[str, str]:
    """The route and the reason: ``choose("gram", 40, True, False, None)``.

    Args:
        needs: What the method works on: "losses", "gram" or "jacobian".
        tasks: K.
        features: Whether the features were given.
        shared: Whether the shared parameters were given.
        budget: Largest allowed factor over the plain step, or None.
        same_rows: Whether the gradients must be of the same parameters in every step.

    Raises:
        ValueError: if nothing was given that a route could start from.
    """
    if needs == "losses":
        return "none", "the method needs the losses' values only"
    if not features and not shared:
        raise ValueError(
            "the method needs the tasks' gradients: pass features=z, the tensor that all heads take, "
            "or shared=model.trunk.parameters()"
        )
    exact = (1 + 2 * tasks) / 3
    over = "" if budget is None or exact <= budget else f", over the budget of {budget:g}×"
    if not features:
        return "exact", f"only the shared parameters are known; about {exact:.1f}× a plain step{over}"
    if same_rows:
        return "exact", f"the method averages gradients over steps; about {exact:.1f}× a plain step{over}"
    if budget is None:
        if needs == "jacobian":
            return "exact", f"the method needs whole gradients; about {exact:.1f}× a plain step"
        if tasks <= 4:
            return "exact", f"with {tasks} tasks it costs about {exact:.1f}× a plain step"
        return "last-layer", f"the exact route would cost about {exact:.1f}× a plain step with {tasks} tasks"
    if exact <= budget:
        return "exact", f"about {exact:.1f}× a plain step is within the budget of {budget:g}×"
    last_layer = 1 + _LAST_LAYER_PER_TASK * tasks
    if needs == "gram" and last_layer <= budget:
        return "last-layer", f"about {last_layer:.1f}× a plain step is within the budget of {budget:g}×"
    return "features", f"the only route within the budget of {budget:g}× a plain step"
