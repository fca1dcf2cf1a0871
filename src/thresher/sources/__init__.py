"""What exists: data of every kind, opened as one manifest and read by sample id."""
