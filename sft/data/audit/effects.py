"""How much two samples differ, and whether that can be chance.

Every test gives a ``Difference``: an effect size that does not grow with the number of rows, the
size from which we call it a difference, and a p value that is corrected later (``holm``). Rows are
taken as independent.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

MIN_ROWS = 20  # in each of both sets; with fewer nothing can be told
SIGNIFICANT = 0.01  # p value after Holm's correction
# Cohen calls h = 0.2 small and 0.5 medium; the others are as large on typical data.
THRESHOLDS = {"Cohen's h": 0.3, "KS distance": 0.15, "TV distance": 0.1, "JS excess (bits)": 0.05}
_EXPECTED = 5  # smallest expected count for which the chi-squared approximation is trusted
_SPLITS = 20  # random halves of train that say what chance gives


@dataclasses.dataclass(frozen=True)
class Difference:
    """One feature in two sets.

    Attributes:
      feature: what was measured, as shown: ``prompt: code fence``.
      group: kind of feature: length, format, casing, script, language, instruction, vocabulary.
      left, right: values: a share, a median, or shares by category.
      effect, measure: effect size and its name, a key of ``THRESHOLDS``.
      p: probability of so large a difference by chance.
    """

    feature: str
    group: str
    left: Any
    right: Any
    effect: float
    measure: str
    p: float

    @property
    def strength(self) -> float:
        """Effect in units of its threshold: comparable between features."""
        return self.effect / THRESHOLDS[self.measure]

    @property
    def differs(self) -> bool:
        return self.strength >= 1 and self.p < SIGNIFICANT


def share(feature: str, group: str, left: Sequence[bool], right: Sequence[bool]) -> Difference:
    """Share of rows: Cohen's h = |2 asin √p₁ - 2 asin √p₂| (Cohen 1988, 6.2) and Fisher's exact
    test."""
    from scipy import stats

    a, b = sum(left), sum(right)
    shares = a / len(left), b / len(right)
    h = abs(2 * math.asin(math.sqrt(shares[0])) - 2 * math.asin(math.sqrt(shares[1])))
    p = float(stats.fisher_exact([[a, len(left) - a], [b, len(right) - b]])[1])
    return Difference(feature, group, *shares, h, "Cohen's h", p)


def numbers(feature: str, group: str, left: np.ndarray, right: np.ndarray) -> Difference:
    """A number per row: the two-sample Kolmogorov-Smirnov test; the values are medians."""
    from scipy import stats

    found = stats.ks_2samp(left, right, method="asymp")
    medians = float(np.median(left)), float(np.median(right))
    return Difference(
        feature, group, *medians, float(found.statistic), "KS distance", float(found.pvalue)
    )


def mix(feature: str, group: str, left: Sequence[str], right: Sequence[str]) -> Difference:
    """A category per row: total variation distance ½ Σ|p - q| and Pearson's chi-squared test.

    Categories whose expected count is below 5 are taken together as one, in both.
    """
    from scipy import stats

    a, b = Counter(left), Counter(right)
    both = a + b
    smaller = min(len(left), len(right)) / (len(left) + len(right))
    common = [name for name in both if both[name] * smaller >= _EXPECTED]
    table = np.array([[a[name] for name in common], [b[name] for name in common]], float)
    table = table.reshape(2, -1)
    rest = np.array([[len(left)], [len(right)]]) - table.sum(1, keepdims=True)
    if rest.sum():
        table = np.concatenate([table, rest], axis=1)
    p = float(stats.chi2_contingency(table)[1]) if table.shape[1] > 1 else 1.0
    names = [name for name, _ in both.most_common()]
    shares = [{name: c[name] / c.total() for name in names if c[name]} for c in (a, b)]
    distance = float(np.abs(table[0] / len(left) - table[1] / len(right)).sum() / 2)
    tops = [dict(list(s.items())[:5]) for s in shares]
    return Difference(feature, group, *tops, distance, "TV distance", p)


def vocabulary(
    left: Sequence[np.ndarray], right: Sequence[np.ndarray], seed: int = 0
) -> Difference | None:
    """Token unigrams: Jensen-Shannon divergence beyond what two random parts of ``left`` have.

    Short samples differ by chance, so both sides are cut to the same number of tokens: of
    ``right``, and of a random part of ``left``, each against the rest of ``left``, over 20 draws.
    ``left`` and ``right`` hold one int array of token ids a row. The effect is the mean excess in
    bits (0 to 1), p the normal tail of it against the spread of the draws. The values are the two
    divergences. ``None`` where there are too few tokens.
    """
    from scipy import stats

    rng = np.random.default_rng(seed)
    ids = np.unique(np.concatenate([*left, *right]), return_inverse=True)[1]
    size = int(ids.max(initial=0)) + 1
    bounds = np.cumsum([len(row) for row in (*left, *right)])[:-1]
    rows = np.split(ids, bounds)
    left, right = rows[: len(left)], rows[len(left) :]
    budget = min(sum(map(len, left)) // 2, sum(map(len, right)))
    if budget < 100:
        return None
    chance, found = [], []
    for _ in range(_SPLITS):
        shuffled = np.concatenate([left[i] for i in rng.permutation(len(left))])
        other = np.concatenate([right[i] for i in rng.permutation(len(right))])
        rest = np.bincount(shuffled[budget:], minlength=size)
        chance.append(divergence(np.bincount(shuffled[:budget], minlength=size), rest))
        found.append(divergence(np.bincount(other[:budget], minlength=size), rest))
    excess = float(np.mean(found) - np.mean(chance))
    spread = max(float(np.std(chance, ddof=1)), 1e-6)
    p = float(stats.norm.sf(excess / spread))
    return Difference(
        "prompt: vocabulary",
        "vocabulary",
        float(np.mean(chance)),
        float(np.mean(found)),
        max(excess, 0.0),
        "JS excess (bits)",
        p,
    )


def divergence(left: np.ndarray, right: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1, of two arrays of counts (Lin 1991)."""
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2

    def relative(a: np.ndarray) -> float:
        used = a > 0
        return float(np.sum(a[used] * np.log2(a[used] / middle[used])))

    return (relative(p) + relative(q)) / 2


def unseen(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> dict[str, float]:
    """Of the token types and tokens of ``right``, the share that ``left`` never has."""
    known = np.unique(np.concatenate([*left, np.zeros(0, np.int32)]))
    types, counts = np.unique(
        np.concatenate([*right, np.zeros(0, np.int32)]).astype(np.int64), return_counts=True
    )
    new = ~np.isin(types, known)
    if not len(types):
        return {"types": 0.0, "tokens": 0.0}
    return {"types": float(new.mean()), "tokens": float(counts[new].sum() / counts.sum())}


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same with p values corrected for their number (Holm 1979)."""
    order = sorted(range(len(differences)), key=lambda i: differences[i].p)
    corrected, highest = [0.0] * len(differences), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, differences[index].p * (len(differences) - rank)))
        corrected[index] = highest
    return [dataclasses.replace(d, p=p) for d, p in zip(differences, corrected, strict=True)]
