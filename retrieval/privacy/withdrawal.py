"""Takes away what was derived from a shopper who does not agree to it any more."""

from pathlib import Path

from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.traces import PROFILES


def remove_unwanted_profiles(store: BehaviourStore, folder: Path) -> int:
    """Remove what models have written on shoppers without consent to personalisation.

    Without consent it is not read; this is for what lies on the disk.

    Args:
        store: says who consents.
        folder: of the store.

    Returns:
        The number of files removed.
    """
    removed = 0
    for file in sorted((folder / PROFILES).rglob("*")):
        shopper = Pseudonym.of_hex(file.name[:32])
        if shopper is None or not file.is_file():
            continue
        said = {each.purpose: each.granted for each in store.consent(str(shopper))}
        if not said["personalisation"]:
            file.unlink()
            removed += 1
    return removed
