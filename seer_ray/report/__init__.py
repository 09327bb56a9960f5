"""The HTML page and all plots."""
