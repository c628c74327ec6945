"""Quota: what an account is, what is asked of it, and the rules that answer.

`reserve`, `settle` and `entitle` are the words of the three kinds of calls; `model` and its
neighbours state the rules once, in Python. The scripts in `lua/` are the same rules in the form
that Redis runs, and random histories hold the two against each other.
"""
