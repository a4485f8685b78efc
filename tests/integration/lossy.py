# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy before etcd that swallows what answers a path (of watches, if none is given) and holds a
word: faults that no etcd can be asked for. python3 lossy.py LISTEN-PORT ETCD-PORT WORD [PATH]
"""
import socket
import sys
import threading


def pump(source, target, state, keep):
    try:
        while data := source.recv(1 << 20):
            if keep(data, state):
                target.sendall(data)
    except OSError:
        pass
    for end in source, target:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def on_request(data, state):
    if data.startswith(b"POST ") or data.startswith(b"GET "):
        state["lossy"] = data.startswith(b"POST " + PATH)
    return True


def on_answer(data, state):
    # etcd's gateway writes a message and its framing in one piece, so that nothing is torn.
    return not (state.get("lossy") and WORD in data)


PORT, ETCD, WORD = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
PATH = (sys.argv[4] if len(sys.argv) > 4 else "/v3/watch").encode()
LISTENER = socket.create_server(("0.0.0.0", PORT))
while True:
    client, _ = LISTENER.accept()
    server = socket.create_connection(("127.0.0.1", ETCD))
    shared = {}
    for arguments in ((client, server, shared, on_request), (server, client, shared, on_answer)):
        threading.Thread(target=pump, args=arguments, daemon=True).start()
