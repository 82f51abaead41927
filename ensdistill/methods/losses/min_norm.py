"""Minimum-norm point of a capped convex hull: exact solution of the small quadratic program in `aekd`."""

from __future__ import annotations

from ensdistill.runtime.lazy import np

TINY = 1e-10  # relative tolerance, applied after the directions are normalized to unit length


def min_norm_weights(gram: np.ndarray, cap: float) -> np.ndarray:
    """Returns argmin_a |sum_m a_m g_m|^2 / 2  subject to  sum a = 1,  0 <= a_m <= C.

    The unknowns are b_m = a_m |g_m| / min |g|, and the cosines between the g_m replace G. The lengths of the g_m can
    then differ by any factor: for a long vector, a_m is tiny but b_m is not. With G itself, short vectors would be lost
    to rounding errors. The solver is a primal active-set method. It starts at equal weights, moves towards the
    minimum over the free weights, and stops at the first bound. At a minimum, it frees the weight that most violates
    the multiplier condition.

    Args:
        gram: G_mn = g_m . g_n, (M,M), positive semidefinite, of any scale.
        cap: Upper bound C; if it is at most 1/M, all weights are equal.

    Returns:
        Weights a, (M,); equal weights if G is zero or not finite. The weights are invariant to the scale of G. If the
        solution is unique, they are equivariant to the order of the g_m.

    References:
        Nocedal and Wright 2006, section 16.5. With C = 1, the solution is the same as in MGDA (Desideri 2012).
    """
    m, total = len(gram), np.trace(gram)
    equal = np.full(m, 1 / m)
    if not 0 < total < np.inf or cap <= (1 + TINY) / m:
        return equal
    lengths = np.sqrt(gram.diagonal())
    if not lengths.all():  # zero vectors get an arbitrary positive length, which avoids division by 0
        lengths = np.where(lengths > 0, lengths, lengths[lengths > 0].min())
    cosines = gram / lengths / lengths[:, None]
    shares = lengths.min() / lengths  # a = b * shares
    b = _solve(cosines, shares, equal / shares, cap / shares)
    weights: np.ndarray = b * shares / (b * shares).sum()
    return weights


def _solve(gram: np.ndarray, shares: np.ndarray, b: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Returns argmin_b b'Gb / 2  subject to  shares . b = 1,  0 <= b <= most, starting at a feasible b."""
    m = len(gram)
    held = np.zeros(m, dtype=bool)
    for _ in range(100 * m):  # far more than required; each pass keeps b feasible and never increases the objective
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
    """Returns the multiplier of the sum constraint: slope = level * shares at a minimum over the free weights.

    It is computed from the free weight with the largest share; if no weight is free, it is the largest
    slope / share.
    """
    ratios = slope / shares
    return float(ratios.max() if held.all() else ratios[np.where(held, -1.0, shares).argmax()])


def _step_to_minimum(gram: np.ndarray, shares: np.ndarray, slope: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Returns the shortest step that moves the free weights to the minimum and preserves the sum constraint.

    The free weight with the largest share compensates for the others, so that there is no division by a small share.
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
    """Returns the feasible fraction of the step, in [0,1], and the index of the weight that limits it, if any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (most - b) / step, np.where(step < 0, -b / step, np.inf))
    first = int(room.argmin())
    return (max(room[first], 0.0), first) if room[first] < 1 else (1.0, None)
