/** Changes of captures that real packets of the lab have judged: what they hurt must be told, once and at the right line; what they leave alone must not. */
import {expect} from 'chai'
import {
  all,
  edit,
  editJson,
  first,
  fresh,
  onNode2,
  rules,
  SAVE,
  type Files,
  type Mode,
  type Mutation,
} from '../helpers/mutate.js'

const on =
  (node: string, file: string, change: (text: string) => string): Mutation =>
  (files) =>
    edit(files, `nodes/${node}/${file}`, change)
const down = (device: string): Mutation =>
  onNode2('ip-link.json', (text) => {
    const links = JSON.parse(text) as {ifname: string; flags: string[]}[]
    for (const link of links)
      if (link.ifname === device) link.flags = link.flags.filter((flag) => flag !== 'UP' && flag !== 'LOWER_UP')
    return JSON.stringify(links)
  })
const drop = (chain: string, what: string): ((text: string) => string) => first('filter', chain, `${what} -j DROP`)
const withoutRoutes = (device: string): Mutation =>
  onNode2('ip-route.json', (text) =>
    JSON.stringify(
      (JSON.parse(text) as {dev?: string; table?: string}[]).filter(
        ({dev, table}) => dev !== device || table === 'local',
      ),
    ),
  )

const addRoute =
  (route: object): ((text: string) => string) =>
  (text) =>
    JSON.stringify([...(JSON.parse(text) as object[]), route])

/** Codes with their nodes and how bad; only what is new. */
type Told = readonly string[]
const CASES: readonly (readonly [name: string, mode: Mode, change: Mutation, told: Told, proof?: RegExp])[] = [
  [
    'a MASQUERADE of the node network hides no clients from a DROP',
    'iptables-v4',
    on('node3', SAVE, (text) =>
      drop(
        'FORWARD',
        '-s 172.18.0.96/28',
      )(first('nat', 'POSTROUTING', '-s 172.18.0.96/28 ! -o docker9 -j MASQUERADE')(text)),
    ),
    ['error SVT201 node3'],
    /-s 172\.18\.0\.96\/28 -j DROP/,
  ],
  [
    'the health check port of policy Local is answered by somebody else',
    'iptables-v4',
    on(
      'node3',
      SAVE,
      first('nat', 'PREROUTING', '-p tcp -m tcp --dport 31999 -j DNAT --to-destination 10.244.1.12:8080'),
    ),
    ['error SVT135 node3'],
    /--dport 31999 -j DNAT/,
  ],
  [
    'the health check port of policy Local is lost nine times of ten',
    'iptables-v4',
    on(
      'node3',
      SAVE,
      first(
        'filter',
        'INPUT',
        '-p tcp -m tcp --dport 31999 -m statistic --mode random --probability 0.90000000000 -j DROP',
      ),
    ),
    ['error SVT135 node3'],
    /--dport 31999 .*-j DROP/,
  ],
  [
    'a node holds the address of another',
    'iptables-v4',
    onNode2('ip-addr.json', (text) => {
      const devices = JSON.parse(text) as {ifname: string; addr_info: object[]}[]
      devices
        .find(({ifname}) => ifname === 'lo')!
        .addr_info.push({family: 'inet', local: '172.18.0.13', prefixlen: 32, scope: 'global'})
      return JSON.stringify(devices)
    }),
    ['error SVT118 node2'],
    /172\.18\.0\.13 on lo/,
  ],
  [
    'a list of affinity that a rule of FORWARD asks for',
    'iptables-v4',
    onNode2(SAVE, (text) => {
      const list = /--name (KUBE-SEP-\w+) /.exec(/-A KUBE-SEP-\w+ .*"default\/sticky.*--set .*/.exec(text)![0])![1]!
      return first(
        'filter',
        'FORWARD',
        `-m recent --rcheck --name ${list} --mask 255.255.255.255 --rsource -j DROP`,
      )(text)
    }),
    ['error SVT144 node2'],
    /--rcheck .*-j DROP/,
  ],
  [
    'a list of affinity behind the dice',
    'iptables-v4',
    onNode2(SAVE, (text) => {
      const line = /(?:\[\d+:\d+\] )?-A KUBE-SVC-\w+ .*"default\/sticky.*--rcheck .*\n/.exec(text)![0]
      const chain = /-A (\S+)/.exec(line)![1]!
      const rest = text.replace(line, '')
      const last = rest.lastIndexOf(`-A ${chain} `)
      const end = rest.indexOf('\n', last) + 1
      return rest.slice(0, end) + line + rest.slice(end)
    }),
    ['warning SVT144 node2'],
    /--rcheck/,
  ],
  [
    'a route to one pod leads to another node',
    'iptables-v4',
    onNode2('ip-route.json', addRoute({dst: '10.244.2.11', gateway: '172.18.0.11', dev: 'eth0', flags: []})),
    ['error SVT114 node2'],
    /10\.244\.2\.11 via 172\.18\.0\.11/,
  ],
  [
    'a pod of another node is taken for the node itself',
    'iptables-v4',
    onNode2(
      'ip-route.json',
      addRoute({type: 'local', dst: '10.244.1.11', dev: 'lo', table: 'local', scope: 'host', flags: []}),
    ),
    ['error SVT114 node2'],
    /local 10\.244\.1\.11/,
  ],
  [
    'ipvs: the set of node ports is empty: one finding of what it lacks',
    'ipvs-v4',
    onNode2('ipset-save.txt', (text) => text.replaceAll(/^add KUBE-NODE-PORT-TCP .*\n/gm, '')),
    ['error SVT120 node2', 'warning SVT131 node2'],
  ],
  [
    'ipvs: a cluster CIDR that holds the Services too',
    'ipvs-v4',
    all(
      ...['iptables-save.txt', 'iptables-legacy-save.txt'].map((file) =>
        onNode2(
          file,
          rules('nat', (line) =>
            line.startsWith('-A KUBE-SERVICES ! -s') ? line.replace('10.244.0.0/16', '10.0.0.0/8') : line,
          ),
        ),
      ),
    ),
    ['error SVT120 node2'],
    /-A KUBE-SERVICES ! -s 10\.0\.0\.0\/8/,
  ],
  [
    'policy Local: the node port of another node from a node and its pods',
    'iptables-v4',
    onNode2(SAVE, (text) => drop('OUTPUT', '-d 172.18.0.13/32 -p tcp -m tcp --dport 30083')(text)),
    ['error SVT201 node2'],
    /--dport 30083 -j DROP/,
  ],
  [
    'the answer of another node’s node port is dropped at home',
    'iptables-v4',
    onNode2(SAVE, drop('INPUT', '-s 172.18.0.11/32 -p tcp -m tcp --sport 32327')),
    ['error SVT201 node2'],
    /--sport 32327 -j DROP/,
  ],
  ['lo is down', 'iptables-v4', down('lo'), ['error SVT115 node2'], /^lo is down$/],
  [
    'an admin’s DROP without a port in kube-proxy’s chain is no misprint',
    'iptables-v4',
    onNode2(SAVE, drop('KUBE-EXTERNAL-SERVICES', '-d 10.244.0.0/16 -p tcp')),
    ['error SVT201 node2'],
    /-d 10\.244\.0\.0\/16 -p tcp -j DROP/,
  ],
  [
    'nobody outside has an address of the Services’ range',
    'iptables-v4',
    onNode2(SAVE, drop('FORWARD', '-i eth0 -s 10.96.0.0/16')),
    [],
  ],
  [
    'a second DNAT at the endpoint’s node',
    'iptables-v4',
    onNode2(
      SAVE,
      first('nat', 'PREROUTING', '-i eth0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.2.249'),
    ),
    ['error SVT203 node2'],
    /--to-destination 10\.244\.2\.249$/,
  ],
  [
    'a RETURN before the chains of Services: one rule, one finding',
    'iptables-v4',
    onNode2(SAVE, first('nat', 'PREROUTING', '-p tcp -m tcp --dport 30000:32767 -j RETURN')),
    ['error SVT203 node2'],
    /--dport 30000:32767 -j RETURN$/,
  ],
  [
    'the mark is set twice, which takes it away',
    'iptables-v4',
    onNode2(
      SAVE,
      rules('nat', (line) =>
        line.replace(
          '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
          '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x0',
        ),
      ),
    ),
    ['error SVT120 node2'],
    /--set-xmark 0x4000\/0x0$/,
  ],
  [
    'the bridge of pods is down, and its routes with it',
    'iptables-v4',
    all(down('cni0'), withoutRoutes('cni0')),
    ['error SVT115 node2'],
    /^cni0 is down$/,
  ],
  [
    'pods that a foreign rule masquerades: a note, since network plugins may want it',
    'iptables-v4',
    onNode2(SAVE, first('nat', 'POSTROUTING', '-s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE')),
    [],
  ],
  [
    'a mark that makes everybody masqueraded: what is a note for pods is none for clients outside',
    'iptables-v4',
    onNode2(SAVE, (text) =>
      text.replace(/(\*mangle[^]*?)\nCOMMIT/, '$1\n-A PREROUTING -j MARK --set-xmark 0x4000/0x4000\nCOMMIT'),
    ),
    ['warning SVT152 node2', 'warning SVT153 node2'],
  ],
  [
    'a virtual server that is gone: kube-proxy’s own ACCEPT is not to blame',
    'ipvs-v4',
    onNode2('ipvsadm-Sn.txt', (text) =>
      text.replace(/^-A -t 10\.96\.51\.32:80 .*\n(-a -t 10\.96\.51\.32:80 .*\n)+/m, ''),
    ),
    ['error SVT130 node2'],
  ],
  [
    'affinity in the chain of a Service that asks for none, whatever the rule calls itself',
    'iptables-v4',
    onNode2(
      SAVE,
      first(
        'nat',
        'KUBE-SVC-WT7GTRNRX4GTWEPR',
        '-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-VWIGPHVQW3K32MJK --mask 255.255.255.255 --rsource -j KUBE-SEP-VWIGPHVQW3K32MJK',
      ),
    ),
    ['warning SVT144 node2'],
    /--rcheck/,
  ],
  [
    'a dead kube-proxy on the only node with an endpoint: the load balancer has no target',
    'iptables-v4',
    (files) => dead(files, 'node3'),
    ['warning SVT100 node3', 'error SVT135 node3'],
  ],
  ['a dead kube-proxy elsewhere', 'iptables-v4', (files) => dead(files, 'node2'), ['warning SVT100 node2']],
]

function dead(files: Files, node: string): void {
  edit(files, `nodes/${node}/rc.txt`, (text) => text.replaceAll(/^(healthz|proxymode)\.txt rc=\d+/gm, '$1.txt rc=7'))
  edit(files, `nodes/${node}/ss.txt`, (text) =>
    text
      .split('\n')
      .filter((line) => !line.includes('"kube-proxy"'))
      .join('\n'),
  )
}

describe('what packets of the lab have proved', () => {
  for (const [name, mode, change, told, proof] of CASES)
    it(name, async () => {
      const {loud} = await fresh(mode, change)
      expect(loud.map(({severity, code, node}) => `${severity} ${code} ${node}`).sort()).to.deep.equal([...told].sort())
      if (proof)
        expect(
          loud.some(({evidence}) => evidence.some(({text}) => proof.test(text))),
          JSON.stringify(loud[0]?.evidence),
        ).to.equal(true)
    }).timeout(60_000)
})

describe('answers that go astray', () => {
  it('the rule that gives packets a source which nobody answers to is named', async () => {
    const rule = '-o eth0 -j SNAT --to-source 10.244.3.250'
    const {loud} = await fresh('iptables-v4', onNode2(SAVE, first('nat', 'POSTROUTING', rule)))
    const found = loud.find(({code, node}) => code === 'SVT203' && node === 'node2')
    expect(found?.evidence[0]?.text).to.match(/--to-source 10\.244\.3\.250$/)
    expect(found?.services.length).to.be.greaterThan(3)
  }).timeout(60_000)
})

describe('NetworkPolicies and what they explain', () => {
  const policy =
    (ingress: unknown[]): Mutation =>
    (files) =>
      void editJson<{items: unknown[]}>(files, 'api/networkpolicies.json', ({items}) => {
        items.push({
          metadata: {name: 'p', namespace: 'default'},
          spec: {podSelector: {}, policyTypes: ['Ingress'], ingress},
        })
      })
  const dropped = (): Mutation => onNode2(SAVE, drop('FORWARD', '-p tcp -m tcp --dport 8080'))
  const errors = async (mutation: Mutation): Promise<string[]> =>
    (await fresh('iptables-v4', mutation)).loud
      .filter(({severity}) => severity === 'error')
      .map(({code, node}) => `${code} ${node}`)

  it('one that lets the client in does not want its packets lost', async () => {
    for (const cidr of ['0.0.0.0/0', '10.244.0.0/16'])
      expect(await errors(all(policy([{from: [{ipBlock: {cidr}}]}]), dropped())), cidr).to.deep.equal(['SVT201 node2'])
  }).timeout(60_000)

  it('a pod that has ended is not asked, whoever has its address now', async () => {
    const ended: Mutation = (files) =>
      void editJson<{items: object[]}>(files, 'api/pods.json', ({items}) => {
        items.unshift({
          metadata: {name: 'job', namespace: 'jobs', labels: {}},
          spec: {nodeName: 'node2', containers: []},
          status: {phase: 'Succeeded', podIP: '10.244.2.13', podIPs: [{ip: '10.244.2.13'}]},
        })
      })
    const denied: Mutation = (files) =>
      void editJson<{items: unknown[]}>(files, 'api/networkpolicies.json', ({items}) => {
        items.push({metadata: {name: 'p', namespace: 'jobs'}, spec: {podSelector: {}, policyTypes: ['Ingress']}})
      })
    expect(await errors(all(ended, denied, dropped()))).to.deep.equal(['SVT201 node2'])
  }).timeout(60_000)
})
