"""Replays a trace of real requests through a running gateway and counts what became of them.

Read in this order: `trace` (the file), `draw` (who sends each row, and how), `prompt` (text of an
exact number of tokens), `pace` (when), `client` (one request), `run` (all of them), `counts`.
"""
