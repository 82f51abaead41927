"""Settings of the confirmation: the re-evaluation of the top trials with fresh seeds."""

from ensdistill.settings.base import Settings, setting


class Confirmation(Settings):
    """Re-evaluation of the top trials and the baselines with fresh seeds, after the search."""

    top_k: int = setting(
        3,
        "Number of top trials that are re-evaluated in addition to all baselines; 0 disables confirmation.",
        ge=0,
        le=100,
    )
    seeds: int = setting(
        6,
        "Budget: mean number of replicates per candidate. Candidates that are clearly behind are dropped after three "
        "or more fresh seeds. The other candidates use the freed replicates, up to 20 seeds each, until the verdict is "
        "final.",
        ge=2,
        le=20,
    )
