"""Readers and writers of conversation formats, one file a format."""
