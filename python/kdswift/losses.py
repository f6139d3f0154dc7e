"""Losses, usable alone."""
