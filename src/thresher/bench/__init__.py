"""Measuring this machine: what ``thresher bench`` runs."""
