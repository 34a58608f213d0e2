"""Shelfwise: re-rank a shop's search results for each shopper with an open LLM."""
