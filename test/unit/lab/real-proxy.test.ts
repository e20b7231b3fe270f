import {expect} from 'chai'
import {ownsTable, withoutProxy} from '../../lab/real-proxy.js'

describe('lab: a real kube-proxy in place of recorded rules', () => {
  it('what kube-proxy owns is left out, and every line keeps its number', () => {
    const dump =
      '*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A POSTROUTING -j FLANNEL-POSTRTG\nCOMMIT'
    expect(withoutProxy(dump, 'iptables-save.txt').split('\n')).to.deep.equal([
      '*nat',
      ':PREROUTING ACCEPT [0:0]',
      '',
      '',
      '-A POSTROUTING -j FLANNEL-POSTRTG',
      'COMMIT',
    ])
  })

  it('sets and virtual servers are all kube-proxy’s', () => {
    expect(withoutProxy('create KUBE-X hash:ip\nadd KUBE-X 10.0.0.1', 'ipset-save.txt').trim()).to.equal('')
    expect(withoutProxy('-A -t 10.0.0.1:80 -s rr', 'ipvsadm-Sn.txt').trim()).to.equal('')
  })

  it('of nftables its own two tables', () => {
    expect(['ip', 'ip6', 'inet'].map((family) => ownsTable(family, 'kube-proxy'))).to.deep.equal([true, true, false])
    expect(ownsTable('ip', 'filter')).to.equal(false)
  })
})
