"""Repeated text beyond one machine: the search of ``substring.policy`` as one Beam pipeline.

    driver     rows ─► shards, files of whole rows in a scratch folder
    shard      short windows ─► fingerprints ─► rows of each source that hold them
    partition  rows of all shards ─► which of these windows belong to forms
    shard      windows ─► fingerprints ─► of each class only the members that can decide it
    partition  members of the same fingerprints ─► limit and owner of a class, by repeats.limits
    shard      marks; whole answers ─► digests ─► the same once more
    shard      spans, rows to drop; then all of it again among the rows that stay
    driver     reads dropped rows, spans and the windows of forms

Only ``pipeline`` imports Beam, and only when it is called; the work is on plain arrays.
"""
