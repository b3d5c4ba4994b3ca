"""The offline suite: eight real problems, eight arms, paired seeds; how long it takes and what came of it.

``run`` trains what is missing, one study a problem, and goes on where it was stopped. ``table`` prints the README's
table from the studies' folders: Δm of every arm with its interval, and the verdict. With ``--trials`` every arm is
tuned, and the sum with searched weights joins them.

    python benchmarks/suite.py run --workers 2
    python benchmarks/suite.py table
"""

import argparse
import math
import resource
import time
from pathlib import Path

from motet.study.results import SINGLE, Interval
from motet.study.study import Study, opened

PROBLEMS = ("qm9-mini", "chemicals", "census", "multi-mnist", "pbmc", "reviews", "support2", "bikeshare")
ARMS = ("si", "famo", "fair-grad", "groups", "apt-adamw+sum", "umda+sum")
"""Beside single-task models and the plain sum."""
TUNED = ("sum:tuned", *ARMS)


def run(options: argparse.Namespace) -> None:
    for problem in options.problems:
        folder = options.out / problem
        start = time.perf_counter()
        arms = options.arms or (TUNED if options.trials else ARMS)
        more = {"tuning": options.trials} if options.trials else {}
        study = Study(
            problem,
            arms,
            options.seeds,
            out=folder,
            resume=folder.exists(),
            workers=options.workers,
            progress=True,
            **more,
        )
        study.run()
        study.report(folder / "report.html")
        used = sum(
            resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(f"{problem}: {time.perf_counter() - start:.0f} s, {used:.0f} CPU seconds so far", flush=True)


def table(options: argparse.Namespace) -> None:
    studies = {
        problem: opened(options.out / problem) for problem in options.problems if (options.out / problem).exists()
    }
    summaries = {problem: study.summary() for problem, study in studies.items()}
    arms = list(dict.fromkeys(row.arm for summary in summaries.values() for row in summary.arms if row.arm != SINGLE))
    print("| problem (tasks, seeds) | " + " | ".join(arms) + " | verdict |")
    print("| --- |" + " --- |" * (len(arms) + 1))
    for problem, summary in summaries.items():
        rows = {row.arm: row for row in summary.arms if row.arm != SINGLE}
        best = min((row.delta_m.mean for row in rows.values()), default=math.nan)
        cells = [_cell(rows[arm].delta_m, rows[arm].delta_m.mean == best) if arm in rows else "–" for arm in arms]
        head = f"{problem} ({len(summary.baseline)}, {summary.verdict.seeds})"
        print(f"| {head} | " + " | ".join([*cells, _verdict(summary.verdict)]) + " |")
    print()
    for problem, summary in summaries.items():
        rows = "; ".join(
            f"{row.arm} {row.over_sum.mean:+.1f} (p {row.p_sum_holm:.3f}, {row.step_cost:.1f}×)"
            for row in summary.arms
            if row.arm not in (SINGLE, "sum")
        )
        print(f"- {problem}, against the sum: {rows}")


def _cell(interval: Interval, best: bool) -> str:
    mean = f"{interval.mean:+.1f}".replace("-", "−")
    bounds = f"[{interval.low:.1f}, {interval.high:.1f}]".replace("-", "−")
    return f"**{mean}** {bounds}" if best else f"{mean} {bounds}"


def _verdict(verdict: object) -> str:
    decision, arm = getattr(verdict, "decision"), getattr(verdict, "arm")  # noqa: B009
    return f"{decision} {arm}" if decision == "ADOPT" else str(decision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/suite"))
    options = parser.parse_args()
    {"run": run, "table": table}[options.action](options)


if __name__ == "__main__":
    main()
