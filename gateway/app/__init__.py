"""The composition root: the only place that sees every part, and puts them together.

`supervisor` starts the processes; `proxy_process` and `jobs_process` are the two kinds there are;
`stores` opens what both share.
"""
