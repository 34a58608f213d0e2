"""The command `shelfwise`. Heavy libraries are imported inside the commands that need them."""

from reranker.cli.app import main

__all__ = ["main"]
