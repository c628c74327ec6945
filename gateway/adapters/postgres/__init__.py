"""The ledger and the directory on Postgres (14 or newer), over asyncpg.

`connection` opens the pool and names every failure, `migrate` brings the schema up to date,
`ledger` books what the drain hands over (`booking`) and closes periods (`closing`), `corrections`
books by hand, `advisory_lock` is the right to do such things alone, `directory` knows users, keys
and what was granted (`grants`), `reports` reads for finance and for comparisons. Every statement
stands in `statements`, what they answer is read in `from_records`.
"""
