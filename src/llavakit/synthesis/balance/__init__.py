"""Concept balance: of millions of captions, the few that still name every concept (LLaVA's appendix on CC3M).

`phrases` finds noun phrases, `captions` reads and writes sets of captions, `extraction` turns a set into numbers with
several processes and a cache, `choice` is the filter itself, `balancing` joins them and reports.
"""
