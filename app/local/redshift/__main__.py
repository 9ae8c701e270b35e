"""`python -m app.local.redshift`: the stand-in for Redshift in a process of its own."""

import argparse
import asyncio
import logging
import signal

from app.console_log import draw_without_locals
from app.local.redshift.server import StandIn


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m app.local.redshift", description="stand-in for Redshift")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", required=True, help="host:port of PostgreSQL")
    parser.add_argument("--user", default="instream", help="PostgreSQL's user for the stand-in's own connections")
    parser.add_argument("--database", default="instream", help="made where it is missing")
    parser.add_argument("--control-port", type=int, help="HTTP port on 127.0.0.1 that takes faults")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    draw_without_locals(colors=False)
    host, _, port = arguments.backend.rpartition(":")
    stand_in = StandIn((host, int(port)), arguments.user, arguments.database)
    asyncio.run(_serve(stand_in, arguments.host, arguments.port, arguments.control_port))


async def _serve(stand_in: StandIn, host: str, port: int, control_port: int | None) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    await stand_in.prepare()
    serving = asyncio.ensure_future(stand_in.serve(host, port, control_port))
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    else:
        serving.result()


if __name__ == "__main__":
    main()
