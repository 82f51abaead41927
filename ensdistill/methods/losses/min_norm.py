"""The shortest vector in a capped hull: the small quadratic programme of `aekd`, solved exactly."""

from __future__ import annotations

from ensdistill.runtime.lazy import np

TINY = 1e-10  # of numbers of order one: directions are scaled to length one first


def min_norm_weights(gram: np.ndarray, cap: float) -> np.ndarray:
    """argmin_a |sum_m a_m g_m|^2 / 2  subject to  sum a = 1,  0 <= a_m <= C.

    gram: G_mn = g_m . g_n, (M,M), positive semidefinite, in any scale. cap: C; at or below 1/M all weights are equal.
    Returns a, (M,); equal weights where G is zero or not finite. Invariant to the scale of G; equivariant to the order
    of the g_m where the answer is unique.

    It is solved for b_m = a_m |g_m| / min |g|, with the cosines between the g_m in place of G: their lengths may differ
    by any factor (a_m of a long one is small, b_m is not), where G itself would hide the short ones in its rounding.
    A primal active-set method: start at equal weights, walk to the minimum over the free weights, stop at the first
    bound in the way, and at a minimum free the weight whose multiplier is the most wrong. Nocedal and Wright 2006,
    section 16.5. With C = 1 the answer is MGDA's (Desideri 2012).
    """
    m, total = len(gram), np.trace(gram)
    equal = np.full(m, 1 / m)
    if not 0 < total < np.inf or cap <= (1 + TINY) / m:
        return equal
    lengths = np.sqrt(gram.diagonal())
    if not lengths.all():  # one that is zero has no direction; any length will do for it
        lengths = np.where(lengths > 0, lengths, lengths[lengths > 0].min())
    cosines = gram / lengths / lengths[:, None]
    shares = lengths.min() / lengths  # a = b * shares
    b = _solve(cosines, shares, equal / shares, cap / shares)
    weights: np.ndarray = b * shares / (b * shares).sum()
    return weights


def _solve(gram: np.ndarray, shares: np.ndarray, b: np.ndarray, most: np.ndarray) -> np.ndarray:
    """argmin_b b'Gb / 2  subject to  shares . b = 1,  0 <= b <= most; from a b that satisfies them."""
    m = len(gram)
    held = np.zeros(m, dtype=bool)
    for _ in range(100 * m):  # far above what is needed; b stays feasible and never gets worse on the way
        slope = gram @ b
        level = _level(slope, shares, held)
        step = _step_to_minimum(gram, shares, slope, ~held)
        if np.abs(step).max() > TINY * max(1.0, b.max()):
            length, stopped_by = _room(b, step, most)
            b = np.clip(b + length * step, 0, most)
            if stopped_by is not None:
                b[stopped_by] = most[stopped_by] if step[stopped_by] > 0 else 0.0
                held[stopped_by] = True
            continue
        wrong = np.where(held, np.where(b > 0, slope - level * shares, level * shares - slope), 0.0)
        if wrong.max() <= TINY * max(np.abs(slope).max(), TINY * b.max()):
            break
        held[wrong.argmax()] = False
    return b


def _level(slope: np.ndarray, shares: np.ndarray, held: np.ndarray) -> float:
    """The multiplier of the sum: slope = level * shares at a minimum over the free weights.

    Read off the free one that has the largest share; without any, the largest that a weight at a bound suggests.
    """
    ratios = slope / shares
    return float(ratios.max() if held.all() else ratios[np.where(held, -1.0, shares).argmax()])


def _step_to_minimum(gram: np.ndarray, shares: np.ndarray, slope: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The step among the free weights that keeps their sum, to the lowest point; the shortest one if there are many.

    The free weight with the largest share takes what the others give: no weight is divided by a small share.
    """
    pivot = int(np.where(free, shares, -1.0).argmax())
    others = np.flatnonzero(free & (np.arange(len(free)) != pivot))
    moves = np.zeros((len(free), len(others)))
    moves[others, np.arange(len(others))] = 1
    moves[pivot] = -shares[others] / shares[pivot]
    if not len(others):
        return np.zeros(len(free))
    lowest: np.ndarray = moves @ np.linalg.lstsq(moves.T @ gram @ moves, -(moves.T @ slope), rcond=1e-13)[0]
    return lowest


def _room(b: np.ndarray, step: np.ndarray, most: np.ndarray) -> tuple[float, int | None]:
    """How much of the step fits into the box, at most all of it, and the weight that stops it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (most - b) / step, np.where(step < 0, -b / step, np.inf))
    first = int(room.argmin())
    return (max(room[first], 0.0), first) if room[first] < 1 else (1.0, None)
