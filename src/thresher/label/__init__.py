"""Web labels from captions, alt texts, queries and file names: guesses, and counted as such."""
