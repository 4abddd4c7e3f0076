"""The report: one self-contained HTML page from a folder of results."""
