"""Letters by mail: their words, and the SMTP server that takes them over.

What is told to whom, and how often it is tried, is decided in `gateway.jobs.send`. Nothing here is
imported where no mail server is configured.
"""
