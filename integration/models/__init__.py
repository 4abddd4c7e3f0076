"""Models: loading, small untrained ones, adapters."""
