"""What an alignment run costs, measured against the published procedure: `python -m sage_core.bench`."""
