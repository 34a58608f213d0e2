"""What the law asks of whoever keeps shoppers' data, done on a behaviour store and around it."""
