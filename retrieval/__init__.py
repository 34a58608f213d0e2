"""Everything that is looked up: products, vectors, words, behaviour and profiles."""
