"""What alignment did to an embedding space: spread, neighbours, drift, and a verdict with intervals."""
