"""How the best trials of a study are evaluated again with fresh seeds."""

from ensdistill.settings.base import Settings, setting


class Confirmation(Settings):
    """What happens after the search."""

    top_k: int = setting(
        3, "How many of the best trials run again, and all baselines with them; 0 for none.", ge=0, le=100
    )
    seeds: int = setting(5, "How many fresh seeds each runs with.", ge=2, le=1000)
