import {missing, startLab, run} from './lab.js'
const lab = await startLab(process.argv[2] ?? 'k136-iptables-v4')
const show = async (...args: string[]) => { const r = await lab.kubectl(args); console.log(r.code, r.stdout.slice(0, 6000), r.stderr) ; return r}
try {
console.log(lab.inNode('node1', 'ss -lntp; curl -sv http://127.0.0.1:10249/proxyMode 2>&1; true'))
await show('svc-trace', 'doctor', '--ssh-config', lab.folder + '/ssh/config')
await show('svc-trace', 'check', '-A', '--ssh-config', lab.folder + '/ssh/config')
await show('svc-trace', 'snapshot', '-f', '/tmp/x.tar.gz', '--ssh-config', lab.folder + '/ssh/config')
console.log(run('sh', ['-c', 'rm -rf /tmp/xx; mkdir /tmp/xx; tar -xzf /tmp/x.tar.gz -C /tmp/xx; cd /tmp/xx/nodes/node1; tail -n 50 rc.txt *.stderr proxymode.txt healthz.txt ip-link.json']).slice(0, 6000))
} finally { lab.stop() }
