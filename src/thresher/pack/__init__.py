"""Images re-encoded once, into tars that are fast to read and easy to carry."""
