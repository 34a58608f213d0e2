"""Estimates with their intervals, and comparisons of rankers and of shopper groups."""
