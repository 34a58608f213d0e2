"""Measures of rankings, of what is shown, and of interest scores."""
