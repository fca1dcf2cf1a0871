"""Looking at every image once, before any training: what the collection holds and what is wrong.

``run.scan`` is the way through: open → look (in worker processes) → store → findings → page.
No torch: this room must start fast and run where torch is not wanted.
"""
