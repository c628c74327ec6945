"""quota-gateway: a reverse proxy that holds every user to a monthly quota of tokens.

Read the folders from the inside out: `core` (rules), `ports` (what they need from outside), `flow`
(the life of one request), then the siblings `web`, `jobs`, `adapters`, `config`, `standin` and
`replay`, and `app`, which puts them together. Imports go that way only; a test checks it.
"""

__version__ = "0.1.0"
