"""What an alignment run costs, measured beside the published procedure: `python -m sage_core.bench`."""
