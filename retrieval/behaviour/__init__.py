"""What shoppers did: taken in, cleaned, kept by pseudonym, and handed out by purpose."""

from retrieval.behaviour.histories import PastEvent
from retrieval.behaviour.opening import FILE_NAME
from retrieval.behaviour.snapshot import BehaviourSnapshot
from retrieval.behaviour.store import BehaviourStore

__all__ = ["FILE_NAME", "BehaviourSnapshot", "BehaviourStore", "PastEvent"]
