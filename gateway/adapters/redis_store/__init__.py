"""Redis: every key name, the scripts in `lua/`, and the ports that are fulfilled with them."""
