"""Carries a port of this machine's loopback into a network namespace: `relay.py PORT NAMESPACE`.

A socket belongs to the namespace that it was made in. So the listening socket is made here, then this process moves
into NAMESPACE, and what it opens from then on is there. No route leads into the namespace from outside.
"""

import asyncio
import ctypes
import os
import socket
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def carry(port, reader, writer):
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def serve(port, listener):
    server = await asyncio.start_server(lambda r, w: carry(port, r, w), sock=listener)
    await server.serve_forever()


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


port = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", port))
enter(sys.argv[2])
asyncio.run(serve(port, listener))
