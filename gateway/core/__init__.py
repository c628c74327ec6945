"""The rules: pure functions and frozen values.

Nothing here awaits, reads a clock, draws a random number, logs or looks at the environment. The
only library is msgspec. Whoever calls brings the time and the facts, and acts on the answer.
"""
