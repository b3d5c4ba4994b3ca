"""The report's section on momentum: what is left of a method's gradient once the optimizer has made a step of it."""

from collections.abc import Sequence
from typing import Any

from motet.report.figures.momentum import cosines_of, middle_of, momentum_roles, shares_of, steps_of
from motet.report.numbers import MISSING, plain
from motet.report.svg import inline
from motet.study.results import Momentum, Run


def section(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Plain values for the template; None where no arm has a measured step."""
    found = steps_of(runs)
    if not found:
        return None
    return {
        "rows": [_row(arm, steps) for arm, steps in found.items()],
        "figures": [
            inline(momentum_roles(runs, [arm], 1), f"momentum-{i}", f"Momentum: {arm}", _words(steps))
            for i, (arm, steps) in enumerate(found.items())
        ],
        "without": [arm for arm in dict.fromkeys(run.arm for run in runs) if arm not in found],
    }


def _row(arm: str, steps: Sequence[Momentum]) -> dict[str, Any]:
    betas = [step.beta for step in steps if step.beta == step.beta]
    tasks = {task: cosine for task, cosine in cosines_of(steps).items() if cosine == cosine}
    worst = min(tasks, key=lambda task: tasks[task], default="")
    varies = bool(betas) and max(betas) - min(betas) > 1e-3
    return {
        "arm": arm,
        "steps": len(steps),
        "beta": middle_of(betas),
        "range": f"{plain(min(betas), 2)} to {plain(max(betas), 2)}" if varies else "",
        "nominal": middle_of(step.nominal for step in steps),
        "instant": middle_of(step.instant for step in steps),
        "cosine": middle_of(step.cosine_gradient for step in steps),
        "worst": worst,
        "worst_cosine": tasks.get(worst, float("nan")),
        "counterfactual": middle_of(step.counterfactual for step in steps),
    }


def _words(steps: Sequence[Momentum]) -> str:
    shares = [plain(share, 2) for share in shares_of(steps)]
    tasks = "; ".join(f"{task} {plain(cosine, 2)}" for task, cosine in cosines_of(steps).items())
    told = f"Shares from the current gradient on: {', '.join(shares) or MISSING}"
    return f"{told}. Cosine of the update with the tasks' gradients: {tasks or MISSING}"
