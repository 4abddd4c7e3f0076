"""Tests, intervals and streaming moments of repeated draws."""
