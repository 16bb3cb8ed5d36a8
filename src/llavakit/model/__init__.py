"""The model: a vision tower, a projector and a causal language model made into one `Llava`.

`llava.py` holds the model and its packed forward, `generation.py` makes it speak. The room knows tensors and modules;
it knows nothing of data sets, optimizers or terminals.
"""
