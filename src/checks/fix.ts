import type {Evidence} from '../model/trace.js'
import {parseAddress} from '../util/ip.js'

/** What is known of a finding when its fix is written. */
export interface FixFacts {
  readonly services?: readonly string[]
  readonly node?: string | undefined
  readonly frontends?: readonly string[]
  readonly message?: string
  readonly evidence?: readonly Evidence[]
}

/** Gives a placeholder for a name that is not known, or that is none of Kubernetes' and may be anything to a shell. */
type Word = (facts: FixFacts) => string

const NAME = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/
const plain = (text: string | undefined, fallback: string): string =>
  text !== undefined && NAME.test(text) ? text : fallback

/** `-n shop web`, as kubectl takes it. */
function inNamespace(id: string | undefined, fallback: string): string {
  const [namespace, name] = (id ?? '').split('/')
  return `-n ${plain(namespace, 'NAMESPACE')} ${plain(name, fallback)}`
}

const objectIn = ({evidence = []}: FixFacts, file: RegExp): string | undefined =>
  evidence.find(({source, object}) => object !== undefined && file.test(source))?.object

const WORDS: Readonly<Record<string, Word>> = {
  node: ({node}) => plain(node, 'NODE'),
  service: ({services = []}) => inNamespace(services.length === 1 ? services[0] : undefined, 'NAME'),
  namespace: ({services = []}) => `-n ${plain(services[0]?.split('/')[0], 'NAMESPACE')}`,
  pod: (facts) => inNamespace(objectIn(facts, /pods\.json$/), 'POD'),
  slice: (facts) => inNamespace(objectIn(facts, /endpointslices\.json$/), 'NAME'),
  ingress: (facts) => inNamespace(objectIn(facts, /ingresses\.json$/), 'NAME'),
  route: (facts) => {
    const kind = /api\/(\w+)s\.json$/.exec(facts.evidence?.find(({object}) => object !== undefined)?.source ?? '')?.[1]
    return `${plain(kind, 'httproute')} ${inNamespace(objectIn(facts, /routes\.json$/), 'NAME')}`
  },
  policy: (facts) => inNamespace(objectIn(facts, /networkpolicies\.json$/), 'NAME'),
  address: ({frontends: [first = ''] = []}) =>
    parseAddress(first) === undefined ? (/^\[?([\da-f.:]+?)\]?:\d+$/.exec(first)?.[1] ?? 'ADDRESS') : first,
  held: ({evidence = []}) => {
    const [, address, device] = /^([\da-f.:]+) on ([\w.-]+)$/.exec(evidence[0]?.text ?? '') ?? []
    return address === undefined ? 'ADDRESS dev DEVICE' : `${address} dev ${device}`
  },
  sysctl: ({evidence = []}) => /^(net\.[\w.-]+) /.exec(evidence[0]?.text ?? '')?.[1] ?? 'NAME',
  restart: ({node}) =>
    `kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName=${plain(node, 'NODE')}`,
  log: ({node}) =>
    `kubectl -n kube-system get pods -l k8s-app=kube-proxy --field-selector spec.nodeName=${plain(node, 'NODE')}; kubectl -n kube-system logs POD`,
  accept: acceptPolicy,
}

/** Lets the chain accept whose policy drops, with the tool that the dump comes from. */
function acceptPolicy({message = '', evidence = []}: FixFacts): string {
  const [, family, table, chain] = /policy drop of (?:(ip6?|inet) )([\w-]+)\/([\w-]+)/.exec(message) ?? []
  if (chain !== undefined) return `nft 'chain ${family} ${table} ${chain} { policy accept; }'`
  const [, legacy, own, hook] = /policy DROP of (legacy )?(\w+)\/([A-Z]+)/.exec(message) ?? []
  const {source = ''} = evidence[0] ?? {}
  const tool = source.includes('/ip6tables') ? 'ip6tables' : 'iptables'
  const backend = legacy !== undefined ? '-legacy' : source.includes('-nft-') ? '-nft' : ''
  return `${tool}${backend} -t ${own ?? 'TABLE'} -P ${hook ?? 'CHAIN'} ACCEPT`
}

/** A fix of the registry (`{service}`, `{node}`, …) with the names of a finding in it; without them it stays general. */
export const fixFor = (template: string, facts: FixFacts = {}): string =>
  template.replaceAll(/\{(\w+)\}/g, (whole, word: string) => WORDS[word]?.(facts) ?? whole)
