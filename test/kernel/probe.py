"""Sends packets from one network namespace and answers in it, driven by JSON lines on stdin.

argv: what to serve, as `tcp:ADDRESS:PORT`. A served connection is told `local address:port peer address`.
stdin: {"packets": [{"id", "proto", "src", "sport", "dst", "dport"}], "timeout": seconds}; stdout: a line of fates.
"""
import errno, json, os, selectors, socket, struct, sys, time

IP_RECVERR, IPV6_RECVERR, SYN_SENT, CLOSE = 11, 25, 2, 7
loop = selectors.DefaultSelector()
accepted = {}


def text(local, peer):
    host = '[%s]' % local[0] if ':' in local[0] else local[0]
    return ('%s:%d %s' % (host, local[1], peer[0])).encode()


def make(proto, address):
    """A socket of the address's family; IPv6 ones take no IPv4."""
    kind = socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    if ':' in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    return sock


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


class Attempt:
    def __init__(self, packet, done):
        self.packet, self.done, self.open, self.connected = packet, done, True, False
        self.tcp = packet['proto'] == 'TCP'
        self.sock = sock = make(packet['proto'].lower(), packet['dst'])
        if ':' in packet['dst']:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.tcp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        try:
            sock.bind((packet['src'], packet['sport']))
            loop.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.tcp else 0), self.event)
            self.failed(sock.connect_ex((packet['dst'], packet['dport'])))
            if self.open and not self.tcp:
                sock.send(b'x')
        except OSError as error:
            self.failed(error.errno)

    def failed(self, code):
        if code == errno.EINVAL:  # a blackhole route
            self.finish('timeout', 'EINVAL')
        elif code not in (0, errno.EINPROGRESS, errno.EPERM):  # EPERM: a hook dropped it; an ICMP error may follow
            self.finish('ok' if self.connected else 'bind' if code == errno.EADDRINUSE else 'refused', errno.errorcode[code])

    def finish(self, fate, note=''):
        if not self.open:
            return
        self.open = False
        loop.unregister(self.sock)
        self.sock.close()
        address, source = note.split(' ') if ' ' in note else (None, None)
        self.done({'id': self.packet['id'], 'fate': fate, 'address': address, 'source': source, 'note': note})

    def event(self, sock):
        if not self.open:
            return
        if self.tcp and not self.connected:
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]
            if state == SYN_SENT:
                return self.icmp()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if state == CLOSE else 0
            self.connected = state != CLOSE or code in (errno.ECONNRESET, errno.EPIPE)
            if state == CLOSE:
                return self.failed(code or errno.ECONNREFUSED)
            loop.modify(sock, selectors.EVENT_READ, self.event)
        try:
            data = sock.recv(100)
            self.finish('ok', data.decode() if data else 'closed')
        except BlockingIOError:
            self.icmp()
        except OSError as error:
            self.failed(error.errno)

    def icmp(self):
        """An ICMP error that came while connect() still held the socket is only in its error queue."""
        try:
            self.sock.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
            if not self.connected:
                self.finish('refused', 'ICMP')
        except OSError:
            pass


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
    attempts = [Attempt(packet, fates.append) for packet in job['packets']]
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
