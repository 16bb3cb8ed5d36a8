"""Checkpoints: which files a saved Llava is made of, and what the tensors in them are called.

The room knows tensors by name, configurations as dictionaries and folders on disk. It knows no module.
"""
