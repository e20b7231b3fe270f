"""The lab's hands in one kernel: makes network namespaces, answers for pods and hosts, sends packets from any of them.

stdin: a JSON object a line, {"do": "namespaces"|"listen"|"mute"|"probe", ...}; stdout: "ready", then a line of JSON for each.
A server tells who it is and whom it saw: "NAME ADDRESS". All sockets are this process's, each made inside its namespace.
"""
import ctypes, errno, fcntl, json, os, selectors, socket, struct, sys, time

from attempt import Attempt, make

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNET, BIND, SIOCSIFFLAGS, IFF_UP = 0x40000000, 4096, 0x8914, 1
IP_PKTINFO = 8
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


def run(deadline):
    for key, _ in loop.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
        key.data(key.fileobj)
    sweep()


class Talk(Attempt):
    """A connection counts when somebody answers in it: who only holds a port accepts and says nothing."""
    word = b'hello\r\n\r\n'

    def finish(self, fate, note=''):
        super().finish('refused' if note == 'closed' else fate, note)


def probe(shots, timeout):
    fates = []
    done = lambda shot, fate, note: fates.append({'id': shot['id'], 'fate': fate, 'note': note})
    attempts = [Talk(loop, shot, done, inside(shot['namespace'], lambda: make(shot['proto'].lower(), shot['dst']))) for shot in shots]
    deadline = time.monotonic() + timeout
    while len(fates) < len(attempts) and time.monotonic() < deadline:
        run(deadline)
    for attempt in attempts:
        attempt.finish('timeout', 'silent' if attempt.connected else '')
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
