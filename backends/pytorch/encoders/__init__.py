"""Models that see a text both ways and give a vector: a module for each family."""
