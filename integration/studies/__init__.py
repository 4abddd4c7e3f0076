"""Studies: one file per question, named as its command."""
