"""Benchmarks: this machine's figures, each beside its peer or its limit."""
