"""Servers on this machine that misbehave."""

import contextlib
import socket
import threading


def hang(connection, released):
    released.wait()


def drip(connection, released):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not released.wait(0.01):
        connection.sendall(b" ")


def die(connection, released):
    connection.recv(1 << 16)  # it takes the request, and is gone


def babble(connection, released):
    connection.recv(1 << 16)
    connection.sendall(b"220 this is no HTTP\r\n")


def deny(connection, released):
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")


@contextlib.contextmanager
def serving(behave):
    """A server that does `behave` to each connection. Yields its URI, and the event that lets go of all."""
    released = threading.Event()

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            behave(connection, released)

    def accept():
        with contextlib.suppress(OSError):  # the socket is closed
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", released
        finally:
            released.set()
            server.shutdown(socket.SHUT_RDWR)


def closed_port():
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
