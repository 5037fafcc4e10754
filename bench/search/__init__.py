"""Equal effort: the same number of trials for every method, and their results. See docs/search.md.

`space` draws settings, `choice` chooses among measured ones, `resolve` turns choices into cells to train.
"""
