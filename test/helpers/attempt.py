"""One connection attempt, or one datagram and its answer, and what becomes of it: shared by the labs' agents."""
import errno, selectors, socket, struct

IP_RECVERR, IPV6_RECVERR, SYN_SENT, CLOSE = 11, 25, 2, 7


def make(proto, address):
    """A socket of the address's family; IPv6 ones take no IPv4."""
    six = ':' in address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM)
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    return sock


class Attempt:
    """packet: {"proto", "dst", "dport"} and maybe {"src", "sport"}; done is told (packet, fate, note)."""

    word = b''

    def __init__(self, loop, packet, done, sock):
        self.loop, self.packet, self.done, self.sock = loop, packet, done, sock
        self.open, self.connected, self.tcp = True, False, packet['proto'] == 'TCP'
        try:
            self.begin()
        except OSError as error:
            self.failed(error.errno)

    def begin(self):
        packet, sock = self.packet, self.sock
        if ':' in packet['dst']:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.tcp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        if packet.get('src') is not None:
            sock.bind((packet['src'], packet.get('sport', 0)))
        self.loop.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.tcp else 0), self.event)
        self.failed(sock.connect_ex((packet['dst'], packet['dport'])))
        if self.open and not self.tcp:
            sock.send(b'x')

    def failed(self, code):
        if code == errno.EINVAL and not self.connected:  # a blackhole route
            self.finish('timeout', 'EINVAL')
        elif code not in (0, errno.EINPROGRESS, errno.EPERM):  # EPERM: a hook dropped it; an ICMP error may follow
            fate = 'ok' if self.connected else 'bind' if code == errno.EADDRINUSE else 'refused'
            self.finish(fate, errno.errorcode.get(code, str(code)))

    def finish(self, fate, note=''):
        if not self.open:
            return
        self.open = False
        if self.sock in self.loop.get_map():
            self.loop.unregister(self.sock)
        self.sock.close()
        self.done(self.packet, fate, note)

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
            self.loop.modify(sock, selectors.EVENT_READ, self.event)
            self.greet()
        try:
            data = sock.recv(300)
            self.finish('ok', data.decode() if data else 'closed')
        except BlockingIOError:
            self.icmp()
        except OSError as error:
            self.failed(error.errno)

    def greet(self):
        if self.word:
            try:
                self.sock.send(self.word)
            except OSError:
                pass  # reset at once: recv tells

    def icmp(self):
        """An ICMP error that came while connect() still held the socket is only in its error queue."""
        try:
            self.sock.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
            if not self.connected:
                self.finish('refused', 'ICMP')
        except OSError:
            pass
