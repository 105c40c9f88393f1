"""Serve the practice forge on this machine until it is ended: GitHub's API and git over HTTP, to try things by hand.

example: watchbill practice --port-file port --seed seed.json

The port is written to --port-file once the forge answers. The API is at http://127.0.0.1:PORT, a repository at
http://127.0.0.1:PORT/OWNER/NAME.git. Ctrl-C ends it; what it knew, but for the git repositories, goes with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

from watchbill.practice import seed, server

HELP = "serve a GitHub-compatible forge on loopback"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port-file", required=True, metavar="FILE", help="where the port is written")
    parser.add_argument("--seed", metavar="FILE", help="users, repositories and issues to begin with (JSON)")
    parser.add_argument("--port", type=int, default=0, help="a port of your choice; a free one otherwise")


def run(args: argparse.Namespace) -> int:
    planted = seed.load(args.seed) if args.seed else {}
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with server.serve(planted, args.port) as practice:
        aside = f"{args.port_file}.{os.getpid()}"
        with open(aside, "w", encoding="ascii") as file:
            file.write(f"{practice.port}\n")
        os.replace(aside, args.port_file)
        print(f"practice forge at {practice.url} (pid {os.getpid()})", flush=True)
        over.wait()
    return 0
