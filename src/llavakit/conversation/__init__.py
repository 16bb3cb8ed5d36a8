"""Conversations with pictures: the record, the templates that write it, and the tokens that come of it."""
