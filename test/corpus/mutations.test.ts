import {expect} from 'chai'
import {check} from '../../src/checks/check.js'
import type {Finding} from '../../src/checks/finding.js'
import {buildWorld} from '../../src/engine.js'
import {corpusSnapshot, snapshotFiles} from '../helpers/corpus.js'

import {
  all,
  edit,
  editJson,
  first,
  onNode2,
  rules,
  SAVE,
  SAVE6,
  without,
  type Files,
  type Mode,
  type Mutation,
  brief,
  checkFiles,
  fresh,
  key,
  type Fresh,
} from '../helpers/mutate.js'

const NODES = ['node1', 'node2', 'node3']

/** As if these files had never been asked for. */
function neverAsked(files: Files, node: string, names: RegExp): void {
  for (const path of [...files.keys()])
    if (path.startsWith(`nodes/${node}/`) && names.test(path.split('/')[2]!)) files.delete(path)
  const codes = files.get(`nodes/${node}/rc.txt`)!
  const kept = codes.split('\n').filter((line) => !names.test(line))
  files.set(`nodes/${node}/rc.txt`, kept.join('\n'))
}

/** How the command behind a file of node2 ended. */
const ended = (file: string, rc: number): Mutation =>
  onNode2('rc.txt', (text) => text.replaceAll(new RegExp(`^${file} rc=\\d+`, 'gm'), `${file} rc=${rc}`))

interface Named {
  metadata: {name: string; namespace?: string; labels: Record<string, string>}
}
interface List<T> {
  items: (Named & T)[]
}
interface Service {
  spec: {
    clusterIP?: string
    ports?: {nodePort?: number}[]
    loadBalancerSourceRanges?: string[]
  }
}
interface Endpoint {
  nodeName?: string
  conditions: Record<string, boolean>
  targetRef?: {name: string}
  hints?: {forZones: {name: string}[]}
}
interface Slice {
  addressType: string
  endpoints: Endpoint[]
  ports: unknown[]
}
interface Subset {
  addresses?: unknown
  notReadyAddresses?: unknown
}

const object = <T>({items}: List<T>, name: string): Named & T => items.find(({metadata}) => metadata.name === name)!

const service =
  (name: string, change: (spec: Service['spec']) => void): Mutation =>
  (files) =>
    editJson<List<Service>>(files, 'api/services.json', (list) => change(object(list, name).spec))

const slices =
  (name: string, change: (slice: Slice) => void): Mutation =>
  (files) =>
    editJson<List<Slice>>(files, 'api/endpointslices.json', ({items}) => {
      for (const slice of items) if (slice.metadata.labels['kubernetes.io/service-name'] === name) change(slice)
    })

const nodePortAddresses =
  (value: string): Mutation =>
  (files) =>
    editJson<{data: Record<string, string>}>(files, 'api/configmap-kube-proxy.json', ({data}) => {
      data['config.conf'] += `nodePortAddresses: [${value}]\n`
    })

/** node2 gets one more address, on eth0 too. */
const secondAddress =
  (type: string): Mutation =>
  (files) => {
    editJson<List<{status: {addresses: {type: string; address: string}[]}}>>(files, 'api/nodes.json', (list) =>
      object(list, 'node2').status.addresses.push({type, address: '192.168.77.2'}),
    )
    editJson<{ifname: string; addr_info: object[]}[]>(files, 'nodes/node2/ip-addr.json', (links) =>
      links
        .find(({ifname}) => ifname === 'eth0')!
        .addr_info.push({
          family: 'inet',
          local: '192.168.77.2',
          prefixlen: 24,
          scope: 'global',
          label: 'eth0',
        }),
    )
    const local = {type: 'local', dst: '192.168.77.2', dev: 'eth0', table: 'local', protocol: 'kernel', scope: 'host'}
    editJson<object[]>(files, 'nodes/node2/ip-route.json', (routes) =>
      routes.push({...local, prefsrc: '192.168.77.2', flags: []}),
    )
  }

interface NftObject {
  rule?: {chain: string; comment?: string}
  set?: {timeout?: number}
}
const nft =
  (change: (objects: NftObject[]) => NftObject[]): Mutation =>
  (files) =>
    editJson<{nftables: NftObject[]}>(files, 'nodes/node2/nft.json', (ruleset) => {
      ruleset.nftables = change(ruleset.nftables)
    })

/** What `iptables -t nat -nvL --line-numbers` prints for a rule of iptables-save. */
const LISTED: [RegExp, string][] = [
  [/-m comment --comment "([^"]*)"/, '/* $1 */'],
  [/-m (tcp|udp|sctp) --dport (\d+)/, '$1 dpt:$2'],
  [/-m (tcp|udp|sctp)\b/, '$1'],
  [/-m addrtype --(src|dst)-type LOCAL/, 'ADDRTYPE match $1-type LOCAL'],
  [/-m statistic --mode random --probability (\S+)/, 'statistic mode random probability $1'],
  [
    /-m recent --rcheck --seconds (\d+) --reap --name (\S+) --mask (\S+) --rsource/,
    'recent: CHECK seconds: $1 reap name: $2 side: source mask: $3',
  ],
  [/-m recent --set --name (\S+) --mask (\S+) --rsource/, 'recent: SET name: $1 side: source mask: $2'],
  [/-m nfacct --nfacct-name +(\S+)/, 'nfacct-name  $1'],
  [/-m mark ! --mark (\S+)/, 'mark match ! $1'],
  [/-m mark --mark (\S+)/, 'mark match $1'],
  [/--to-destination (\S+)/, 'to:$1'],
  [/--set-xmark 0x4000\/0x4000/, 'MARK or 0x4000'],
  [/--set-xmark 0x4000\/0x0/, 'MARK xor 0x4000'],
  [/--random-fully/, 'random-fully'],
]

function listedRule(rule: string): string {
  const take = (flag: string, otherwise: string): string => {
    const found = new RegExp(`(! )?-${flag} (\\S+) `).exec(rule)
    if (!found) return otherwise
    rule = rule.replace(found[0], '')
    return `${found[1] ? '!' : ''}${found[2]}`
  }
  rule = `${rule} `
  const [source, target] = [take('s', '0.0.0.0/0'), take('d', '0.0.0.0/0')]
  const [protocol, verdict] = [take('p', 'all'), take('j', '')]
  const rest = LISTED.reduce((text, [from, to]) => text.replace(from, to), rule)
  return `1 1 60 ${verdict} ${protocol} -- * * ${source} ${target} ${rest}`
}

/** The nat table as a listing, which is all that the nodes show of their rules. */
function onlyListing(files: Files): void {
  for (const node of NODES) {
    const nat = /\*nat\n([\s\S]*?)COMMIT/.exec(files.get(`nodes/${node}/${SAVE}`)!)![1]!.split('\n')
    const listing = nat.flatMap((head) => {
      const [, chain, policy] = /^:(\S+) (\S+)/.exec(head) ?? []
      if (chain === undefined) return []
      const mine = nat.map((line) => line.split(`-A ${chain} `)[1]).filter((rule) => rule !== undefined)
      const title = `Chain ${chain} (${policy === '-' ? '1 references' : `policy ${policy} 0 packets, 0 bytes`})`
      return [title, 'num   pkts bytes target prot opt in out source destination', ...mine.map(listedRule), '']
    })
    neverAsked(files, node, /^(iptables-(legacy-)?save|nft)/)
    files.set(`nodes/${node}/iptables-nat-L.txt`, listing.join('\n'))
  }
}

interface Wanted {
  readonly code: string
  readonly severity?: string
  /** All nodes that have it. */
  readonly nodes?: readonly string[]
  readonly service?: string
  readonly says?: RegExp
  readonly proof?: RegExp
  /** How many; at least one when undefined. */
  readonly count?: number
  readonly victims?: number
  /** No other new error or warning. */
  readonly exactly?: boolean
  /** Nodes that are told to be incomplete. */
  readonly open?: readonly string[]
  /** No other new error. */
  readonly onlyError?: boolean
}

function fits(wanted: Wanted, finding: Finding): boolean {
  return (
    finding.code === wanted.code &&
    (wanted.severity === undefined || finding.severity === wanted.severity) &&
    (wanted.service === undefined || finding.services.includes(wanted.service)) &&
    (wanted.says === undefined || wanted.says.test(finding.message)) &&
    (wanted.proof === undefined || finding.evidence.some(({text}) => wanted.proof!.test(text))) &&
    finding.services.length >= (wanted.victims ?? 0)
  )
}

function expectFinding(wanted: Wanted, {findings, loud, incomplete}: Fresh): void {
  const found = findings.filter((finding) => fits(wanted, finding))
  const told = `new findings: ${JSON.stringify(brief(loud), undefined, 1)}`
  expect(found, told).to.not.be.empty
  if (wanted.nodes) expect([...new Set(found.map(({node}) => node))].sort(), told).to.deep.equal([...wanted.nodes])
  if (wanted.count !== undefined) expect(found.length, told).to.equal(wanted.count)
  expect(incomplete.map(({node}) => node)).to.include.members([...(wanted.open ?? [])])
  const others = loud.filter((finding) => !found.includes(finding))
  if (wanted.exactly) expect(brief(others)).to.deep.equal([])
  if (wanted.onlyError) expect(brief(others.filter(({severity}) => severity === 'error'))).to.deep.equal([])
}

type Row = [title: string, mode: Mode, mutate: Mutation, wanted: Wanted]
type Quiet = [title: string, mode: Mode, mutate: Mutation, silent: (found: Fresh) => unknown]

const NODE2 = ['node2']
const WRONG_CIDR = onNode2(
  SAVE,
  rules('nat', (line) =>
    line.startsWith('-A KUBE-SVC') ? line.replace('! -s 10.244.0.0/16', '! -s 10.24.0.0/16') : line,
  ),
)
const NO_SHORT_CIRCUIT = onNode2(
  SAVE,
  without('nat', /"(pod traffic for|(masquerade|route) LOCAL traffic for) shop\/lb-local:/),
)
const NO_SHORT_CIRCUIT_NFT = all(
  nft((objects) =>
    objects.filter(
      ({rule}) =>
        !rule?.chain.includes('external-') ||
        !rule.chain.includes('/lb-local/') ||
        !/short-circuit|masquerade local/.test(rule.comment ?? ''),
    ),
  ),
  (files) => neverAsked(files, 'node2', /^nft\.txt/),
)
const SOURCE_RANGE_MISSING = all(
  service('lb', (spec) => spec.loadBalancerSourceRanges!.push('10.244.0.0/16')),
  ...['node1', 'node3'].map(
    (node): Mutation =>
      (files) =>
        edit(files, `nodes/${node}/${SAVE}`, (text) =>
          text.replace(/^.*(-A KUBE-FW-\S+ )-s 203\.0\.113\.0\/24( .*"shop\/lb:http .*)$/m, '$&\n$1-s 10.244.0.0/16$2'),
        ),
  ),
)
const PROXY_TO_EXT = onNode2(SAVE, (text) => {
  const ext = /"shop\/lb-proxy:http" .*-j (KUBE-EXT-\S+)/.exec(text)![1]!
  return first('nat', 'KUBE-SERVICES', `-d 172.18.5.12/32 -p tcp -m tcp --dport 80 -j ${ext}`)(text)
})

/** The first of these pods has a label, and a policy lets nobody reach it; both are dropped, each by a rule of its own. */
const policyAndStray = (stray: string): Mutation =>
  all(
    (files) =>
      editJson<List<object>>(files, 'api/pods.json', (list) => {
        object(list, 'local-np-a').metadata.labels['tier'] = 'closed'
      }),
    (files) =>
      files.set(
        'api/networkpolicies.json',
        JSON.stringify({
          items: [
            {
              metadata: {name: 'closed', namespace: 'shop'},
              spec: {podSelector: {matchLabels: {tier: 'closed'}}, policyTypes: ['Ingress']},
            },
          ],
        }),
      ),
    onNode2(SAVE, (text) => {
      const [one, other] = [...text.matchAll(/"shop\/local-np:http" .*--to-destination (\S+):8080/g)].map(
        ([, ip]) => ip,
      )
      const drop = (ip: string | undefined): string => `-d ${ip}/32 -p tcp -m tcp --dport 8080 -j DROP`
      const mine = first('filter', 'FORWARD', drop(one))(text)
      return stray === '' ? mine : first('filter', 'FORWARD', `${drop(other)} ${stray}`)(mine)
    }),
  )

const ROUTE_BY_NODE3: Mutation = (files) =>
  editJson<{dst: string; gateway?: string}[]>(files, 'nodes/node2/ip-route.json', (routes) => {
    for (const route of routes) if (route.dst === '10.244.1.0/24') route.gateway = '172.18.0.13'
  })
const linkDown =
  (device: string): Mutation =>
  (files) =>
    editJson<{ifname: string; flags: string[]}[]>(files, 'nodes/node2/ip-link.json', (links) => {
      const link = links.find(({ifname}) => ifname === device)!
      link.flags = link.flags.filter((flag) => flag !== 'UP' && flag !== 'LOWER_UP')
    })

const RULES: Row[] = [
  [
    'a route to pods leads to a third node',
    'iptables-v4',
    ROUTE_BY_NODE3,
    {code: 'SVT114', nodes: NODE2, proof: /via 172\.18\.0\.13/, count: 1, exactly: true},
  ],
  [
    'the device of the pods is down',
    'iptables-v4',
    linkDown('cni0'),
    {code: 'SVT115', nodes: NODE2, count: 1, exactly: true},
  ],
  [
    'the second of two local endpoints is not masqueraded to itself',
    'iptables-v4',
    onNode2(SAVE, (text) => {
      const [own] = /^.*-A KUBE-SEP-\S+ -s 10\.244\.2\.21\/32 .*"default\/both-local:http" -j KUBE-MARK-MASQ\n/m.exec(
        text,
      )!
      return text.replace(own, '')
    }),
    {code: 'SVT120', nodes: NODE2, service: 'default/both-local', exactly: true},
  ],
  [
    'a rule drops what one pod of a node asks the DNS',
    'iptables-v4',
    onNode2(SAVE, first('filter', 'FORWARD', '-s 10.244.2.23/32 -p udp -m udp --dport 53 -j DROP')),
    {
      code: 'SVT201',
      nodes: NODE2,
      service: 'kube-system/kube-dns',
      proof: /-s 10\.244\.2\.23/,
      count: 1,
      exactly: true,
    },
  ],
  [
    'a rule of nft drops what one pod of a node asks the DNS',
    'nftables-v4',
    all(
      onNode2(
        'nft.txt',
        (text) =>
          `${text}table ip x {\n\tset odd {\n\t\ttype ipv4_addr\n\t\telements = { 10.244.2.23 }\n\t}\n\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tip saddr @odd udp dport 53 drop\n\t}\n}\n`,
      ),
      (files) => neverAsked(files, 'node2', /^nft\.json/),
    ),
    {code: 'SVT201', nodes: NODE2, service: 'kube-system/kube-dns', proof: /@odd/, count: 1},
  ],
  [
    'pods of one node do not get to the node port of another one, which is not the next of the list',
    'iptables-v4',
    onNode2(SAVE, first('filter', 'FORWARD', '-s 10.244.0.0/16 -d 172.18.0.11/32 -p tcp -m tcp --dport 32327 -j DROP')),
    {code: 'SVT201', nodes: NODE2, service: 'default/dempapp', count: 1, exactly: true},
  ],
  [
    'a node does not get to the node port of another one',
    'iptables-v4',
    onNode2(SAVE, first('filter', 'OUTPUT', '-d 172.18.0.11/32 -p tcp -m tcp --dport 32327 -j DROP')),
    {code: 'SVT201', nodes: NODE2, service: 'default/dempapp', count: 1, exactly: true},
  ],
  [
    'a drop that a policy wants hides no other one',
    'iptables-v4',
    policyAndStray('-m comment --comment stray'),
    {code: 'SVT201', nodes: NODE2, service: 'shop/local-np', proof: /stray/, count: 1, exactly: true},
  ],
  [
    'a wrong cluster CIDR masquerades pods: their addresses are lost',
    'iptables-v4',
    WRONG_CIDR,
    {
      code: 'SVT152',
      severity: 'warning',
      nodes: NODE2,
      proof: /! -s 10\.24\.0\.0\/16/,
      count: 1,
      victims: 10,
      exactly: true,
    },
  ],
  [
    'a wrong cluster CIDR (nftables)',
    'nftables-v4',
    all(
      onNode2('nft.txt', (text) =>
        text.replaceAll('ip saddr != 10.244.0.0/16 meta mark', 'ip saddr != 10.24.0.0/16 meta mark'),
      ),
      nft((objects) =>
        objects.map((one) =>
          JSON.stringify(one).includes('masquerade clusterIP')
            ? (JSON.parse(JSON.stringify(one).replaceAll('10.244.0.0', '10.24.0.0')) as typeof one)
            : one,
        ),
      ),
    ),
    {code: 'SVT152', severity: 'warning', nodes: NODE2, count: 1, victims: 10, exactly: true},
  ],
  [
    'a client range of the load balancer that one node does not let in',
    'iptables-v4',
    SOURCE_RANGE_MISSING,
    {code: 'SVT154', nodes: NODE2, service: 'shop/lb', exactly: true},
  ],
  [
    'without the jumps to KUBE-SERVICES in filter nothing refuses',
    'iptables-v4',
    onNode2(SAVE, without('filter', /^-A (INPUT|FORWARD|OUTPUT) .*-j KUBE-(EXTERNAL-)?SERVICES/)),
    {code: 'SVT153', severity: 'warning', nodes: NODE2, exactly: true},
  ],
  [
    'a rule drops what comes to the health check port',
    'iptables-v4',
    onNode2(SAVE, first('filter', 'INPUT', '-p tcp -m tcp --dport 31999 -j DROP')),
    {code: 'SVT135', nodes: NODE2, service: 'shop/lb-local', exactly: true},
  ],
  [
    'nobody listens on the health check port',
    'iptables-v4',
    onNode2('ss.txt', (text) => text.replace(/^.*:31999 .*\n/m, '')),
    {code: 'SVT135', nodes: NODE2, service: 'shop/lb-local', exactly: true},
  ],
  [
    'kube-ipvs0 lacks one address on two nodes',
    'ipvs-v4',
    (files) => {
      for (const node of ['node2', 'node3']) {
        editJson<{addr_info: {local: string}[]}[]>(files, `nodes/${node}/ip-addr.json`, (links) => {
          for (const link of links) link.addr_info = link.addr_info.filter(({local}) => local !== '10.96.51.32')
        })
        edit(files, `nodes/${node}/ip-route.json`, (text) =>
          JSON.stringify((JSON.parse(text) as {dst: string}[]).filter(({dst}) => dst !== '10.96.51.32')),
        )
      }
    },
    {code: 'SVT130', nodes: ['node2', 'node3'], service: 'default/dempapp', count: 2, exactly: true},
  ],
  [
    'a set of ipvs mode lacks a cluster IP, which is neither masqueraded nor let in',
    'ipvs-v4',
    onNode2('ipset-save.txt', (text) => text.replace('add KUBE-CLUSTER-IP 10.96.51.32,tcp:80\n', '')),
    {code: 'SVT130', nodes: NODE2, service: 'default/dempapp', count: 1, exactly: true},
  ],
  [
    'ipvs mode takes every endpoint for pods where policy Local has none on the node: a set that lacks the address ends that',
    'ipvs-v4',
    onNode2('ipset-save.txt', (text) => text.replace('add KUBE-LOAD-BALANCER 172.18.5.11,tcp:443\n', '')),
    {
      code: 'SVT132',
      nodes: ['node2'],
      service: 'shop/lb-local',
      proof: /^create KUBE-LOAD-BALANCER .*: no 172\.18\.5\.11,tcp:443$/,
      exactly: true,
    },
  ],
  [
    'IPVS has no virtual server at a new address of the node',
    'ipvs-v4',
    secondAddress('ExternalIP'),
    {code: 'SVT131', nodes: NODE2, says: /no NodePort works at 192\.168\.77\.2/, count: 1, exactly: true},
  ],
  [
    'NodePorts answer where nodePortAddresses says they must not',
    'iptables-v4',
    nodePortAddresses('10.99.0.0/24'),
    {code: 'SVT151', nodes: NODES, exactly: true},
  ],
  [
    'a load balancer of ipMode Proxy that a node handles itself',
    'iptables-v4',
    PROXY_TO_EXT,
    {code: 'SVT151', nodes: NODE2, service: 'shop/lb-proxy', exactly: true},
  ],
  [
    'session affinity that ends too early',
    'iptables-v4',
    onNode2(SAVE, (text) => text.replaceAll('--seconds 10800', '--seconds 60')),
    {code: 'SVT144', nodes: NODE2, service: 'default/sticky', says: /\b60 ?s/},
  ],
  [
    'session affinity that nobody asks for',
    'iptables-v4',
    onNode2(SAVE, without('nat', /--rcheck/)),
    {code: 'SVT144', nodes: NODE2, service: 'default/sticky', says: /no rule asks/},
  ],
  [
    'session affinity that one endpoint of several has lost',
    'iptables-v4',
    onNode2(SAVE, without('nat', /default\/sticky:http -> 10\.244\.2\.19:8080" -m recent --rcheck/)),
    {code: 'SVT144', nodes: NODE2, service: 'default/sticky', says: /no rule asks/, exactly: true},
  ],
  [
    'session affinity (nftables) that ends too early',
    'nftables-v4',
    all(
      nft((objects) =>
        objects.map(({set, ...rest}) => (set ? {set: {...set, ...(set.timeout ? {timeout: 60} : {})}} : rest)),
      ),
      onNode2('nft.txt', (text) => text.replaceAll('timeout 3h', 'timeout 1m')),
    ),
    {code: 'SVT144', nodes: NODE2, service: 'default/sticky', says: /\b60 ?s/},
  ],
  [
    'a NodePort rule that is printed without its port is not understood, and not missing',
    'iptables-v4',
    onNode2(
      SAVE,
      rules('nat', (line) => (line.startsWith('-A KUBE-NODEPORTS') ? line.replace('-m tcp --dport 32327 ', '') : line)),
    ),
    {code: 'SVT167', nodes: NODE2, exactly: true, open: NODE2},
  ],
  [
    'the IPv6 nat table is flushed',
    'iptables-dual',
    onNode2(SAVE6, without('nat', /./)),
    {code: 'SVT101', nodes: NODE2, says: /no IPv6 Service works on node2/, exactly: true},
  ],
]

/** One line as `conntrack -L` prints it, with the address that answers. */
const flow =
  (to: string, answers: string): Mutation =>
  (files) =>
    files.set(
      'nodes/node2/conntrack.txt',
      `udp      17 175 src=172.18.0.101 ${to} src=${answers} dst=172.18.0.12 sport=5300 dport=514 [ASSURED] mark=0 use=1\n`,
    )

/** What kube-proxy leaves behind when its mode changes: virtual servers at cluster IPs. */
const VIRTUAL_SERVERS = (text: string): string =>
  ['web', 'dempapp', 'wordpress']
    .map((name) => `${object(JSON.parse(text) as List<Service>, name).spec.clusterIP}:80`)
    .map((address) => `-A -t ${address} -s rr\n-a -t ${address} -r 10.244.2.11:8080 -m -w 1\n`)
    .join('')

const link = (ifname: string): object => ({
  ifindex: 90,
  ifname,
  flags: ['BROADCAST', 'NOARP', 'UP', 'LOWER_UP'],
  mtu: 1500,
  operstate: 'UNKNOWN',
  link_type: 'ether',
  addr_info: [{family: 'inet', local: '10.96.0.1', prefixlen: 32, scope: 'link', label: ifname}],
})

const SICK: Row[] = [
  [
    'a UDP flow of a NodePort that is held on an address that is gone',
    'iptables-v4',
    flow('dst=172.18.0.12 sport=514 dport=30053', '10.244.2.99'),
    {code: 'SVT166', nodes: NODE2, service: 'shop/udp', exactly: true},
  ],
  [
    'a UDP flow of a cluster IP that is held on the pod of another Service',
    'iptables-v4',
    flow('dst=10.96.253.26 sport=514 dport=5300', '10.244.2.11'),
    {code: 'SVT166', nodes: NODE2, service: 'shop/udp', exactly: true},
  ],
  [
    'virtual servers of IPVS beside the rules of iptables',
    'iptables-v4',
    all(
      (files) => files.set('nodes/node2/ipvsadm-Sn.txt', VIRTUAL_SERVERS(files.get('api/services.json')!)),
      ended('ipvsadm-Sn.txt', 0),
    ),
    {code: 'SVT162', nodes: NODE2, exactly: true},
  ],
  [
    'kube-router’s device beside kube-proxy',
    'iptables-v4',
    all(
      ...['ip-addr.json', 'ip-link.json'].map(
        (file): Mutation =>
          (files) =>
            editJson<object[]>(files, `nodes/node2/${file}`, (links) => links.push(link('kube-dummy-if'))),
      ),
    ),
    {code: 'SVT162', nodes: NODE2, exactly: true},
  ],
  [
    'the same IPv6 rule five hundred times',
    'iptables-dual',
    onNode2(
      SAVE6,
      first(
        'filter',
        'KUBE-FORWARD',
        Array.from({length: 500}, () => '-m conntrack --ctstate INVALID -j DROP').join('\n-A KUBE-FORWARD '),
      ),
    ),
    {code: 'SVT169', nodes: NODE2, exactly: true},
  ],
  [
    'an IPv6 rule that iptables itself cannot print',
    'iptables-dual',
    onNode2(SAVE6, (text) => text.replace(/-j DNAT --to-destination \S+/, '-j DNAT [unsupported revision]')),
    {code: 'SVT167', nodes: NODE2, exactly: true, open: NODE2},
  ],
  [
    'kube-proxy’s log says that its rules are refused',
    'iptables-v4',
    (files) =>
      files.set(
        'nodes/node2/kube-proxy.log',
        `E1120 05:01:11.000000       1 proxier.go:1569] "Failed to execute iptables-restore" err="exit status 2: Couldn't load target KUBE-MARK-DROP"\n`.repeat(
          3,
        ),
      ),
    {code: 'SVT102', nodes: NODE2, exactly: true},
  ],
]

const endpoints =
  (name: string, change: (subsets: Subset[]) => Subset[]): Mutation =>
  (files) =>
    editJson<List<{subsets?: Subset[]}>>(files, 'api/endpoints.json', (list) => {
      const one = object(list, name)
      one.subsets = change(one.subsets ?? [])
    })

const NOT_READY = ({endpoints: list}: Slice): void =>
  list.forEach(({conditions}) => Object.assign(conditions, {ready: false, serving: false}))

const OBJECTS: Row[] = [
  [
    'a dual-stack Service without IPv6 endpoints',
    'iptables-dual',
    (files) =>
      editJson<List<Slice>>(files, 'api/endpointslices.json', (list) => {
        list.items = list.items.filter(
          ({metadata, addressType}) =>
            metadata.labels['kubernetes.io/service-name'] !== 'dual' || addressType !== 'IPv6',
        )
      }),
    {code: 'SVT303', severity: 'error', service: 'default/dual', says: /IPv6/},
  ],
  [
    'a pod that has no port of the name that the Service wants',
    'iptables-v4',
    (files) =>
      editJson<List<{spec: {containers: {ports: {name: string}[]}[]}}>>(files, 'api/pods.json', (list) => {
        object(list, 'named-b').spec.containers[0]!.ports[0]!.name = 'http'
      }),
    {code: 'SVT305', severity: 'warning', service: 'shop/named'},
  ],
  [
    'the only endpoint of a Local load balancer is on a node that is not there',
    'iptables-v4',
    slices('lb-local', ({endpoints: list}) => list.forEach((one) => (one.nodeName = 'ip-10-0-0-7.ec2.internal'))),
    {code: 'SVT307', service: 'shop/lb-local'},
  ],
  [
    'all nodes are excluded from load balancers',
    'iptables-v4',
    (files) =>
      editJson<List<object>>(files, 'api/nodes.json', ({items}) => {
        for (const {metadata} of items) metadata.labels['node.kubernetes.io/exclude-from-external-load-balancers'] = ''
      }),
    {code: 'SVT307', count: 1, exactly: true},
  ],
  [
    'Endpoints that lack what EndpointSlices have',
    'iptables-v4',
    all(
      endpoints('web', () => []),
      endpoints('dempapp', (subsets) =>
        subsets.map(({addresses, ...rest}) => ({...rest, notReadyAddresses: addresses})),
      ),
    ),
    {code: 'SVT308', count: 2, exactly: true},
  ],
  [
    'a NodePort that is another Service’s health check port',
    'iptables-v4',
    service('dempapp', ({ports}) => (ports![0]!.nodePort = 31999)),
    {code: 'SVT309', service: 'shop/lb-local', says: /31999.*dempapp/, count: 1},
  ],
  [
    'no endpoint of the cluster DNS is ready',
    'iptables-v4',
    slices('kube-dns', NOT_READY),
    {code: 'SVT302', service: 'kube-system/kube-dns', count: 1},
  ],
]

const SIX = ['shop/named', 'shop/mixed', 'shop/big', 'default/dempapp', 'default/wordpress', 'shop/half']
/** kube-proxy does not answer, and what it should have written last is not there. */
const STOPPED = all(
  ...['healthz.txt', 'proxymode.txt'].map((file) =>
    all(
      onNode2(file, () => ''),
      ended(file, 7),
    ),
  ),
  onNode2(SAVE, without('nat', new RegExp(`^-A KUBE-(SERVICES|NODEPORTS) .*"(${SIX.join('|')})[: "]`))),
)

const noLoud = ({loud}: Fresh): unknown => expect(brief(loud)).to.deep.equal([])
const node2Errors = ({loud}: Fresh): string[] =>
  brief(
    loud.filter(({severity, node, message}) => severity === 'error' && (node === 'node2' || message.includes('node2'))),
  )

const QUIET: Quiet[] = [
  [
    'a health check port of which nobody knows whether anybody listens is open, not well',
    'iptables-v4',
    (files) => neverAsked(files, 'node2', /^ss\.txt/),
    (found) => {
      noLoud(found)
      expect(found.incomplete.map(({reason}) => reason).join('\n')).to.match(/health check port of shop\/lb-local/)
    },
  ],
  [
    'a firewall that lets only the load balancer itself in to the health check port',
    'iptables-v4',
    onNode2(
      SAVE,
      first(
        'filter',
        'INPUT',
        '-s 35.191.0.0/16 -p tcp -m tcp --dport 31999 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 31999 -j DROP',
      ),
    ),
    noLoud,
  ],
  [
    'nftables without its text',
    'nftables-v4',
    (files) => NODES.forEach((node) => neverAsked(files, node, /^nft\.txt/)),
    noLoud,
  ],
  ['session affinity and all else in a listing of nat', 'iptables-v4', onlyListing, noLoud],
  [
    'nftables with a second InternalIP, where NodePorts answer at the primary address',
    'nftables-v4',
    secondAddress('InternalIP'),
    ({loud}) => expect(brief(loud.filter(({severity}) => severity === 'error'))).to.deep.equal([]),
  ],
  [
    'nodePortAddresses: primary, and a second InternalIP where no NodePort answers',
    'iptables-v4',
    all(
      secondAddress('InternalIP'),
      nodePortAddresses('primary'),
      onNode2(
        SAVE,
        rules('nat', (line) =>
          /^-A KUBE-SERVICES .*-j KUBE-NODEPORTS/.test(line)
            ? '-A KUBE-SERVICES -d 172.18.0.12/32 -j KUBE-NODEPORTS'
            : line,
        ),
      ),
    ),
    (found) => expect(node2Errors(found)).to.deep.equal([]),
  ],
  [
    'a node whose rules were never read is open, not broken',
    'iptables-v4',
    (files) => neverAsked(files, 'node2', /^(ip6?tables|nft)/),
    (found) => {
      expect(node2Errors(found)).to.deep.equal([])
      expect(found.incomplete.map(({node}) => node)).to.include('node2')
    },
  ],
  [
    'an endpoint that ends and still serves',
    'iptables-v4',
    slices('web', ({endpoints: list}) => {
      for (const {targetRef, conditions} of list)
        if (targetRef?.name === 'web-c') Object.assign(conditions, {ready: false, serving: true, terminating: true})
    }),
    noLoud,
  ],
  [
    'a zone hint that moved is no error',
    'iptables-v4',
    slices('close', ({endpoints: list}) => (list[1]!.hints!.forZones[0]!.name = 'zone-a')),
    ({loud}) => {
      const told = loud.map(({severity, code, services}) => `${severity} ${code} ${services.join(',')}`)
      expect(told).to.include('warning SVT143 default/close')
      expect(told.filter((one) => !/^warning .* default\/close$/.test(one))).to.deep.equal([])
    },
  ],
  [
    'a healthy kube-proxy on a node that is about to be removed',
    'iptables-v4',
    onNode2('healthz.txt', (text) =>
      text
        .replace('HTTP/1.1 200 OK', 'HTTP/1.1 503 Service Unavailable')
        .replace('"nodeEligible":true', '"nodeEligible":false'),
    ),
    ({findings}) => expect(brief(findings)).to.deep.equal([]),
  ],
  [
    'a process on a NodePort’s number at 127.0.0.1, where nftables has no NodePort',
    'nftables-v4',
    onNode2('ss.txt', (text) =>
      text.replace(
        /\n/,
        '\ntcp   LISTEN 0      5          127.0.0.1:32327      0.0.0.0:*    users:(("python3",pid=2263,fd=3))\n',
      ),
    ),
    ({findings}) => expect(brief(findings.filter(({code}) => code === 'SVT163'))).to.deep.equal([]),
  ],
]

const table = (title: string, rows: readonly Row[]): void =>
  void describe(title, () => {
    for (const [name, mode, mutate, wanted] of rows)
      it(`${name}: ${wanted.code}`, async () => expectFinding(wanted, await fresh(mode, mutate))).timeout(60_000)
  })

table('captures with changed rules', RULES)
table('captures with more than rules on a node', SICK)
table('captures with changed objects', OBJECTS)

describe('captures where several findings would be one too many', () => {
  for (const [mode, mutate] of [
    ['iptables-v4', NO_SHORT_CIRCUIT],
    ['nftables-v4', NO_SHORT_CIRCUIT_NFT],
  ] as const)
    it(`${mode}: pods of a node without a local endpoint are led astray`, async () => {
      const {loud} = await fresh(mode, mutate)
      const about = loud.filter(
        ({severity, node, services}) => severity === 'error' && node === 'node2' && services.includes('shop/lb-local'),
      )
      expect(about, JSON.stringify(brief(loud))).to.not.be.empty
      expect(brief(loud.filter((finding) => !about.includes(finding)))).to.deep.equal([])
    }).timeout(60_000)

  it('a kube-proxy that stopped is one error that names the Services it never wrote', async () => {
    const {loud} = await fresh('iptables-v4', STOPPED)
    const errors = loud.filter(({severity}) => severity === 'error')
    expect(brief(errors)).to.have.length(1)
    expect(errors[0]).to.include({code: 'SVT100', node: 'node2'})
    expect(errors[0]!.services).to.have.members(SIX)
  }).timeout(60_000)
})

describe('one cause, one finding', () => {
  const flushed = without('nat', /./)
  const openForward = without('filter', /^-A FORWARD /)
  const forwardDrops = (text: string): string =>
    openForward(text).replace(/(\*filter[\s\S]*?:FORWARD) ACCEPT/, '$1 DROP')

  it('a flushed nat table behind a FORWARD policy that drops (node3)', async () => {
    const {loud} = await fresh('iptables-v4', (files) => edit(files, `nodes/node3/${SAVE}`, flushed))
    expect(loud.map(({code, node}) => `${code} ${node}`)).to.deep.equal(['SVT101 node3'])
  }).timeout(60_000)

  it('what should be refused is dropped by the policy that drops everything else', async () => {
    const {loud} = await fresh('iptables-v4', onNode2(SAVE, forwardDrops))
    expect(loud.map(({code, node}) => `${code} ${node}`)).to.deep.equal(['SVT202 node2'])
    expect(loud[0]!.services).to.include.members(['shop/nopods', 'default/dempapp'])
  }).timeout(60_000)

  it("a stranger's rule that leads to a port where nobody listens is a hijack", async () => {
    const rule = '-d 10.96.239.180/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9'
    const {loud} = await fresh('iptables-v4', onNode2(SAVE, first('nat', 'PREROUTING', rule)))
    expect(loud.map(({code, node, services}) => `${code} ${node} ${services.join()}`)).to.deep.equal([
      'SVT203 node2 default/dempapp',
    ])
    expect(loud[0]!.evidence[0]!.text).to.include('--to-ports 9')
  }).timeout(60_000)
})

describe('a kube-proxy of 1.20', () => {
  const old = (change: (text: string) => string): Promise<Fresh> => fresh('k120-iptables-v4', onNode2(SAVE, change))
  const loudOf = ({loud}: Fresh): string[] =>
    loud.map(({code, node, services}) => `${code} ${node} ${services.length > 3 ? services.length : services.join()}`)

  const cases: [name: string, change: (text: string) => string, loud: string[]][] = [
    [
      'a NodePort that it holds and no rule leads on',
      without('nat', /^-A KUBE-NODEPORTS .*--dport 32327 /),
      ['SVT131 node2 default/dempapp'],
    ],
    ['no NodePort at all', without('nat', /-j KUBE-NODEPORTS$/), ['SVT131 node2 21']],
    [
      'policy Local: the chain of local endpoints is empty',
      without('nat', /^-A KUBE-XLB-IW44L2ULIV2PYFKX .*Balancing rule/),
      ['SVT133 node2 shop/local-np'],
    ],
    [
      'a source range is not let through, and nat marks those clients',
      without('nat', /^-A KUBE-FW-PV4EPRVIIQ32IMYP -s 172\.18\.0\.100\/30 /),
      ['SVT154 node2 shop/lb'],
    ],
    [
      'an endpoint that nobody has',
      (text) => text.replace('--to-destination 10.244.2.13:8080', '--to-destination 10.244.2.213:8080'),
      ['SVT140 node2 default/dempapp'],
    ],
    ['the jump from PREROUTING is gone', without('nat', /^-A PREROUTING .*-j KUBE-SERVICES/), ['SVT101 node2 31']],
  ]
  for (const [name, change, loud] of cases)
    it(name, async () => expect(loudOf(await old(change))).to.deep.equal(loud)).timeout(60_000)

  it('one that stopped says no version: it has that of the others', async () => {
    const found = await fresh('k120-iptables-v4', (files) => {
      files.delete('nodes/node2/kube-proxy-version.txt')
      editJson<List<{status: {nodeInfo: {kubeletVersion: string}}}>>(files, 'api/nodes.json', ({items}) => {
        for (const {status} of items) status.nodeInfo.kubeletVersion = 'v1.36.3'
      })
    })
    expect(loudOf(found)).to.deep.equal([])
  }).timeout(60_000)
})

describe('captures that are well', () => {
  for (const [name, mode, mutate, silent] of QUIET)
    it(name, async () => void silent(await fresh(mode, mutate))).timeout(60_000)
})

describe('the first evidence of a fault is what decides', () => {
  const proofs: [mode: Mode, fault: string, source: RegExp, text: RegExp][] = [
    ['ipvs-v4', 'rs-weight-0', /ipvsadm-Sn\.txt$/, /-w 0$/],
    ['ipvs-v4', 'rs-stale', /ipvsadm-Sn\.txt$/, /^-a -t /],
    ['ipvs-v4', 'ipvs-conntrack-0', /sysctl\.txt$/, /net\.ipv4\.vs\.conntrack/],
    ['ipvs-v4', 'kube-ipvs0-deleted', /ip-addr\.json$/, /kube-ipvs0/],
    ['iptables-v4', 'route-localnet-0', /sysctl\.txt$/, /route_localnet ?= ?0/],
    ['iptables-v4', 'bridge-nf-call-iptables-0', /sysctl\.txt$/, /bridge-nf-call-iptables ?= ?0/],
    ['iptables-v4', 'pod-route-missing', /ip-route\.json$/, /./],
    ['iptables-v4', 'sep-emptied', /tables-save\.txt$/, /-A KUBE-SVC-/],
    ['iptables-v4', 'nodeport-rule-deleted', /tables-save\.txt$/, /^:KUBE-NODEPORTS .* none for -p tcp --dport 32327$/],
    [
      'iptables-v4',
      'svc-created-not-programmed',
      /tables-save\.txt$/,
      /^:KUBE-SERVICES .* none for -d 10\.96\.\S+\/32 /,
    ],
    ['iptables-v4', 'svc-chain-emptied', /tables-save\.txt$/, /^:KUBE-SVC-\w+ has no rule$/],
    ['iptables-v4', 'postrouting-jump-deleted', /tables-save\.txt$/, /^:POSTROUTING .* no -j KUBE-POSTROUTING$/],
    ['iptables-v4', 'kube-postrouting-masquerade-deleted', /tables-save\.txt$/, /^:KUBE-POSTROUTING .* no -j MASQ/],
    ['iptables-v4', 'mark-masq-emptied', /tables-save\.txt$/, /^:KUBE-MARK-MASQ .* no -j MARK$/],
    ['ipvs-v4', 'clusterip-vs-deleted', /ipvsadm-Sn\.txt$/, /^no virtual server TCP 10\.96\.88\.12:80$/],
    [
      'ipvs-v4',
      'loop-back-ipset-emptied',
      /ipset-save\.txt$/,
      /^create KUBE-LOOP-BACK .*: no 10\.244\.2\.11,tcp:8080,10/,
    ],
    ['ipvs-v4', 'lb-source-ip-set-emptied', /ipset-save\.txt$/, /^create KUBE-LOAD-BALANCER-SOURCE-CIDR .*: no 172/],
    ['nftables-v4', 'service-ips-element-removed', /nft\.txt$/, /^map service-ips: no 10\.96\.100\.213 \. tcp \. 80$/],
    ['nftables-v4', 'service-nodeports-element-removed', /nft\.txt$/, /^map service-nodeports: no tcp \. 32327$/],
    ['nftables-v4', 'nodeport-ips-emptied', /nft\.txt$/, /^set nodeport-ips: no 172\.18\.0\.12$/],
    ['nftables-v4', 'firewall-ips-element-removed', /nft\.txt$/, /^map firewall-ips: no 172\.18\.5\.10 \. tcp \. 80$/],
    ['nftables-v4', 'hairpin-set-emptied', /nft\.txt$/, /^set hairpin-connections: no 10\.244\.2\.11 /],
    ['nftables-v4', 'services-chain-emptied', /nft\.txt$/, /chain services has no rule/],
    ['nftables-v4', 'masquerading-emptied', /nft\.txt$/, /^chain masquerading .* no masquerade$/],
    // whatever is lost on the way to a port that is none: the translation is the cause
    ['nftables-v4', 'service-map-wrong-port', /nft\.txt$/, /10\.244\.2\.12 \. 8099/],
  ]
  for (const [mode, fault, source, text] of proofs)
    it(`${mode} ${fault}`, async () => {
      const known = new Set(brief(checkFiles(await snapshotFiles(`k136-${mode}`)).findings))
      const snapshot = await corpusSnapshot(`k136-${mode}`, fault)
      const {findings} = check(snapshot, buildWorld(snapshot))
      // while a fault was there, kube-proxy was stopped: of that alone speaks a warning
      const isFault = ({code, severity}: Finding): boolean =>
        severity === 'error' || (severity === 'warning' && code !== 'SVT100')
      const found = findings.find((finding) => isFault(finding) && !known.has(key(finding)))
      const proof = found?.evidence.find((one) => !one.source.endsWith('/rc.txt'))
      expect(proof?.source, found?.message).to.match(source)
      expect(proof?.text, found?.message).to.match(text)
    }).timeout(60_000)
})
