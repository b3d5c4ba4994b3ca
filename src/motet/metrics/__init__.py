"""Metrics of tasks, and of whole methods."""
