"""Demos, their miniature data, and the drawings of results."""
