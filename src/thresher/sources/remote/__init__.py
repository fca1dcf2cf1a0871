"""Data at URLs: stores, what goes wrong with them, and shards and folders that lie there."""
