"""Results in few numbers and sentences, for tables, figures and the report."""
