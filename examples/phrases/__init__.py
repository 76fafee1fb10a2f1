"""Phrasings of facts, one module per fine-grained class.

Every module offers ``KINDS`` (templates by kind of fact), ``PLAN`` (how many sentences of
each kind an entity gets), ``DESCRIPTION`` and ``slots`` (the words that fill the templates).
"""
