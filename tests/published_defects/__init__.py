"""Defects of published code by kind, each written afresh from its description, and sound pieces beside them."""
