"""Every combination of order, pace and remasking that `generate` takes.

Written down once more than in the library, so that a slip in its tables shows.
"""

from hf_maskgit.core.sampler_orders import ORDERS

REMDM = ["remdm_cap", "remdm_rescale", "remdm_conf", "remdm_loop"]
# (order, pace, remask, p2_planner)
LEGAL = [
    *[(order, "schedule", "never", "self") for order in ORDERS],
    ("random", "ancestral", "never", "self"),
    ("random", "first_hitting", "never", "self"),
    ("top_probability", "threshold", "never", "self"),
    ("confidence", "threshold", "never", "self"),
    ("entropy", "entropy_bound", "never", "self"),
    ("margin", "entropy_bound", "never", "self"),
    ("top_probability", "entropy_bound", "never", "self"),
    ("random", "speculative", "never", "self"),
    ("left_to_right", "speculative", "never", "self"),
    ("top_probability", "schedule", "confidence", "self"),
    ("confidence", "schedule", "confidence", "self"),
    ("critic", "schedule", "critic", "self"),
    ("top_probability", "schedule", "p2", "self"),
    ("confidence", "schedule", "p2", "self"),
    ("critic", "schedule", "p2", "critic"),
    *[("random", "ancestral", remask, "self") for remask in REMDM],
]


def choices(combination):
    """The options of `generate` for one of `LEGAL`."""
    return dict(zip(("order", "pace", "remask", "p2_planner"), combination, strict=True))
