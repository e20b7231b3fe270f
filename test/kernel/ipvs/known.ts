import type {Seen, Shot} from '../lab.js'
import {inV6, RESET, type IpvsCase} from './generate.js'

/** A disagreement that was found once: what is loaded, the packet, and what the kernel did. */
export interface Known extends IpvsCase {
  readonly why: string
  readonly kernel: Pick<Seen, 'fate' | 'address' | 'source'>
  /** `unknown`: the engine must say so; it models the rest of the way no further. */
  readonly verdict?: 'agree' | 'unknown'
}

interface Setup {
  /** Shell lines, in /proc/sys/net. */
  readonly sysctl: string
  readonly ipvs: string
  readonly rules?: string
  readonly sends: Pick<Shot, 'from' | 'proto' | 'src' | 'dst' | 'dport'>
}

const VIP = '10.96.250.1'
const lost = {fate: 'timeout', address: null, source: null} as const
const refused = {fate: 'refused', address: null, source: null} as const
const ok = (address: string, source: string): Known['kernel'] => ({fate: 'ok', address, source})
const fromClient = {from: 'client', proto: 'TCP', src: '10.77.1.2'} as const

let port = 61000

function known(why: string, {sysctl, ipvs, rules = '', sends}: Setup, kernel: Known['kernel']): Known {
  const vip = /^10\.96\./.test(sends.dst) ? sends.dst : VIP
  const load = `${RESET}${sysctl}
ip addr add ${vip}/32 dev kube-ipvs0
${rules}
ipvsadm -R <<'X'
${ipvs}
X`
  return {why, vips: [vip], load, shots: [{id: '0', sport: port++, ...sends}], kernel}
}

const inV6Known = (why: string, four: Known, verdict: NonNullable<Known['verdict']>): Known => ({
  ...four,
  ...inV6(four),
  why,
  verdict,
})

/** A real server that is the node itself, where nobody listens on the port. */
const CLOSED: Setup = {
  sysctl: 'echo 0 >ipv4/vs/conntrack',
  ipvs: `-A -u ${VIP}:0 -s lc -p 300\n-a -u ${VIP}:0 -r 10.77.1.20:0 -m -w 1`,
  sends: {from: 'client', proto: 'UDP', src: '10.77.1.2', dst: VIP, dport: 9999},
}

export const KNOWN: readonly Known[] = [
  known(
    'what IPVS sends to the node itself keeps the route of a virtual address that no device holds, and leaves',
    {
      sysctl: 'echo 1 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s rr\n-a -t ${VIP}:80 -r 10.77.1.20:8080 -m -w 1`,
      rules: `ip addr del ${VIP}/32 dev kube-ipvs0`,
      sends: {from: 'router', proto: 'TCP', src: '', dst: VIP, dport: 80},
    },
    lost,
  ),
  known(
    'and stays where a device holds it',
    {
      sysctl: 'echo 1 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s rr\n-a -t ${VIP}:80 -r 10.77.1.20:8080 -m -w 1`,
      sends: {from: 'router', proto: 'TCP', src: '', dst: VIP, dport: 80},
    },
    ok('10.77.1.20:8080', VIP),
  ),
  known(
    'without vs.conntrack a packet has no connection, and --vdir matches none',
    {
      sysctl: 'echo 0 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s rr\n-a -t ${VIP}:80 -r 10.77.3.10:80 -m -w 1`,
      rules: 'iptables-legacy -A OUTPUT -m ipvs --vdir ORIGINAL -j DROP',
      sends: {...fromClient, dst: VIP, dport: 80},
    },
    ok('10.77.3.10:80', '10.77.1.2'),
  ),
  known(
    'without vs.conntrack an answer is UNTRACKED as soon as IPVS has translated it',
    {
      sysctl: 'echo 0 >ipv4/vs/conntrack',
      ipvs: `-A -u ${VIP}:80 -s rr\n-a -u ${VIP}:80 -r 10.77.1.20:8080 -m -w 1`,
      rules: `iptables-legacy -A INPUT -d ${VIP} -m conntrack --ctstate NEW -j DROP`,
      sends: {from: 'router', proto: 'UDP', src: '', dst: VIP, dport: 80},
    },
    ok('10.77.1.20:8080', VIP),
  ),
  known(
    'without vs.conntrack nobody undoes the DNAT of OUTPUT that led to the virtual server',
    {
      sysctl: 'echo 0 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s rr\n-a -t ${VIP}:80 -r 10.77.2.1:8080 -m -w 1`,
      rules: `iptables-legacy -t nat -A OUTPUT -p tcp -d 10.77.2.1 --dport 5353 -j DNAT --to-destination ${VIP}:80`,
      sends: {from: 'router', proto: 'TCP', src: '', dst: '10.77.2.1', dport: 5353},
    },
    lost,
  ),
  known(
    'without vs.conntrack nobody undoes the DNAT of PREROUTING that led to the virtual server',
    {
      sysctl: 'echo 0 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s rr\n-a -t ${VIP}:80 -r 10.77.3.10:80 -m -w 1`,
      rules: `iptables-legacy -t nat -A PREROUTING -p tcp -d 10.77.1.1 --dport 31000 -j DNAT --to-destination ${VIP}:80`,
      sends: {...fromClient, dst: '10.77.1.1', dport: 31000},
    },
    lost,
  ),
  known(
    'sh gives a real server of weight 0 its place, and refuses the clients that fall on it',
    {
      sysctl: 'echo 1 >ipv4/vs/conntrack',
      ipvs: `-A -t ${VIP}:80 -s sh
-a -t ${VIP}:80 -r 10.77.2.1:5353 -m -w 0
-a -t ${VIP}:80 -r 10.77.3.10:80 -m -w 1`,
      sends: {...fromClient, dst: VIP, dport: 80},
    },
    refused,
  ),
  known(
    'dh gives a real server of weight 0 its place, and refuses the virtual addresses that fall on it',
    {
      sysctl: 'echo 1 >ipv4/vs/conntrack',
      ipvs: `-A -t 10.96.8.2:80 -s dh
-a -t 10.96.8.2:80 -r 10.77.3.10:80 -m -w 1
-a -t 10.96.8.2:80 -r 10.77.2.1:5353 -m -w 0`,
      sends: {...fromClient, dst: '10.96.8.2', dport: 80},
    },
    refused,
  ),
  {
    ...known(
      'an answer to an address whose virtual server takes every port is a request too (SYN+ACK, tcp_conn_schedule)',
      {
        sysctl: 'echo 1 >ipv4/vs/conntrack',
        ipvs: `-A -t ${VIP}:0 -s rr -p 300`,
        rules: `iptables-legacy -t nat -A OUTPUT -p tcp -d ${VIP} -j REDIRECT --to-ports 8080`,
        sends: {from: 'router', proto: 'TCP', src: '', dst: VIP, dport: 80},
      },
      lost,
    ),
    verdict: 'unknown',
  },
  known(
    'without vs.conntrack an answer that IPVS has translated in FORWARD meets no nat rule in POSTROUTING',
    {
      sysctl: 'echo 0 >ipv4/vs/conntrack',
      ipvs: `-A -u ${VIP}:80 -s rr\n-a -u ${VIP}:80 -r 10.77.3.10:80 -m -w 1`,
      rules: 'iptables-legacy -t nat -A POSTROUTING -o eth0 -j MASQUERADE',
      sends: {...fromClient, proto: 'UDP', dst: VIP, dport: 80},
    },
    ok('10.77.3.10:80', '10.77.1.2'),
  ),
  known('a closed UDP port of the node itself refuses behind IPVS', CLOSED, refused),
  inV6Known(
    'IPv6: the ICMPv6 error of a closed UDP port of the node itself is lost in IPVS',
    known('', CLOSED, lost),
    'unknown',
  ),
  inV6Known(
    'IPv6: the ICMPv6 error of a rule of OUTPUT is lost in IPVS',
    known(
      '',
      {
        sysctl: 'echo 0 >ipv4/vs/conntrack',
        ipvs: `-A -t ${VIP}:0 -s rr -p 300\n-a -t ${VIP}:0 -r 10.77.3.10:0 -m -w 1`,
        rules: 'iptables-legacy -A OUTPUT -p tcp -d 10.77.3.10 -j REJECT',
        sends: {...fromClient, dst: VIP, dport: 9999},
      },
      lost,
    ),
    'unknown',
  ),
]
