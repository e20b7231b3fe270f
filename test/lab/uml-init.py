#!/usr/bin/python3
"""Process 1 of the lab's user-mode Linux: modules, a bridge on the hub's cable, and an sshd that the lab steers it by.

The kernel command line gives LAB_HOME (the lab's folder on the host), LAB_CONTROL (address/length) and LAB_SSHD
(a configuration).
"""
import os, subprocess, sys, traceback

E = os.environ
E['PATH'] = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
MOUNTS = '''mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mkdir -p /run/netns /run/sshd "$LAB_HOME"; mount -t hostfs none "$LAB_HOME" -o "$LAB_HOME"'''
NETWORK = '''ip link set lo up; ip link add br0 type bridge; ip link set vec0 master br0 up; ip link set br0 up
ip addr add "$LAB_CONTROL" dev br0
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0'''


def sh(script):
    subprocess.run(['sh', '-ec', script], check=True)


try:
    sh(MOUNTS)
    sys.path.insert(0, E['LAB_HOME'] + '/uml')
    from modules import load_modules
    load_modules(open(E['LAB_HOME'] + '/uml/modules').read().split())
    sh(NETWORK)
    subprocess.Popen(['/usr/sbin/sshd', '-D', '-e', '-f', E['LAB_SSHD']])
except Exception:
    traceback.print_exc()
while True:
    try:
        os.wait()
    except ChildProcessError:
        import time
        time.sleep(1)
