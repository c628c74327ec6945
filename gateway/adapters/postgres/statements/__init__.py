"""Every statement the adapter sends, each with the promise it keeps, by what it is about.

A statement that writes in several tables is one statement on purpose: it is one transaction and
one round trip, and what follows from a row follows only from rows that were really written.
Arguments are positional; instants travel as milliseconds since the Unix epoch. Columns are named
one by one: a later migration may add one while this release still runs.
"""
