"""How much a place alone changes what is clicked."""
