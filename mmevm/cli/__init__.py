"""Command lines of the analysis tools."""
