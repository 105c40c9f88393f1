"""Watchbill puts coding agents on a duty roster."""

__version__ = "0.1.0"
