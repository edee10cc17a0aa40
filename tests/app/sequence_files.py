"""Files of sequence pairs for tests."""

import numpy as np

PAIRS, LONGEST = 60, 7


def pairs(shift=0.0):
    """Targets of 1 to 7 tokens and conditions of 1 to 5.

    A target is the mean of its condition, plus its own position ids.
    """
    random = np.random.default_rng(0)
    condition = random.normal(size=(PAIRS, 5, 3)).astype(np.float32)
    condition_mask = np.arange(5)[None] < random.integers(1, 6, (PAIRS, 1))
    target_mask = np.arange(LONGEST)[None] < random.integers(1, LONGEST + 1, (PAIRS, 1))
    mean = (condition * condition_mask[..., None]).sum(1, keepdims=True) / condition_mask.sum(1)[
        :, None, None
    ]
    target = 50.0 + shift + np.repeat(mean[..., :2], LONGEST, 1)
    ids = random.integers(0, 20, (PAIRS, LONGEST, 3)).astype(np.float32)
    arrays = {
        "condition": condition,
        "condition_mask": condition_mask,
        "target": target,
        "target_mask": target_mask,
    }
    return {**arrays, "target_ids": ids}
