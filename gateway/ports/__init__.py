"""What flow and jobs need from outside, as small Protocols; the adapters fulfil them.

A port says what is promised, in which units, and which errors may come; each has one contract
suite in `tests/contract` that every adapter, real or fake, passes.
"""
