"""Simulated sweeps, to measure what the statistics promise. ``python simulate.py`` prints the tables.

A problem has a difficulty of its own (a beta distribution), so that samples of one problem hang together. A
setting loses a share of what dense gets right, the same on every problem or all of it on a few. Of the pairs,
half share their sampling noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from seer_ray.analysis import clustered
from seer_ray.analysis.paired import PairedOutcomes, difference, non_inferiority_of, tally
from seer_ray.analysis.racing import evidence

Array = NDArray[np.float64]
SWEEPS = 2000
HAPPENS = 1e-4
"""With code that does what it promises a check fails by chance with this probability at most."""


@dataclass(frozen=True)
class Case:
    problems: int
    samples: int
    accuracy: float
    loss: float = 0.0
    """True loss of accuracy."""
    few: bool = False
    """Whether a few problems carry it."""


def at_least(rate: float, trials: int = SWEEPS) -> float:
    """The smallest share of trials that a rate of at least ``rate`` gives, but for ``HAPPENS``."""
    return float(binom.ppf(HAPPENS, trials, rate)) / trials


def at_most(rate: float, trials: int = SWEEPS) -> float:
    return float(binom.ppf(1 - HAPPENS, trials, rate)) / trials


def draw(case: Case, seed: int = 0, sweeps: int = SWEEPS) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What dense and a setting got right, [sweeps, problems, samples]."""
    rng = np.random.default_rng(seed)
    shape = sweeps, case.problems, case.samples
    difficulty = rng.beta(3 * case.accuracy, 3 * (1 - case.accuracy), shape[:2])
    share = case.loss / case.accuracy
    if case.few and share:
        lost = rng.beta(share / 2, (1 - share) / 2, shape[:2])
    else:
        lost = np.full(shape[:2], share)
    noise = rng.random(shape)
    other = np.where(rng.random(shape) < 0.5, noise, rng.random(shape))
    return noise < difficulty[..., None], other < (difficulty * (1 - lost))[..., None]


def tallies(dense: NDArray[np.bool_], setting: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Pairs gained, lost, and all, [sweeps, problems]."""
    gained, lost = (setting & ~dense).sum(-1), (dense & ~setting).sum(-1)
    return gained.astype(float), lost.astype(float), np.full(gained.shape, float(dense.shape[-1]))


def accuracy_coverage(case: Case, confidence: float = 0.95) -> tuple[float, float]:
    """How often the interval of an accuracy, and value ± t·se, hold the truth."""
    dense, _ = draw(case)
    counts = np.full(dense.shape[:2], case.samples)
    value, error, low, high = clustered.proportion(dense.sum(-1), counts, confidence)
    t = clustered.quantile(0.5 + confidence / 2, counts)
    inside = (low <= case.accuracy) & (case.accuracy <= high)
    return float(inside.mean()), float((abs(value - case.accuracy) <= t * error).mean())


def difference_coverage(case: Case, confidence: float = 0.95) -> tuple[float, float]:
    """The same of the interval of a paired difference."""
    gained, lost, counts = tallies(*draw(case))
    value, error, shares = tally(gained, lost, counts)
    t = clustered.quantile(0.5 + confidence / 2, counts)
    low, high = clustered.score_interval(*shares, t)
    inside = (low <= -case.loss) & (-case.loss <= high)
    return float(inside.mean()), float((abs(value + case.loss) <= t * error).mean())


def alarms(case: Case, level: float = 0.05) -> float:
    """How often the exact paired test says that something differs."""
    gained, lost, _ = tallies(*draw(case))
    return float(np.mean([clustered.sign_flip(sums) <= level for sums in gained - lost]))


def exchange(
    problems: int, samples: int, sweeps: int = SWEEPS
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """No difference on average, but on a tenth of the problems each one of the two is always wrong."""
    dense, setting = draw(Case(problems, samples, 0.7))
    kind = np.random.default_rng(1).random(dense.shape[:2])[..., None]
    return dense & (kind > 0.1), setting & ~((kind > 0.1) & (kind < 0.2))


def exchange_alarms(problems: int, samples: int, level: float = 0.05) -> tuple[float, float]:
    """How often the exact test by problem, and McNemar's by sample, say that the average differs."""
    gained, lost, _ = tallies(*exchange(problems, samples))
    flips = [clustered.sign_flip(sums) <= level for sums in gained - lost]
    plus, both = gained.sum(-1), (gained + lost).sum(-1)
    mcnemar = np.minimum(1, 2 * binom.cdf(np.minimum(plus, both - plus), both, 0.5))
    return float(np.mean(flips)), float((mcnemar <= level).mean())


def kept(case: Case, margin: float, alpha: float = 0.05) -> float:
    """How often a setting is said to lose less than the margin."""
    p, _ = non_inferiority_of(*(np.asarray(x) for x in tallies(*draw(case))), margin, alpha)
    return float((p <= alpha).mean())


def races(
    case: Case, margin: float, alpha: float = 0.05, every: int = 10, sweeps: int = 1000
) -> dict[str, float]:
    """How often racing ever stops a setting as worse or as good enough, and the share of problems spared."""
    dense, setting = draw(case, sweeps=sweeps)
    means = setting.mean(-1) - dense.mean(-1)
    looks = range(20, case.problems + 1, every)
    ends = np.full(sweeps, case.problems)
    ever = {"worse": np.zeros(sweeps, bool), "good": np.zeros(sweeps, bool)}
    for n in looks:
        for name, wealth in zip(ever, evidence(means[:, :n], margin), strict=True):
            crossed = wealth >= np.log(1 / alpha)
            ever[name] |= crossed
            ends = np.where(crossed, np.minimum(ends, n), ends)
    found = {name: float(happened.mean()) for name, happened in ever.items()}
    return {**found, "spared": float(1 - ends.mean() / case.problems)}


def as_pairs(dense: NDArray[np.bool_], setting: NDArray[np.bool_]) -> PairedOutcomes:
    """One simulated sweep, [problems, samples]."""
    tokens = np.full(dense.shape, 100.0)
    return PairedOutcomes(
        name="setting",
        baseline="dense",
        problems=tuple(str(i) for i in range(len(dense))),
        correct=setting.astype(float),
        base_correct=dense.astype(float),
        tokens=tokens,
        base_tokens=tokens.copy(),
        complete=np.ones(len(dense), bool),
        same_seed=True,
        unmatched=0,
    )


def main() -> None:
    print("coverage of 95 % intervals, 2,000 sweeps each: accuracy (t), difference (t)")
    for p in (0.5, 0.95):
        for problems in (5, 10, 20, 50, 200):
            for samples in (1, 2, 4):
                case = Case(problems, samples, p, 0.02)
                few = Case(problems, samples, p, 0.02, few=True)
                ours, t = accuracy_coverage(case)
                diff, diff_t = difference_coverage(case)
                hard, hard_t = difference_coverage(few)
                print(
                    f"{p:.2f} {problems:4} problems x {samples}: {ours:.3f} ({t:.3f})   "
                    f"{diff:.3f} ({diff_t:.3f})   loss on few problems {hard:.3f} ({hard_t:.3f})"
                )
    print("paired test at 5 %: false alarms; power at a loss of 5 and 10 points")
    for p in (0.5, 0.95):
        for samples in (1, 2, 4):
            rates = [alarms(Case(200, samples, p, loss)) for loss in (0.0, 0.05, 0.1)]
            print(f"{p:.2f}  200 problems x {samples}: " + "  ".join(f"{rate:.3f}" for rate in rates))
    print(
        "the same, no average difference but single problems lost and gained: by problem, McNemar by sample"
    )
    for samples in (1, 2, 4):
        print(f"200 problems x {samples}: " + "  ".join(f"{r:.3f}" for r in exchange_alarms(200, samples)))
    print("non-inferiority at 2 points, 5 %: wrongly kept (loss 2 points; on few problems); power at no loss")
    for p in (0.5, 0.95):
        for problems in (50, 200, 1000):
            for samples in (1, 4):
                rates = [
                    kept(Case(problems, samples, p, 0.02), 0.02),
                    kept(Case(problems, samples, p, 0.02, few=True), 0.02),
                    kept(Case(problems, samples, p), 0.02),
                ]
                print(f"{p:.2f} {problems:4} problems x {samples}: " + "  ".join(f"{r:.3f}" for r in rates))
    print("racing at 2 points, 5 %, a look every 10 of 200 problems: ever worse, ever good, problems spared")
    for p in (0.5, 0.95):
        for loss in (0.0, 0.02, 0.05, 0.1, 0.2):
            found = races(Case(200, 2, p, loss), 0.02)
            print(
                f"{p:.2f} loss {loss:.2f}: " + "  ".join(f"{name} {rate:.3f}" for name, rate in found.items())
            )
    example = difference(as_pairs(*(x[0] for x in draw(Case(200, 2, 0.7, 0.02)))))
    print(example)


if __name__ == "__main__":
    main()
