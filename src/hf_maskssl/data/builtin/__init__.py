"""Data sets that the package makes or finds by itself."""
