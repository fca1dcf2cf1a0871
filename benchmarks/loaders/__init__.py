"""The loaders that ``benchmarks/loader.py`` compares."""
