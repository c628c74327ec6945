"""The command `quota-gateway`: arguments in, exit codes out.

0: done; 1: it failed, or a comparison found a difference; 2: the command or the configuration is
wrong. Trouble that is expected is one line on standard error; what to do stands in it.
"""

from gateway.cli.main import main

__all__ = ["main"]
