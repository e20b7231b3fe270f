#!/usr/bin/python3
"""Process 1 of a user-mode Linux: builds the lab, plays cases, powers off.

The kernel command line gives the host's directory (IPVS_DIR=…). It holds jobs.json:
{"modules": [...], "build": shell, "router": name, "probes": {name: [what to serve]}, "fixed": {file: command},
 "dumps": {file: command}, "cases": [{"load": shell, "shots": [...], "timeout": seconds}]}; results.jsonl gets the fixed
dumps, and a line for each case.
"""
import ctypes, json, os, subprocess, sys, time, traceback

LIBC = ctypes.CDLL(None, use_errno=True)
POWER_OFF = 0x4321FEDC
OUT = '/tmp/out'
DEVICE_SETTINGS = ('accept_local', 'forwarding', 'route_localnet', 'rp_filter', 'src_valid_mark')


def sh(script):
    return subprocess.run(['sh', '-c', script], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace')


def sysctls():
    lines = []
    for top in ('net/ipv4/ip_forward', 'net/ipv4/conf', 'net/ipv4/vs', 'net/ipv6/conf', 'net/bridge'):
        top = '/proc/sys/' + top
        files = [top] if os.path.isfile(top) else [os.path.join(at, name) for at, _, names in os.walk(top) for name in names]
        if top.endswith('/conf'):
            files = [path for path in files if os.path.basename(path) in DEVICE_SETTINGS]
        for path in sorted(files):
            try:
                with open(path) as file:
                    lines.append('%s = %s' % (path[len('/proc/sys/'):].replace('/', '.'), file.read().strip()))
            except OSError:
                pass
    return '\n'.join(lines)


class Probe:
    def __init__(self, name, serves, inside):
        command = [sys.executable, OUT + '/probe.py', *serves]
        self.process = subprocess.Popen(command if inside else ['ip', 'netns', 'exec', name, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, job):
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()

    def read(self):
        line = self.process.stdout.readline()
        if line == '':
            raise RuntimeError('a probe died')
        return line


def dump(commands):
    """All of them in one shell: starting a process is what costs time here."""
    script = ''.join('echo "@@@%s"; %s 2>/dev/null; printf "\\n@@@rc $?\\n"\n' % pair for pair in commands.items())
    files = {}
    for section in ('\n' + sh(script).stdout).split('\n@@@')[1:]:
        head, _, body = section.partition('\n')
        if head.startswith('rc '):
            files[name]['rc'] = int(head[3:])
        else:
            name = head
            files[name] = {'text': body}
    return files


def play(case, probes, dumps):
    loaded = sh(case['load'])
    if loaded.returncode != 0:
        return {'error': loaded.stderr.strip() or 'status %d' % loaded.returncode}
    files = {**dump(dumps), 'sysctl.txt': {'text': sysctls(), 'rc': 0}}
    seen = []
    jobs = {name: [shot for shot in case['shots'] if shot['from'] == name] for name in probes}
    jobs = {name: shots for name, shots in jobs.items() if shots}
    for name, shots in jobs.items():
        probes[name].write({'packets': shots, 'timeout': case['timeout']})
    for name in jobs:
        seen += json.loads(probes[name].read())
    return {'files': files, 'seen': seen}


def router():
    with open(OUT + '/jobs.json') as file:
        jobs = json.load(file)
    probes = {name: Probe(name, serves, name == jobs['router']) for name, serves in jobs['probes'].items()}
    for probe in probes.values():
        probe.read()
    with open(OUT + '/results.jsonl', 'w') as out:
        out.write(json.dumps(dump(jobs['fixed'])) + '\n')
        for case in jobs['cases']:
            out.write(json.dumps(play(case, probes, jobs['dumps'])) + '\n')
            out.flush()


def init():
    os.environ['PATH'] = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    mounts = 'mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /run && mount -t tmpfs tmp /tmp && mkdir /tmp/out && mount -t hostfs none /tmp/out -o '
    done = sh(mounts + os.environ['IPVS_DIR'])
    if done.returncode != 0:
        return print('mount:', done.stderr)
    try:
        with open(OUT + '/jobs.json') as file:
            jobs = json.load(file)
        sys.path.insert(0, OUT)
        from modules import load_modules
        load_modules(jobs['modules'])
        done = sh(jobs['build'])
        if done.returncode != 0:
            raise RuntimeError('build: ' + done.stderr)
        done = subprocess.run(['ip', 'netns', 'exec', jobs['router'], sys.executable, OUT + '/init.py', 'router'], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    except Exception:
        with open(OUT + '/error.txt', 'w') as file:
            file.write(traceback.format_exc())


if sys.argv[1:] == ['router']:
    router()
else:
    try:
        init()
    finally:
        LIBC.sync()
        LIBC.reboot(POWER_OFF)
