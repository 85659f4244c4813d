"""Errors that the web page shows to its visitors."""

from __future__ import annotations


class UserError(Exception):
    """An image, mask or setting cannot be used; the message is shown to the visitor."""
