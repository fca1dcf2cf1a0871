"""Before training: how long it would take on how many nodes, and what would hold it up."""
