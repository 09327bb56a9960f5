"""Live metrics in MLflow, behind a spool on disk."""
