"""What a reader of a verdict must know beside its numbers, in sentences for a stranger."""

from collections import Counter
from collections.abc import Sequence

from motet.study.architectures import HARD, architecture_of
from motet.study.optimizers import PLAIN, optimizer_of
from motet.study.results import SINGLE, SUM, Run
from motet.study.wording import times

ALIKE = 0.1
"""Share of the plain sum's parameters by which another arm's may differ without a word."""
_KINDS = {
    "broke down": "Training broke down in {where}: a loss or gradient was not finite.",
    "unconverged": "The method's solver stopped at its iteration limit in {where}.",
    "second batch": "The second batch of {where} was another one of the training split, not of the validation split.",
    "stand-in": "For tasks without an accuracy the losses stood in for it in {where}.",
    "warm-up": "No groups were learnt in {where}: training ended within the warm-up, in which every task is alone.",
    "last epoch": "The best epoch was one of the last two in {where}: more epochs may change the result.",
}


def of_runs(runs: Sequence[Run]) -> list[str]:
    """One sentence for each kind of notice, with the arms and the number of their runs that gave it."""
    total = Counter(run.arm for run in runs)
    said = []
    for kind, sentence in _KINDS.items():
        counts = Counter(run.arm for run in runs if any(notice.kind == kind for notice in run.warnings))
        if counts:
            parts = [f"{arm} ({count} of {total[arm]} runs)" for arm, count in counts.items()]
            said.append(sentence.format(where="every run" if counts == total else _listed(parts)))
    return said


def same_data(runs: Sequence[Run]) -> bool:
    """Whether several seeds had exactly the same rows in each part."""
    data = {run.seed: run.provenance.get("data") for run in runs}
    return len(data) > 1 and len(set(data.values())) == 1 and None not in data.values()


def of_seeds(runs: Sequence[Run], fresh: bool, fixed_test: bool) -> list[str]:
    """What p can't say because of how seeds differ.

    Args:
        runs: Their ``provenance`` tells whether all seeds had the same data.
        fresh: Whether every seed draws new rows.
        fixed_test: Whether all seeds are tested on the same rows.
    """
    if len({run.seed for run in runs}) < 2 or fresh:
        return []
    if same_data(runs):
        return [
            "The split is the same for every seed, so p and the intervals measure initialisation and the order of "
            "batches only: they say nothing of other rows or other times."
        ]
    if fixed_test:
        return [
            "Every seed is tested on the same rows, and only training and validation rows are drawn anew: p and the "
            "intervals say nothing of other test rows."
        ]
    return [
        "p and the intervals are for these data: the same rows recur in every seed, so they say how sure the "
        "difference is over splits of these rows, and nothing of other data."
    ]


def of_looks(looks: Sequence[int], planned: Sequence[int], seeds: int, wanted: int) -> list[str]:
    """That the verdict was read more than once, while seeds were added; a rule that planned for it says so itself.

    Args:
        looks: After how many seeds it was read.
        planned: The looks of the rule.
        seeds: How many there are now.
        wanted: How many the last start was to train.
    """
    if planned:
        return []
    if seeds < wanted:
        return [
            f"{seeds} of the {wanted} seeds that were planned are there: to stop where a difference shows makes "
            "a false one likelier than p says, so wait for the others, or go on with --resume."
        ]
    if len(looks) < 2:
        return []
    return [
        f"This is look {len(looks)} at the verdict, after {_listed([str(seeds) for seeds in looks])} seeds. Adding "
        "seeds until a difference shows makes a false one likelier than p says: choose the number of seeds first."
    ]


def of_optimizers(arms: Sequence[str], tuned: bool = False) -> list[str]:
    """That some arms' changes hold the gain of another optimizer or learning rate, and what to compare them with.

    Args:
        arms: Of the study.
        tuned: Whether a learning rate was searched for each arm that sets none.
    """
    chosen = {arm: optimizer_of(arm) for arm in arms}
    other = [arm for arm, optimizer in chosen.items() if optimizer != PLAIN]
    if not other:
        return []
    wanted = dict.fromkeys(f"{optimizer.label}{SUM}" for optimizer in chosen.values() if optimizer != PLAIN)
    lacking = [label for label in wanted if label not in arms]
    more = f" Not in this study: {_listed(lacking)}." if lacking else ""
    said = [
        f"{_listed(other)} {'has' if len(other) == 1 else 'have'} another optimizer than {SINGLE} and {SUM}, so a "
        "change against these is the optimizer's own gain and the method's together: hold each against the plain sum "
        f"with the same optimizer.{more}"
    ]
    if own := with_own_rate(arms):
        how = "trains at a learning rate of its own" if len(own) == 1 else "train at learning rates of their own"
        rest = "that was not searched, as all other arms' was" if tuned else "and all other arms at the study's"
        said.append(f"{_listed(own)} {how}, {rest}: part of a difference may be the rate's.")
    if tuned:
        return said
    muons = [arm for arm, found in chosen.items() if found.name in ("muon", "apt-muon") and found.learning_rate is None]
    if muons:
        how = "trains" if len(muons) == 1 else "train"
        said.append(
            f"{_listed(muons)} {how} at the study's learning rate. Muon's best one is often another than AdamW's, so "
            "Muon may do better than it looks here: try others, as in muon(lr=0.01)+sum, from ×0.3 to ×10."
        )
    return said


def of_architectures(runs: Sequence[Run]) -> list[str]:
    """That some arms' changes hold the gain of another model, of its size, and of its penalties."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    chosen = {arm: architecture_of(arm) for arm in arms}
    other = [arm for arm, found in chosen.items() if found != HARD]
    if not other:
        return []
    wanted = dict.fromkeys(f"{optimizer_of(arm).label}{chosen[arm].label}{SUM}" for arm in other)
    lacking = [label for label in wanted if label not in arms]
    more = f" Not in this study: {_listed(lacking)}." if lacking else ""
    said = [
        f"{_listed(other)} {'has' if len(other) == 1 else 'have'} another model than {SINGLE} and {SUM}, so a change "
        "against these is the model's own gain and the method's together: hold each against the plain sum with the "
        f"same model.{more}"
    ]
    if sizes := _sizes(runs, other):
        said.append(
            f"Parameters differ from the {sizes[0]} of {SUM}: {_listed(sizes[1])}. Part of a difference may be the "
            "size's: compare at equal size, as with mmoe(width=…)+sum or hard(width=…)+sum."
        )
    if penalised := [arm for arm in other if chosen[arm].penalised]:
        how = "minimises" if len(penalised) == 1 else "minimise"
        said.append(
            f"{_listed(penalised)} {how} penalties of the model beside the tasks' losses, with fixed coefficients and "
            "warm-up. They enter no method's weights, but the step length and the momentum's figures."
        )
    return said


def _sizes(runs: Sequence[Run], arms: Sequence[str]) -> tuple[str, list[str]] | None:
    """The plain sum's number of parameters, and in words how far the arms' are from it; None where none is far."""
    known = {run.arm: run.cost.parameters for run in runs}
    if not known.get(SUM):
        return None
    ratios = {arm: known[arm] / known[SUM] for arm in arms}
    far = [f"{arm} has {times(ratio)} as many" for arm, ratio in ratios.items() if abs(ratio - 1) > ALIKE]
    return (f"{known[SUM]:,}".replace(",", "\u202f"), far) if far else None


def with_own_rate(arms: Sequence[str]) -> list[str]:
    """Arms whose prefix sets a learning rate."""
    return [arm for arm in arms if optimizer_of(arm).learning_rate is not None]


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
