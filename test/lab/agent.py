"""The lab's hands in one kernel: makes network namespaces, answers for pods and hosts, sends packets from any of them.

stdin: a JSON object a line, {"do": "namespaces"|"listen"|"mute"|"probe", ...}; stdout: "ready", then a line of JSON for each.
A server tells who it is and whom it saw: "NAME ADDRESS". All sockets are this process's, each made inside its namespace.
"""
import ctypes, errno, fcntl, json, os, selectors, socket, struct, sys, time

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNET, BIND, SIOCSIFFLAGS, IFF_UP = 0x40000000, 4096, 0x8914, 1
IP_PKTINFO, IP_RECVERR, IPV6_RECVERR, SYN_SENT, CLOSE = 8, 11, 25, 2, 7
NETNS = '/run/netns/'
HOME = os.open('/proc/self/ns/net', os.O_RDONLY)
loop = selectors.DefaultSelector()
known, listening, accepted = {}, {}, {}


def check(result, what):
    if result != 0:
        raise OSError('%s: %s' % (what, os.strerror(ctypes.get_errno())))


def namespaces(names):
    os.makedirs(NETNS, exist_ok=True)
    for name in names:
        path = NETNS + name
        open(path, 'w').close()
        check(LIBC.unshare(NEWNET), 'unshare')
        check(LIBC.mount(b'/proc/self/ns/net', path.encode(), None, BIND, None), 'mount ' + path)
        begin()
    LIBC.setns(HOME, NEWNET)


def begin():
    """A new namespace: its loopback is up, and IPv6 addresses are there at once."""
    for name, value in (('all/accept_dad', '0'), ('default/accept_dad', '0'), ('all/disable_ipv6', '0')):
        try:
            with open('/proc/sys/net/ipv6/conf/' + name, 'w') as file:
                file.write(value)
        except FileNotFoundError:
            pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack('16sH14x', b'lo', IFF_UP))


def inside(name, work):
    """Does something in a namespace; '' is the lab's own."""
    if name not in known:
        known[name] = os.open(NETNS + name, os.O_RDONLY) if name else HOME
    check(LIBC.setns(known[name], NEWNET), 'setns ' + name)
    try:
        return work()
    finally:
        LIBC.setns(HOME, NEWNET)


def make(proto, address):
    six = ':' in address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM)
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    return sock


def listen(listeners):
    failed = []
    for one in listeners:
        for address in [one['address']] if one['address'] else ['0.0.0.0', '::']:
            try:
                inside(one['namespace'], lambda: serve(one, address))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    failed.append('%s %s %s:%d: %s' % (one['namespace'], one['proto'], address, one['port'], error.strerror or error))
    return failed


def serve(one, address):
    sock = make(one['proto'], address)
    if one['proto'] == 'udp':
        sock.setsockopt(*((socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) if ':' in address else (socket.IPPROTO_IP, IP_PKTINFO)), 1)
    sock.bind((address, one['port']))
    if one['proto'] == 'tcp':
        sock.listen(1024)
    loop.register(sock, selectors.EVENT_READ, lambda s: take(s, one) if one['proto'] == 'tcp' else echo(s, one))
    listening.setdefault(one['namespace'], []).append(sock)


def mute(namespace):
    """Nobody listens there any more."""
    for sock in listening.pop(namespace, []):
        loop.unregister(sock)
        sock.close()


def hello(one, peer):
    return ('%s %s' % (one['name'], peer[0])).encode()


def echo(sock, one):
    try:
        _, about, _, peer = sock.recvmsg(100, 200)
        # from the address that was asked, as servers on hosts with many addresses do
        sock.sendmsg([hello(one, peer)], [asked(*item) for item in about if item[1] in (IP_PKTINFO, socket.IPV6_PKTINFO)], 0, peer)
    except OSError:
        pass


def asked(level, kind, data):
    """in_pktinfo and in6_pktinfo of an answer: the source, by any device."""
    return level, kind, bytes(4) + data[4:8] + bytes(4) if level == socket.IPPROTO_IP else data[:16] + bytes(4)


def take(sock, one):
    try:
        conn, peer = sock.accept()
        conn.setblocking(False)
        accepted[conn] = time.monotonic() + 2
        if 'http' in one:
            return loop.register(conn, selectors.EVENT_READ, lambda c: respond(c, one['http']))
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        conn.send(hello(one, peer))
    except OSError:
        pass


def respond(conn, body):
    try:
        conn.recv(4096)
        conn.send(('HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body)).encode())
        conn.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    loop.unregister(conn)


def sweep():
    for conn, until in list(accepted.items()):
        if time.monotonic() < until:
            break
        del accepted[conn]
        if conn in loop.get_map():
            loop.unregister(conn)
        conn.close()


class Attempt:
    """One connection, or one datagram and its answer."""

    def __init__(self, shot, done):
        self.shot, self.done, self.open, self.connected = shot, done, True, False
        self.tcp = shot['proto'] == 'TCP'
        self.sock = None
        try:
            self.sock = inside(shot['namespace'], lambda: make(shot['proto'].lower(), shot['dst']))
            self.prepare()
            loop.register(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.tcp else 0), self.event)
            self.failed(self.sock.connect_ex((shot['dst'], shot['dport'])))
            if self.open and not self.tcp:
                self.sock.send(b'x')
        except OSError as error:
            self.failed(error.errno)

    def prepare(self):
        if ':' in self.shot['dst']:
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.tcp:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        if self.shot.get('src'):
            self.sock.bind((self.shot['src'], 0))

    def failed(self, code):
        if code == errno.EINVAL and not self.connected:  # a blackhole route
            self.finish('timeout', 'EINVAL')
        elif code not in (0, errno.EINPROGRESS, errno.EPERM):  # EPERM: a hook dropped it; an ICMP error may follow
            self.finish('ok' if self.connected else 'refused', errno.errorcode.get(code, str(code)))

    def finish(self, fate, note=''):
        if not self.open:
            return
        self.open = False
        if self.sock is not None:
            if self.sock in loop.get_map():
                loop.unregister(self.sock)
            self.sock.close()
        self.done({'id': self.shot['id'], 'fate': fate, 'note': note})

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
            data = sock.recv(300)
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


def run(deadline):
    for key, _ in loop.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
        key.data(key.fileobj)
    sweep()


def probe(shots, timeout):
    fates = []
    attempts = [Attempt(shot, fates.append) for shot in shots]
    deadline = time.monotonic() + timeout
    while len(fates) < len(attempts) and time.monotonic() < deadline:
        run(deadline)
    for attempt in attempts:
        attempt.finish('ok' if attempt.connected else 'timeout')
    return fates


def command(stdin):
    line = stdin.readline()
    if line == '':
        sys.exit(0)
    job = json.loads(line)
    what = job.pop('do')
    loop.unregister(stdin)
    try:
        answer = {'namespaces': namespaces, 'listen': listen, 'mute': mute, 'probe': probe}[what](**job)
    except Exception as error:
        answer = {'error': '%s: %s' % (what, error)}
    loop.register(stdin, selectors.EVENT_READ, command)
    print(json.dumps(answer), flush=True)


loop.register(sys.stdin, selectors.EVENT_READ, command)
print('"ready"', flush=True)
while True:
    run(None if not accepted else time.monotonic() + 1)
