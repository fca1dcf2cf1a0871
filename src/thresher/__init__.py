"""Thresher trains image classifiers on wrongly labelled images and says which labels are wrong."""

from __future__ import annotations

import importlib.metadata

__version__ = importlib.metadata.version("thresher")
