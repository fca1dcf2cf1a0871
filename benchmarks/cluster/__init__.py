"""Clusters on one machine: hosts joined by a slow network, Slurm on one node, mpirun."""
