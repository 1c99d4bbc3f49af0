"""Whether a difference is more than chance: a paired test, and Holm's correction for many."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon


def paired_p(differences: np.ndarray) -> float:
    """Two-sided p of "there is no difference", by Wilcoxon's signed ranks (1945).

    Args:
        differences: one for each image, as the cases of an image belong together; zeros say
            nothing, and are left out.
    """
    told = np.asarray(differences, dtype=float)
    told = told[np.isfinite(told) & (told != 0)]
    return 1.0 if len(told) < 2 else float(wilcoxon(told).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values of several tests, so that any false alarm among them is as rare as one alone.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none may be smaller than the
    one before it (Holm, 1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort(kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(corrected, 1.0)
    return result
