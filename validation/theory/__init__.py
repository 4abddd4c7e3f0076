"""Claims of the theory, true or only seemingly so, with exact numbers."""
