"""The training steps that ``benchmarks/step.py`` compares."""
