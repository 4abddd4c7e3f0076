"""What measures the README's numbers and writes its tables; not installed."""
