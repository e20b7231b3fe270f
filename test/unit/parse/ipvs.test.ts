import {expect} from 'chai'
import fc from 'fast-check'
import {
  parseIpvsList,
  parseIpvsSave,
  parseProcIpvs,
  type IpvsDump,
  type VirtualServer,
} from '../../../src/parse/ipvs.js'
import {formatAddress} from '../../../src/util/ip.js'

const HEAD =
  'IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n'
const host = (address: VirtualServer['address']): string => (address === undefined ? '' : formatAddress(address))
/** Everything but lines and connection counts, as text. */
const essence = ({virtualServers}: IpvsDump): string[] =>
  virtualServers.map(({protocol, address, port, mark, scheduler, persistent, realServers}) =>
    [
      protocol,
      host(address),
      port,
      mark,
      scheduler,
      persistent,
      ...realServers.map((real) => `${host(real.address)} ${real.port} ${real.forward} ${real.weight}`),
    ].join('|'),
  )

describe('parse/ipvs: the three forms say the same', () => {
  const WANTED = [
    'TCP|10.96.0.1|443||rr|10800|10.0.0.4 6443 Masq 1|10.0.0.5 6443 Masq 0',
    'UDP|10.96.0.10|53||wlc||10.244.0.2 53 Route 1',
    'SCTP|10.96.0.9|9999||lc|',
    'FWM|||1481|rr||10.244.1.2 8080 Tunnel 1',
    'TCP|fd00::1|80||sh||fd00:10:244::5 8080 Masq 1',
  ]

  it('ipvsadm -Ln', () => {
    const dump = parseIpvsList(
      `${HEAD}TCP  10.96.0.1:443 rr persistent 10800 mask 255.255.255.0\n  -> 10.0.0.4:6443                Masq    1      4          0         \n  -> 10.0.0.5:6443                Masq    0      63         269\nUDP  10.96.0.10:53 wlc\n  -> 10.244.0.2:53 Route 1 0 0\nSCTP 10.96.0.9:9999 lc\nFWM  1481 rr\n  -> 10.244.1.2:8080 Tunnel 1 0 0\nTCP  [fd00::1]:80 sh (sh-fallback,sh-port)\n  -> [fd00:10:244::5]:8080 Masq 1 0 0\n`,
      'f',
    )
    expect(dump.problems).to.deep.equal([])
    expect(dump.partial).to.equal(false)
    expect(essence(dump)).to.deep.equal(WANTED)
    expect(dump.virtualServers[0]!.realServers[1]).to.include({active: 63, inactive: 269, line: 6})
  })

  it('ipvsadm -Sn', () => {
    const dump = parseIpvsSave(
      '-A -t 10.96.0.1:443 -s rr -p 10800 -M 255.255.255.0\n-a -t 10.96.0.1:443 -r 10.0.0.4:6443 -m -w 1\n-a -t 10.96.0.1:443 -r 10.0.0.5:6443 -m -w 0\n-A -u 10.96.0.10:53 -s wlc\n-a -u 10.96.0.10:53 -r 10.244.0.2:53 -g -w 1\n-A --sctp-service 10.96.0.9:9999 -s lc\n-A -f 1481 -s rr\n-a -f 1481 -r 10.244.1.2:8080 -i -w 1 --tun-type ipip\n-A -t [fd00::1]:80 -s sh -b sh-fallback,sh-port\n-a -t [fd00::1]:80 -r [fd00:10:244::5]:8080 -m -w 1\n',
      'f',
    )
    expect(dump.problems).to.deep.equal([])
    expect(essence(dump)).to.deep.equal(WANTED)
  })

  it('/proc/net/ip_vs', () => {
    const dump = parseProcIpvs(
      `${HEAD}TCP  0A600001:01BB rr persistent 10800000 FFFFFF00\n  -> 0A000004:192B      Masq    1      4          0         \n  -> 0A000005:192B      Masq    0      63         269\nUDP  0A60000A:0035 wlc \n  -> 0AF40002:0035 Route 1 0 0\nSCTP 0A600009:270F lc \nFWM  000005C9 rr \n  -> 0AF40102:1F90 Tunnel 1 0 0\nTCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 sh \n  -> [fd00:0010:0244:0000:0000:0000:0000:0005]:1F90      Masq    1      0          0\n`,
      'f',
    )
    expect(dump.problems).to.deep.equal([])
    expect(essence(dump)).to.deep.equal(WANTED.map((text) => text.replace('|10800|', '|NaN|')))
  })

  it('/proc shows jiffies, whose length it does not tell: never a wrong number of seconds (here 10800 s, HZ 100 and 250)', () => {
    for (const jiffies of [1080000, 2700000]) {
      const dump = parseProcIpvs(`${HEAD}TCP  0A600001:01BB rr persistent ${jiffies} FFFFFFFF\n`, 'f')
      expect(
        dump.problems.length > 0 ||
          dump.virtualServers[0]!.persistent === 10800 ||
          dump.virtualServers[0]!.persistent === undefined ||
          Number.isNaN(dump.virtualServers[0]!.persistent),
      ).to.equal(true)
    }
  })

  it('generated servers', () => {
    const endpoint = fc.tuple(fc.ipV4(), fc.integer({min: 1, max: 65535}))
    const server = fc.record({
      vip: endpoint,
      reals: fc.array(fc.tuple(endpoint, fc.integer({min: 0, max: 100})), {maxLength: 3}),
    })
    const hex = ([address, port]: readonly [string, number]): string =>
      `${address
        .split('.')
        .map((part) => Number(part).toString(16).padStart(2, '0'))
        .join('')}:${port.toString(16).padStart(4, '0')}`.toUpperCase()
    fc.assert(
      fc.property(fc.array(server, {maxLength: 4}), (servers) => {
        const list = servers.flatMap(({vip, reals}) => [
          `TCP  ${vip.join(':')} rr`,
          ...reals.map(([real, weight]) => `  -> ${real.join(':')} Masq ${weight} 0 0`),
        ])
        const proc = servers.flatMap(({vip, reals}) => [
          `TCP  ${hex(vip)} rr `,
          ...reals.map(([real, weight]) => `  -> ${hex(real)} Masq ${weight} 0 0`),
        ])
        const saved = servers.flatMap(({vip, reals}) => [
          `-A -t ${vip.join(':')} -s rr`,
          ...reals.map(([real, weight]) => `-a -t ${vip.join(':')} -r ${real.join(':')} -m -w ${weight}`),
        ])
        const listed = parseIpvsList(HEAD + list.join('\n'), 'f')
        expect(essence(parseIpvsSave(saved.join('\n'), 'f'))).to.deep.equal(essence(listed))
        expect(essence(parseProcIpvs(HEAD + proc.join('\n'), 'f'))).to.deep.equal(essence(listed))
      }),
      {numRuns: 100},
    )
  })
})

describe('parse/ipvs: pasted listings', () => {
  it('goes through grep -A: partial', () => {
    const dump = parseIpvsList('TCP  10.96.0.1:443 rr\n  -> 10.0.0.4:6443 Masq 1 4 0\n--\nUDP  10.96.0.10:53 rr\n', 'f')
    expect([dump.problems.length, dump.partial, dump.virtualServers.length]).to.deep.equal([0, true, 2])
  })

  it('an FWM service of IPv6 keeps its scheduler', () =>
    expect(parseIpvsList(`${HEAD}FWM  1 IPv6 rr\n`, 'f').virtualServers[0]?.scheduler).to.equal('rr'))

  it('counts with K and M are numbers or left out', () => {
    const [real] = parseIpvsList(`${HEAD}TCP 10.0.0.1:80 rr\n-> 10.0.0.2:80 Masq 1 12K 3M\n`, 'f').virtualServers[0]!
      .realServers
    for (const count of [real?.active, real?.inactive]) expect(count).to.not.be.NaN
  })

  const strange: readonly (readonly [string, string])[] = [
    ['names', 'TCP  node1.example.com:https rr'],
    ['a port name', 'TCP  10.96.0.1:https rr'],
    ['--stats', 'TCP  10.96.0.1:443                     12      100      100     9000     9000'],
    ['a cut address', 'TCP  10.96.0.'],
    ['a cut port', 'TCP  10.96.0.1: rr'],
    ['no scheduler', 'TCP  10.96.0.1:443'],
    ['a port too high', 'TCP  10.96.0.1:99999 rr'],
    ['a mark that is none', 'FWM'],
    ['a host separator', 'node2 | CHANGED | rc=0 >>'],
    ['dots', '....'],
    ['a real server of nobody', '  -> 10.0.0.4:6443 Masq 1 4 0'],
  ]
  for (const [what, line] of strange) {
    it(`${what}: ${line.trim()}`, () => {
      const dump = parseIpvsList(`${HEAD}${line}\n`, 'f')
      expect(dump.problems[0]).to.include({file: 'f', line: 4})
      expect(dump.virtualServers).to.deep.equal([])
    })
  }

  it('prompts are passed over', () => {
    const dump = parseIpvsList(`root@node1:~# ipvsadm -Ln\n${HEAD}root@node1:~# \n`, 'f')
    expect([dump.problems, dump.partial]).to.deep.equal([[], false])
  })

  it('a virtual server that stands twice is damaged: two hosts in one file', () => {
    const dump = parseIpvsList(
      `${HEAD}TCP  10.96.0.1:443 rr\nTCP  10.96.0.1:443 rr\n  -> 10.0.0.4:6443 Masq 1 4 0\n`,
      'f',
    )
    expect(dump.virtualServers.map(({damaged}) => damaged)).to.deep.equal([true, true])
  })

  it('a firewall mark of IPv4 and the same of IPv6 are two', () => {
    const listed = parseIpvsList(`${HEAD}FWM  1 rr\nFWM  1 IPv6 rr\n`, 'f')
    const saved = parseIpvsSave('-A -f 1 -s rr\n-A -f 1 -6 -s rr\n', 'f')
    for (const {virtualServers, problems} of [listed, saved])
      expect([virtualServers.some(({damaged}) => damaged), problems]).to.deep.equal([false, []])
  })

  it('a listing of which nothing was understood is partial, not empty', () =>
    expect(parseIpvsList('TCP  node1.example.com:https rr\n', 'f').partial).to.equal(true))

  const reals = [
    '-> 10.0.0.4:6443 constructor 1 0 0',
    '-> 10.0.0.4:6443',
    '-> 10.0.0.4:6443 Masq',
    '-> 10.0.0.4: Masq 1 0 0',
    '-> 10.0.0.4:https Masq 1 0 0',
    '-> web-0:80 Masq 1 0 0',
    '-> 10.0.0.4:6443 1 0 0 0',
    '-> 10.0.0.4:6443 12 100 100 9000 9000',
  ]
  for (const line of reals) {
    it(`a real server: ${line}`, () => {
      const dump = parseIpvsList(`${HEAD}TCP 10.96.0.1:443 rr\n${line}\n`, 'f')
      expect(dump.problems).to.have.length(1)
      expect(dump.virtualServers[0]!.realServers).to.deep.equal([])
    })
  }

  it('never gives a real server to the wrong virtual server: ipvsadm -L with names', () => {
    const dump = parseIpvsList(
      `${HEAD}TCP 10.96.0.1:443 rr\nTCP ip-10-0-0-1.ec2.internal:30080 rr\n  -> 10.244.1.5:8080 Masq 1 0 0\n`,
      'f',
    )
    expect(dump.virtualServers[0]!.realServers).to.deep.equal([])
  })

  for (const lines of [['-A -t node1:30080 -s rr'], ['....'], []]) {
    it(`never gives a real server to the wrong virtual server: -Sn with ${lines[0] ?? 'a lost -A'}`, () => {
      const dump = parseIpvsSave(
        ['-A -t 10.96.0.1:443 -s rr', ...lines, '-a -t 10.0.0.1:30080 -r 10.244.1.5:8080 -m -w 1'].join('\n'),
        'f',
      )
      expect(dump.virtualServers.find(({port}) => port === 443)!.realServers).to.deep.equal([])
      expect(dump.problems).to.not.deep.equal([])
    })
  }

  it('-Sn from which lines are missing is partial', () =>
    expect(parseIpvsSave('-A -t node1:30080 -s rr\n', 'f').partial).to.equal(true))
})

describe('parse/ipvs: firewall marks from 0x80000000 on', () => {
  it('are printed as negative numbers by ipvsadm', () => {
    const {virtualServers, problems} = parseIpvsSave(
      '-A -f -1280901118 -s rr\n-a -f -1280901118 -r 10.77.1.1:0 -m -w 1\n',
      'f',
    )
    expect(problems).to.deep.equal([])
    expect(virtualServers[0]!.mark).to.equal(0xb3a70002)
    expect(virtualServers[0]!.realServers).to.have.length(1)
  })
})
