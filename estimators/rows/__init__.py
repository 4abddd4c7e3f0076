"""Row designs: one file per design, and what designs share."""
