"""Levels that several tests share."""

from __future__ import annotations

from support.false_alarms import share

LEVEL = share("distributed: mean gradient", tests=3)
