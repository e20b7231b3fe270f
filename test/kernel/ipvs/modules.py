"""Loads a kernel's modules without Debian's kmod, which may be missing; /lib/modules is on a read-only root."""
import ctypes, os

LIBC = ctypes.CDLL(None, use_errno=True)
FINIT_MODULE = 313


def load_modules(names):
    """insmod with dependencies; a module that is built in is passed over."""
    base = '/usr/lib/uml/modules/' + os.uname().release
    needs = dict(line.strip().split(':') for line in open(base + '/modules.dep'))
    paths = {os.path.basename(path)[:-3].replace('-', '_'): path for path in needs}
    done = set()

    def load(path):
        if path in done:
            return
        done.add(path)
        for need in needs[path].split()[::-1]:
            load(need)
        with open(base + '/' + path) as file:
            if LIBC.syscall(FINIT_MODULE, file.fileno(), b'', 0) != 0:
                raise OSError('%s: %s' % (path, os.strerror(ctypes.get_errno())))

    for name in names:
        if name in paths:
            load(paths[name])
