import {expect} from 'chai'
import {nodeSteps} from '../../../src/cli/doctor.js'
import {PackedFiles} from '../../../src/util/packed-files.js'

const NOW = Date.parse('2026-01-01T12:00:00Z')
const BACKEND = `iptables v1.8.9 (nf_tables)
/usr/sbin/xtables-nft-multi
6.1.0-40-amd64
nftables v1.0.6 (Lester Gooch #5)
ipset v7.17, protocol version: 7
2026-01-01T12:00:30Z
login oncall, root by sudo -n
`

describe('what the doctor says of a node', () => {
  const steps = (files: Record<string, string>, more: object = {}): string[] =>
    nodeSteps(
      {
        node: 'n1',
        files: new PackedFiles(Object.entries(files)),
        way: {name: 'ssh', user: 'oncall', why: 'by bastion'},
        ...more,
      },
      '10.0.0.1',
      NOW,
    ).map(({state, what, hint}) => `${state} ${what}${hint === undefined ? '' : ` (${hint})`}`)
  const good = {
    'backend.txt': BACKEND,
    'iptables-nft-save.txt': '*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n',
    'proxymode.txt': 'iptables',
    'rc.txt': 'iptables-nft-save.txt rc=0\nipvsadm-Sn.txt rc=127\n',
    'ipvsadm-Sn.txt.stderr': 'ipvsadm: not found',
  }

  it('says which tools the node lacked and kube-proxy had', () => {
    const [, second] = steps({...good, 'backend.txt': `${BACKEND}ipset of kube-proxy (process 7)\n`})
    expect(second).to.include('kernel 6.1.0-40-amd64, ipset of kube-proxy’s own;')
  })

  it('is how it was reached, as whom, what is there, and where kube-proxy has its rules', () => {
    expect(steps(good)).to.deep.equal([
      'ok node n1 at 10.0.0.1, by ssh as oncall, by bastion, host key known: login oncall, root by sudo -n',
      'ok node n1: everything is readable, kube-proxy iptables with rules in iptables-nft; iptables v1.8.9 (nf_tables), nftables v1.0.6, ipset v7.17, kernel 6.1.0-40-amd64; not on the node: IPVS',
    ])
  })

  it('is why it was not reached', () => {
    expect(steps({}, {failure: 'no', hint: 'do'})).to.deep.equal([
      'failed node n1 at 10.0.0.1, by ssh as oncall, by bastion: no (do)',
    ])
  })

  for (const [time, said] of [
    ['2026-01-01T12:01:59Z', undefined],
    ['2026-01-01T13:03:00Z', /its clock is 63 min ahead of this machine's/],
    ['2025-12-31T12:00:00Z', /its clock is 1440 min behind this machine's/],
  ] as const)
    it(`is that its clock says ${time}`, () => {
      const [, , note] = steps({...good, 'backend.txt': BACKEND.replace('2026-01-01T12:00:30Z', time)})
      if (said === undefined) expect(note).to.equal(undefined)
      else
        expect(note)
          .to.match(said)
          .and.match(/^note .*timedatectl/)
    })

  it('is what it could not read, and what would help', () => {
    const files = {
      'backend.txt': BACKEND,
      'rc.txt': 'iptables-save.txt rc=4\n',
      'iptables-save.txt.stderr': 'Permission denied (you must be root)',
    }
    expect(steps(files)[1]).to.match(/^failed node n1: cannot read iptables.*must be root.*sudo -n/)
  })
})
