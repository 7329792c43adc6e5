"""Users' own datasets: read from any common layout, checked, and written into a config."""
