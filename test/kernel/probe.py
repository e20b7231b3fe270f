"""Sends packets from one network namespace and answers in it, driven by JSON lines on stdin.

argv: what to serve, as `tcp:ADDRESS:PORT`. A served connection is told `local address:port peer address`.
stdin: {"packets": [{"id", "proto", "src", "sport", "dst", "dport"}], "timeout": seconds}; stdout: a line of fates.
"""
import json, os, selectors, socket, struct, sys, time

# beside this file where it was copied to, else among the helpers
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../helpers'))
from attempt import Attempt, make

loop = selectors.DefaultSelector()
accepted = {}


def text(local, peer):
    host = '[%s]' % local[0] if ':' in local[0] else local[0]
    return ('%s:%d %s' % (host, local[1], peer[0])).encode()


def serve(spec):
    proto, place = spec.split(':', 1)
    address, port = place.rsplit(':', 1)
    sock = make(proto, address)
    sock.bind((address, int(port)))
    if proto == 'tcp':
        sock.listen(1024)
    loop.register(sock, selectors.EVENT_READ, take if proto == 'tcp' else echo)


def echo(sock):
    try:
        _, peer = sock.recvfrom(100)
        sock.sendto(text(sock.getsockname(), peer), peer)
    except OSError:
        pass


def take(sock):
    try:
        conn, peer = sock.accept()
        conn.setblocking(False)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        accepted[conn] = time.monotonic() + 1
        conn.send(text(conn.getsockname(), peer))
    except OSError:
        pass


def sweep():
    for conn, until in list(accepted.items()):
        if time.monotonic() < until:
            break
        del accepted[conn]
        conn.close()


def told(packet, fate, note):
    address, source = note.split(' ') if ' ' in note else (None, None)
    return {'id': packet['id'], 'fate': fate, 'address': address, 'source': source, 'note': note}


def run(timeout):
    left = None if timeout is None else max(0.0, timeout - time.monotonic())
    for key, _ in loop.select(left):
        key.data(key.fileobj)
    sweep()


def command(stdin):
    line = stdin.readline()
    if line == '':
        sys.exit(0)
    job, fates = json.loads(line), []
    done = lambda *what: fates.append(told(*what))
    attempts = [Attempt(loop, packet, done, make(packet['proto'].lower(), packet['dst'])) for packet in job['packets']]
    deadline = time.monotonic() + job['timeout']
    loop.unregister(stdin)
    while len(fates) < len(attempts) and time.monotonic() < deadline:
        run(deadline)
    for attempt in attempts:
        attempt.finish('ok' if attempt.connected else 'timeout')
    loop.register(stdin, selectors.EVENT_READ, command)
    print(json.dumps(fates), flush=True)


for spec in sys.argv[1:]:
    serve(spec)
loop.register(sys.stdin, selectors.EVENT_READ, command)
print('ready', flush=True)
while True:
    run(None)
