#!/usr/bin/python3
"""Bytes in both directions at once over one TCP connection, and all of them right.

workers_copy.py serve              answers every connection on port 7007
workers_copy.py talk BYTES ADDRESS...   to all of them at once
"""
import hashlib
import socket
import sys
import threading

PORT = 7007


def stream(n_bytes, seed):
    state = hashlib.sha256(seed).digest()
    while n_bytes > 0:
        state = hashlib.sha256(state).digest()
        block = (state * 512)[:n_bytes]
        n_bytes -= len(block)
        yield block


def send(conn, n_bytes, seed):
    for block in stream(n_bytes, seed):
        conn.sendall(block)


def check(conn, n_bytes, seed):
    for block in stream(n_bytes, seed):
        got = b""
        while len(got) < len(block):
            part = conn.recv(len(block) - len(got))
            if not part:
                raise SystemExit("the connection ended early")
            got += part
        if got != block:
            raise SystemExit("other bytes arrived than were sent")


def both(conn, n_bytes, sent, expected):
    thread = threading.Thread(target=send, args=(conn, n_bytes, sent))
    thread.start()
    check(conn, n_bytes, expected)
    thread.join()


def answer(conn):
    with conn:
        both(conn, int.from_bytes(conn.recv(8, socket.MSG_WAITALL), "big"), b"back", b"forth")


def serve():
    listener = socket.create_server(("", PORT))
    print("serving", flush=True)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def talk(address, n_bytes, done):
    conn = socket.create_connection((address, PORT), timeout=60)
    conn.sendall(n_bytes.to_bytes(8, "big"))
    both(conn, n_bytes, b"forth", b"back")
    done.append(address)


def talk_all(n_bytes, addresses):
    done = []
    threads = [threading.Thread(target=talk, args=(a, n_bytes, done)) for a in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = set(addresses) - set(done)
    if missing:
        raise SystemExit("failed: " + " ".join(sorted(missing)))


if sys.argv[1] == "serve":
    serve()
else:
    talk_all(int(sys.argv[2]), sys.argv[3:])
