import {expect} from 'chai'
import {parseIptablesList} from '../../../src/parse/iptables-list.js'
import {parseRule, type IptablesRule} from '../../../src/parse/iptables-rule.js'
import type {IptablesDump} from '../../../src/parse/iptables.js'
import {LISTED} from './listed.js'

const HEAD = 'Chain X (1 references)\ntarget     prot opt source               destination\n'
const VERBOSE =
  'Chain X (1 references)\n pkts bytes target     prot opt in     out     source               destination\n'
const list = (text: string): IptablesDump =>
  parseIptablesList(text, 'iptables-nat-L.txt', (chain) => chain.startsWith('KUBE-'))
const rulesOf = (dump: IptablesDump, chain = 'X'): readonly IptablesRule[] =>
  [...dump.tables.values()].flatMap(({chains}) => chains.get(chain)?.rules ?? [])
const only = (row: string, head = HEAD): IptablesRule => rulesOf(list(`${head}${row}\n`))[0]!
const essence = ({
  protocol,
  source,
  destination,
  inInterface,
  outInterface,
  matches,
  target,
  problem,
}: IptablesRule): object => ({
  protocol,
  source,
  destination,
  inInterface,
  outInterface,
  matches: matches.filter(({module}) => !module.startsWith('interfaces that -L hides')),
  target,
  problem,
})

describe('parse/iptables-list: a row says the same as the line of iptables-save', () => {
  const pairs: readonly (readonly [string, string])[] = [
    [
      'KUBE-SVC-A  tcp  --  0.0.0.0/0            10.96.0.1            /* default/kubernetes:https cluster IP */ tcp dpt:443',
      '-d 10.96.0.1 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-A',
    ],
    [
      'KUBE-SVC-A  6    --  0.0.0.0/0            10.96.0.1            tcp dpts:80:90',
      '-d 10.96.0.1 -p tcp -m tcp --dport 80:90 -j KUBE-SVC-A',
    ],
    [
      'KUBE-MARK-MASQ  tcp  -- !10.244.0.0/16        10.96.0.1  tcp dpt:!443',
      '! -s 10.244.0.0/16 -d 10.96.0.1 -p tcp -m tcp ! --dport 443 -j KUBE-MARK-MASQ',
    ],
    [
      'KUBE-SEP-A  all  --  0.0.0.0/0  0.0.0.0/0  /* a -> 10.244.1.5:80 */ statistic mode random probability 0.50000000000',
      '-m comment --comment "a -> 10.244.1.5:80" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A',
    ],
    [
      'DNAT  tcp  --  0.0.0.0/0  0.0.0.0/0  /* a */ tcp to:10.244.1.5:80',
      '-p tcp -m comment --comment "a" -m tcp -j DNAT --to-destination 10.244.1.5:80',
    ],
    ['MARK  all  --  0.0.0.0/0  0.0.0.0/0  MARK or 0x4000', '-j MARK --or-mark 0x4000'],
    ['MARK  all  --  0.0.0.0/0  0.0.0.0/0  MARK xor 0x4000', '-j MARK --xor-mark 0x4000'],
    ['RETURN  all  --  0.0.0.0/0  0.0.0.0/0  mark match ! 0x4000/0x4000', '-m mark ! --mark 0x4000/0x4000 -j RETURN'],
    [
      'MASQUERADE  all  --  0.0.0.0/0  0.0.0.0/0  /* x */ random-fully',
      '-m comment --comment "x" -j MASQUERADE --random-fully',
    ],
    [
      'KUBE-NODEPORTS  all  --  0.0.0.0/0  0.0.0.0/0  ADDRTYPE match dst-type LOCAL',
      '-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    ],
    [
      'SNAT  all  --  0.0.0.0/0  !192.168.0.0/16  ADDRTYPE match dst-type !LOCAL to:192.168.1.10 random-fully',
      '! -d 192.168.0.0/16 -m addrtype ! --dst-type LOCAL -j SNAT --to-source 192.168.1.10 --random-fully',
    ],
    [
      'ACCEPT  all  --  0.0.0.0/0  0.0.0.0/0  match-set KUBE-CLUSTER-IP dst,dst',
      '-m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT',
    ],
    ['MASQUERADE  all  --  0.0.0.0/0  0.0.0.0/0  ! match-set all dst', '-m set ! --match-set all dst -j MASQUERADE'],
    [
      'CNI-DN-0af  tcp  --  0.0.0.0/0  0.0.0.0/0  multiport dports 80,443',
      '-p tcp -m multiport --dports 80,443 -j CNI-DN-0af',
    ],
    [
      'REJECT  tcp  --  0.0.0.0/0  10.96.0.9  tcp dpt:80 reject-with icmp-port-unreachable',
      '-d 10.96.0.9 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable',
    ],
    ['IN_public  all  --  0.0.0.0/0  0.0.0.0/0  [goto] ', '-g IN_public'],
    ['           all  --  0.0.0.0/0  0.0.0.0/0', ''],
  ]
  for (const [row, saved] of pairs) {
    it(row, () => {
      const wanted = parseRule(`-A X ${saved}`, {table: 'nat', chain: 'X', number: 1, file: '', line: 1})
      expect(essence(only(row))).to.deep.equal(essence(wanted))
    })
  }

  it('reads counters, K and M, line numbers and devices', () => {
    const read = only(
      '1     12K  720M DNAT       tcp  --  !docker0 *       0.0.0.0/0            0.0.0.0/0            tcp dpt:80 to:172.17.0.2:80',
      VERBOSE,
    )
    expect(read.problem).to.equal(undefined)
    expect(read.target?.name).to.equal('DNAT')
    expect(read.inInterface).to.deep.equal({not: true, value: 'docker0'})
    expect(read.outInterface).to.equal(undefined)
    expect(only('12 720   tcp  --  eth0 * 0.0.0.0/0  0.0.0.0/0', VERBOSE).target).to.equal(undefined)
  })

  it('reads chains, policies and lines', () => {
    const dump = list(`Chain PREROUTING (policy DROP 5 packets, 300 bytes)\n\n${HEAD}`)
    expect(
      [...dump.tables.get('nat')!.chains.values()].map(({name, policy, line}) => [name, policy, line]),
    ).to.deep.equal([
      ['PREROUTING', 'DROP', 1],
      ['X', undefined, 3],
    ])
    expect(dump.partial).to.equal(true)
  })

  it('does without the row of column names', () =>
    expect(rulesOf(list('Chain X (1 references)\nRETURN all -- 0.0.0.0/0 10.0.0.1\n'))[0]?.problem).to.equal(undefined))
})

describe('parse/iptables-list: as people paste it', () => {
  const row = 'DROP  all  --  0.0.0.0/0  0.0.0.0/0'
  it('passes over prompts', () => {
    const dump = list(`root@node1:~# iptables -t nat -nL\n${HEAD}${row}\n[root@n1 ~]# iptables -nL\n`)
    expect(dump.problems).to.deep.equal([])
    expect(rulesOf(dump)).to.have.length(1)
  })
  it('dots cut the chain that they stand in', () => {
    const dump = list(`${HEAD}${row}\n....\n`)
    expect(dump.problems[0]).to.include({line: 4})
    expect([dump.partial, [...dump.tables.values()][0]?.chains.values().next().value?.cut]).to.deep.equal([true, true])
  })
  it('a chain without its titles went through grep: rules may be missing', () => {
    const dump = list('Chain PREROUTING (policy ACCEPT)\nChain KUBE-A (1 references)\n')
    expect([...dump.tables.get('nat')!.chains.values()].map(({cut}) => cut)).to.deep.equal([true, true])
  })
  it('the same chain twice: two hosts in one file', () => {
    const dump = list(`${HEAD}${row}\n`.repeat(2))
    expect([...dump.tables.values()].some(({complete}) => !complete)).to.equal(true)
  })
  it('what iptables says of tables that it cannot show is heard', () => {
    const {hidden} = list(
      `# Warning: iptables-legacy tables present, use iptables-legacy to see them\n# Table \`nat' contains incompatible base-chains, use 'nft' tool to list them.\n${HEAD}`,
    )
    expect(hidden).to.deep.equal([{kind: 'legacy'}, {kind: 'native', table: 'nat'}])
  })
  it('a bare verdict without -v may be about one interface; -v says «any» or «*»', () => {
    expect(rulesOf(list(`${HEAD}${row}\n`))[0]?.matches.map(({module}) => module)).to.deep.equal([
      'interfaces that -L hides without -v',
    ])
    const verbose = `${HEAD}  0 0 DROP  all  --  any  *  0.0.0.0/0  0.0.0.0/0\n`
    const [rule] = rulesOf(list(verbose))
    expect([rule?.inInterface, rule?.outInterface, rule?.matches]).to.deep.equal([undefined, undefined, []])
  })
  it('what only looks at packets is understood however it is worded', () => {
    const words = [
      'LOG flags 0 level 4 prefix "x"',
      'nflog-group 86',
      'limit: avg 10/min burst 5 NFLOG nflog-group 100',
      'TCPMSS clamp to PMTU',
    ]
    for (const text of words)
      expect(
        rulesOf(
          list(`${HEAD}${text.startsWith('TCPMSS') ? 'TCPMSS' : 'NFLOG'}  all  --  0.0.0.0/0  0.0.0.0/0  ${text}\n`),
        )[0]?.problem,
        text,
      ).to.equal(undefined)
  })
})

describe('parse/iptables-list: what is not understood is a problem', () => {
  const rows = [
    'KUBE-SVC-A  tcp  --  anywhere   kubernetes.default.svc.cluster.local  /* a */ tcp dpt:https',
    'RETURN  all  --  localhost/8  anywhere',
    'KUBE-MARK-MASQ  all  --  node1.example.com  anywhere  /* a */',
    'DNAT  tcp  --  0.0.0.0/0  0.0.0.0/0  tcp [unsupported revision]',
    'KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1  /* default/kubern',
    'KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1  tcp dpt:',
    'KUBE-SVC-A  tcp  --  0.0.0.0/0',
    'KUBE-SVC-A  tcp',
    'KUBE-MARK-MASQ  all  --  x.x.x.x/32  0.0.0.0/0',
    'MARK  all  --  0.0.0.0/0  0.0.0.0/0  MARK or',
    'KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.  ',
    'X all -- 0.0.0.0/0 0.0.0.0/0 frobnicate',
    'Chain KUBE-SVC-A (1 refer',
    '以下是规则',
  ]
  for (const row of rows) {
    it(row, () => {
      const dump = list(`${HEAD}${row}\n`)
      expect(dump.problems[0]).to.include({file: 'iptables-nat-L.txt', line: 3})
      const rule = rulesOf(dump)[0]
      expect(rule?.problem ?? rule?.matches.find(({module}) => module.includes(' '))?.module).to.be.a('string')
    })
  }

  it('a port that is a name is its number, where the name is known', () => {
    const port = (name: string): unknown =>
      only(`X tcp -- anywhere anywhere tcp dpt:${name}`).matches[0]?.options[0]?.values
    expect([port('https'), port('ssh:domain'), port('frobnicate')]).to.deep.equal([['443'], ['22:53'], ['frobnicate']])
  })

  it('rows whose chain was lost by grep', () =>
    expect(list('KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1\n').problems).to.have.length(1))

  it('two tables in one file: neither chain of the same name is dropped silently', () => {
    const dump = list(
      `${HEAD}KUBE-SVC-A tcp -- 0.0.0.0/0 10.96.0.1 tcp dpt:80\n\n${HEAD}REJECT tcp -- 0.0.0.0/0 10.96.0.2 tcp dpt:80 reject-with icmp-port-unreachable\n`,
    )
    expect(dump.problems.length > 0 || rulesOf(dump).length === 2).to.equal(true)
  })

  it('a listing of the filter table is not taken for nat', () => {
    const dump = list('Chain FORWARD (policy DROP)\ntarget prot opt source destination\n')
    expect([...dump.tables.keys()]).to.deep.equal(['filter'])
  })
})

describe('parse/iptables-list: what real iptables printed in three ways', () => {
  /** Words of targets that nothing models, in any form. */
  const UNMODELLED = /-j (TPROXY|TTL --ttl-set)/
  /** Conditions that are not modelled: they stay open, in whatever words. */
  const modules = ({matches}: IptablesRule): string[] =>
    matches
      .map(({module}) => (module === 'state' ? 'conntrack' : module))
      .filter((module) => !module.includes(' '))
      .filter((module) => module !== 'limit')
  const OPEN =
    /-m (connlimit|string|u32|length|ttl|mac|time|tcpmss|dscp|tos|helper|cgroup|bpf|connbytes|rpfilter|ipvs|quota|nfacct)|--pol ipsec --proto|allow \*\/|hashlimit/
  const place = {table: 'nat', chain: 'X', number: 1, file: 'f', line: 1}
  for (const [save, verbose, plain] of LISTED) {
    if (UNMODELLED.test(save)) continue
    const wanted = parseRule(save, place)
    for (const [row, head] of [
      [verbose, VERBOSE],
      [plain, HEAD],
    ] as const)
      it(row.trim(), () => {
        const rule = only(row, head)
        expect(rule.problem).to.equal(undefined)
        expect(rule.target?.name).to.equal(wanted.target?.name === 'NOTRACK' ? 'CT' : wanted.target?.name)
        expect(rule.fragment).to.deep.equal(wanted.fragment)
        if (!OPEN.test(save)) expect(modules(rule)).to.deep.equal(modules(wanted))
        else expect(rule.matches.length).to.be.at.least(1)
        if (head === VERBOSE) expect(rule.inInterface).to.deep.equal(wanted.inInterface)
      })
  }
})

describe('parse/iptables-list: what a listing hides stays open', () => {
  const open = (row: string, head = HEAD): string[] =>
    only(row, head)
      .matches.map(({module}) => module)
      .filter((module) => module.includes(' '))
  it('interfaces without -v, whatever else the rule asks for', () => {
    for (const row of [
      'ACCEPT     all  --  0.0.0.0/0            0.0.0.0/0            ctstate RELATED,ESTABLISHED',
      'MASQUERADE  all  --  172.17.0.0/16        0.0.0.0/0',
      'DOCKER     all  --  0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type LOCAL',
    ])
      expect(open(row), row).to.deep.equal(['interfaces that -L hides without -v'])
    expect(open('MASQUERADE  all  --  10.244.0.0/16       !224.0.0.0/4')).to.deep.equal([])
    expect(open('KUBE-SERVICES  all  --  0.0.0.0/0            0.0.0.0/0')).to.deep.equal([])
  })
  it('a name is no interface, and its ports still count', () => {
    const rule = only('DROP       tcp  --  cks-master-0         anywhere             tcp dpt:http')
    expect(rule.inInterface).to.equal(undefined)
    expect(rule.matches.map(({module}) => module)).to.include.members([
      'source "cks-master-0", a name; list with -n',
      'tcp',
    ])
  })
  it('names that every system has are addresses', () => {
    const rule = only('DROP       all  -- !loopback/8           loopback/8           ')
    expect(rule.source).to.deep.equal({not: true, value: '127.0.0.0/8'})
    expect(rule.destination).to.deep.equal({not: false, value: '127.0.0.0/8'})
  })
  it('a condition in unknown words leaves the others known', () => {
    const rule = only('DROP       tcp  --  anywhere             10.96.0.1            tcp dpt:http made of cheese')
    expect(rule.problem).to.equal(undefined)
    expect(
      open('DROP       tcp  --  anywhere             10.96.0.1            tcp dpt:http made of cheese')[0],
    ).to.equal('"made of cheese", which is not understood')
  })
})
