import {expect} from 'chai'
import fc from 'fast-check'
import {parseIpsetList, parseIpsetSave} from '../../../src/parse/ipset.js'

const CREATE =
  'create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 comment bucketsize 12 initval 0x665d30c2'
const head = (name: string, type = 'hash:ip,port'): string =>
  `Name: ${name}\nType: ${type}\nRevision: 6\nHeader: family inet hashsize 1024 maxelem 65536\nSize in memory: 336\nReferences: 0\n`

describe('parse/ipset: save', () => {
  it('reads sets, options and members', () => {
    const {sets, problems} = parseIpsetSave(
      `${CREATE}\nadd KUBE-CLUSTER-IP 10.96.0.1,tcp:443 comment "default/kubernetes: https, add x"\nadd KUBE-CLUSTER-IP 10.96.0.10,udp:53\n`,
      's',
    )
    expect(problems).to.deep.equal([])
    const set = sets.get('KUBE-CLUSTER-IP')!
    expect([set.type, set.family, set.options.get('maxelem'), set.options.get('bucketsize'), set.line]).to.deep.equal([
      'hash:ip,port',
      'inet',
      '65536',
      '12',
      1,
    ])
    expect(set.entries.map(({parts, line}) => [...parts, line])).to.deep.equal([
      ['10.96.0.1', 'tcp:443', 2],
      ['10.96.0.10', 'udp:53', 3],
    ])
  })

  const names = [
    'weave-k?Z;25^M}|1s7P3|H9i;*;MhG',
    'weave-:{a|b;c',
    'KUBE-6-LOAD-BALANCER-SOURCE-CID',
    'cali40s:abc/d',
    'add',
    'a',
  ]
  for (const name of names) {
    it(`reads a set named ${name}`, () => {
      const {sets, problems} = parseIpsetSave(
        `create ${name} hash:net family inet6 hashsize 1024 maxelem 65536\nadd ${name} fd00::/64 nomatch\n`,
        's',
      )
      expect(problems).to.deep.equal([])
      expect([...sets.keys()]).to.deep.equal([name])
      const set = sets.get(name)!
      expect([set.family, set.entries[0]?.parts[0], set.entries[0]?.nomatch]).to.deep.equal([
        'inet6',
        'fd00::/64',
        true,
      ])
    })
  }

  it('reads list:set, bitmap:port and timeouts', () => {
    const {sets, problems} = parseIpsetSave(
      'create L list:set size 8\nadd L A\ncreate B bitmap:port range 0-65535\nadd B 31253\ncreate T hash:ip family inet hashsize 64 maxelem 65536 timeout 0\nadd T 10.0.0.1 timeout 55\n',
      's',
    )
    expect(problems).to.deep.equal([])
    expect([...sets.values()].map(({type, entries}) => [type, entries[0]?.parts])).to.deep.equal([
      ['list:set', ['A']],
      ['bitmap:port', ['31253']],
      ['hash:ip', ['10.0.0.1']],
    ])
  })

  const strange = ['....', 'add OTHER 10.0.0.1,tcp:80', 'add KUBE-CLUSTER-IP', 'create', '下面']
  for (const line of strange)
    it(`says that "${line}" is not understood`, () =>
      expect(parseIpsetSave(`${CREATE}\n${line}\n`, 's').problems[0]).to.include({file: 's', line: 2}))

  const members = [
    '10.96.0.1',
    '10.96.0.1,tcp',
    '10.96.0.',
    'x.x.x.x,tcp:80',
    '10.96.0.300,tcp:80',
    '10.96.0.1,tcp:https',
    '10.96.0.1,tcp:80 garbage',
  ]
  for (const member of members) {
    it(`says that the member "${member}" of a hash:ip,port is not understood`, () =>
      expect(parseIpsetSave(`${CREATE}\nadd KUBE-CLUSTER-IP ${member}\n`, 's').problems).to.have.length(1))
  }
})

describe('parse/ipset: list', () => {
  it('reads sets without "Number of entries", with counters and comments', () => {
    const {sets, problems} = parseIpsetList(
      `${head('A')}Members:\n10.0.0.1,tcp:80 packets 1 bytes 2 comment "x"\n\n${head('B')}Number of entries: 1\nMembers:\n10.0.0.2,udp:53\n`,
      'l',
    )
    expect(problems).to.deep.equal([])
    expect(
      [...sets.values()].map(({name, entries, line}) => [name, line, ...entries.map(({parts}) => parts.join())]),
    ).to.deep.equal([
      ['A', 1, '10.0.0.1,tcp:80'],
      ['B', 10, '10.0.0.2,udp:53'],
    ])
  })

  it('counts members against the promise', () => {
    expect(
      parseIpsetList(`${head('A')}Number of entries: 2\nMembers:\n10.0.0.1,tcp:80\n`, 'l').problems,
    ).to.have.length(1)
    expect(parseIpsetList(`${head('A')}Number of entries: 2\n`, 'l').problems).to.have.length(1)
  })

  it('says that members were never listed (cut, or -t without a count)', () =>
    expect(parseIpsetList(head('A'), 'l').problems).to.have.length(1))

  it('says what stands outside a set', () => {
    expect(parseIpsetList('10.0.0.1,tcp:80\n', 'l').problems).to.have.length(1)
    expect(parseIpsetList('Name: A\nMembers:\n10.0.0.1,tcp:80\n', 'l').problems).to.have.length(1)
  })

  for (const line of ['node2 | CHANGED | rc=0 >>', '....', 'x.x.x.x,tcp:80']) {
    it(`does not take "${line}" for a member`, () =>
      expect(parseIpsetList(`${head('A')}Members:\n10.0.0.1,tcp:80\n${line}\n`, 'l').problems).to.not.deep.equal([]))
  }

  it('passes over prompts, which end a set', () => {
    const prompts = [
      'root@node1:~# ipset list B',
      '[root@n2 ~]# ipset list',
      '[sudo] password for x:',
      '$ sudo ipset list',
    ]
    for (const prompt of prompts) {
      const {problems, sets} = parseIpsetList(`${prompt}\n${head('A')}Members:\n10.0.0.1,tcp:80\n${prompt}\n`, 'l')
      expect(problems, prompt).to.deep.equal([])
      expect(sets.get('A')?.entries.length, prompt).to.equal(1)
    }
  })

  it('says that a set stands twice: of two hosts nobody knows which is meant', () => {
    const twice = parseIpsetList(`${head('A')}Members:\n10.0.0.1,tcp:80\n`.repeat(2), 'l')
    expect([...twice.twice], twice.problems[0]?.message).to.deep.equal(['A'])
    expect([...parseIpsetSave(`${CREATE}\n${CREATE}\n`, 'f').twice]).to.have.length(1)
  })

  it('reads the same members from save and list', () => {
    const member = fc
      .tuple(fc.ipV4(), fc.constantFrom('tcp', 'udp', 'sctp'), fc.integer({min: 0, max: 65535}))
      .map(([host, protocol, port]) => `${host},${protocol}:${port}`)
    fc.assert(
      fc.property(fc.uniqueArray(member, {maxLength: 10}), (members) => {
        const saved = parseIpsetSave([CREATE, ...members.map((one) => `add KUBE-CLUSTER-IP ${one}`)].join('\n'), 'f')
        const listed = parseIpsetList(
          `${head('KUBE-CLUSTER-IP')}Number of entries: ${members.length}\nMembers:\n${members.join('\n')}\n`,
          'f',
        )
        const parts = ({sets}: typeof saved): unknown =>
          sets.get('KUBE-CLUSTER-IP')!.entries.map((entry) => entry.parts)
        expect([...saved.problems, ...listed.problems]).to.deep.equal([])
        expect(parts(listed)).to.deep.equal(parts(saved))
      }),
      {numRuns: 100},
    )
  })
})
