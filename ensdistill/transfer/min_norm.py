"""The shortest vector in a capped hull: the small quadratic programme of `aekd`, solved exactly."""

import numpy as np

TINY = 1e-10  # of numbers of order one: the Gram matrix is scaled first


def min_norm_weights(gram: np.ndarray, cap: float) -> np.ndarray:
    """argmin_a |sum_m a_m g_m|^2 / 2  subject to  sum a = 1,  0 <= a_m <= C.

    gram: G_mn = g_m . g_n, (M,M), positive semidefinite, in any scale. cap: C; at or below 1/M all weights are equal.
    Returns a, (M,); equal weights where G is zero or not finite. Invariant to the scale of G; equivariant to the order
    of the g_m where the answer is unique.

    A primal active-set method: start at equal weights, walk to the minimum over the free weights, stop at the first
    bound in the way, and at a minimum free the weight whose multiplier is the most wrong. Nocedal and Wright 2006,
    section 16.5. With C = 1 the answer is MGDA's (Desideri 2012).
    """
    m, scale = len(gram), np.trace(gram)
    a = np.full(m, 1 / m)
    if not 0 < scale < np.inf or cap <= (1 + TINY) / m:
        return a
    gram = gram * (m / scale)
    held = np.zeros(m, dtype=bool)
    for _ in range(100 * m):  # far above what is needed; a stays feasible and never gets worse on the way
        step = _step_to_minimum(gram, a, ~held)
        if np.abs(step).max() > TINY:
            length, stopped_by = _room(a, step, cap)
            a = np.clip(a + length * step, 0, cap)
            if stopped_by is not None:
                a[stopped_by] = cap if step[stopped_by] > 0 else 0.0
                held[stopped_by] = True
            continue
        wrong = _wrongness(gram @ a, a, held)
        if wrong.max() <= TINY:
            break
        held[wrong.argmax()] = False
    weights: np.ndarray = a / a.sum()
    return weights


def _step_to_minimum(gram: np.ndarray, a: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The step among the free weights, of sum zero, to the lowest point; the shortest one if there are many."""
    n = int(free.sum())
    kkt = np.zeros((n + 1, n + 1))
    kkt[:n, :n], kkt[:n, n], kkt[n, :n] = gram[np.ix_(free, free)], 1, 1
    right = np.append(-(gram @ a)[free], 0)
    step = np.zeros(len(a))
    step[free] = np.linalg.lstsq(kkt, right, rcond=1e-13)[0][:n]
    return step


def _room(a: np.ndarray, step: np.ndarray, cap: float) -> tuple[float, int | None]:
    """How much of the step fits into the box, at most all of it, and the weight that stops it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > TINY, (cap - a) / step, np.where(step < -TINY, -a / step, np.inf))
    first = int(room.argmin())
    return (max(room[first], 0.0), first) if room[first] < 1 else (1.0, None)


def _wrongness(slope: np.ndarray, a: np.ndarray, held: np.ndarray) -> np.ndarray:
    """By how much each held weight would like to leave its bound: up from 0 if its slope is below that of the free
    ones, down from C if above."""
    level = slope[~held].mean()
    return np.where(held, np.where(a > 0, slope - level, level - slope), 0.0)
