"""Thresher trains image classifiers on wrongly labelled images and says which labels are wrong."""
