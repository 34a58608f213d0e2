"""Tuning: examples from behaviour, LoRA training of the embedded model, and its adapters."""
