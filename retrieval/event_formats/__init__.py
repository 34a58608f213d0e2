"""The forms in which shops log behaviour: each is turned into native events by SQL alone."""
