import {placeOf} from './place.js'
import type {ClientFates, Fate, Hop} from '../model/trace.js'
import type {TracedPath, TraceResult} from '../trace.js'
import {formatAddress, formatEndpoint, formatRange} from '../util/ip.js'
import {plural, safeLine} from '../util/text.js'
import {explainChain} from './chain-names.js'
import {findingText} from './check-text.js'
import {balancerText, cnameText, discoveryText, gatewayText, ingressText} from './discovery-text.js'
import {paint, wrap, type Paint} from './paint.js'

interface Options {
  readonly color: boolean
  readonly width: number
  readonly wide: boolean
}

export interface Style extends Omit<Options, 'color'> {
  readonly ink: Paint
}

/** A trace for a person: the answer, what is wrong, then the ways. */
export function traceText(result: TraceResult, {color, width, wide}: Options): string {
  const style: Style = {ink: paint(color), width, wide}
  const findings = result.findings.filter(({severity}) => wide || severity !== 'info')
  return [
    answer(result, style),
    head(result, style),
    discoveryText(result.discovery, style),
    ...findings.map((finding) => `\n${findingText(finding, style)}`),
    ...result.paths.map((path) => `\n${pathText(path, style)}`),
    openText(result, style),
    ...result.plain.map((plain) => attached(`through ingress-nginx: ${plain.service.id}`, plain, {color, width, wide})),
    ...(result.dns ? [attached(`the cluster DNS: ${result.dns.service.id}`, result.dns, {color, width, wide})] : []),
  ].join('')
}

/** Another trace that belongs to this one. */
const attached = (title: string, result: TraceResult, options: Options): string =>
  `\n${paint(options.color).bold(`── ${safeLine(title)}`)}\n${traceText(result, options)}`

/** One line that says whether it works. */
function answer({service, paths, findings}: TraceResult, {ink}: Style): string {
  const bad = paths.filter(({outcome}) => outcome !== 'delivered')
  const errors = findings.filter(({severity}) => severity === 'error').length
  const warnings = findings.filter(({severity}) => severity === 'warning').length
  const found = [
    errors > 0 ? ink.severity('error', plural(errors, 'error')) : '',
    warnings > 0 ? ink.severity('warning', plural(warnings, 'warning')) : '',
  ]
    .filter(Boolean)
    .join(', ')
  const ways =
    paths.length === 0
      ? noWays(service.type, service.headless)
      : bad.length === 0
        ? ink.outcome(
            'delivered',
            paths.length === 1 ? 'delivered on its one way' : `delivered on all ${paths.length} ways`,
          )
        : ink.outcome(
            worst(bad),
            `${bad.length} of ${plural(paths.length, 'way')} ${bad.every(({outcome}) => outcome === 'unknown') ? 'cannot be decided' : 'fail or cannot be decided'}`,
          )
  return `${ink.bold(safeLine(service.id))}: ${ways}${found === '' ? '' : `; ${found}`}\n`
}

function noWays(type: string, headless: boolean): string {
  if (type === 'ExternalName') return 'ExternalName: DNS answers with another name, no packet passes a rule'
  return headless ? 'headless, and no ready endpoint' : 'no way to walk (no node was read, or the flags leave none)'
}

const worst = (paths: readonly TracedPath[]): 'dropped' | 'unknown' =>
  paths.some(({outcome}) => outcome !== 'unknown') ? 'dropped' : 'unknown'

function head({service, endpoints, proxies, discovery, leftOut}: TraceResult, {width}: Style): string {
  const ports = service.ports.map(
    ({name, port, protocol, nodePort, targetPort}) =>
      `${name ? `${name} ` : ''}${port}/${protocol} → ${targetPort}${nodePort ? ` (NodePort ${nodePort})` : ''}`,
  )
  const addresses = [
    ...service.clusterIPs,
    ...service.externalIPs.map((ip) => `external ${ip}`),
    ...service.loadBalancer.map(({ip, hostname}) => `load balancer ${ip ?? hostname}`),
  ]
  const policies = [
    service.affinityTimeout === undefined ? '' : `ClientIP affinity ${service.affinityTimeout} s`,
    service.externalTrafficPolicy === 'Local' ? 'externalTrafficPolicy Local' : '',
    service.internalTrafficPolicy === 'Local' ? 'internalTrafficPolicy Local' : '',
  ].filter(Boolean)
  const all = endpoints.flatMap(({endpoints: own}) => own)
  const modes = new Map<string, string[]>()
  for (const {node, mode, version} of proxies)
    modes.set(`${mode}${version ? ` ${version}` : ''}`, [
      ...(modes.get(`${mode}${version ? ` ${version}` : ''}`) ?? []),
      node,
    ])
  const rows: [string, string][] = [
    ['type', [service.headless ? 'headless' : service.type, ...policies].join(', ')],
    ['addresses', service.type === 'ExternalName' ? '' : addresses.join(', ') || 'none'],
    ['ports', ports.join(', ')],
    ['endpoints', `${all.filter(({ready}) => ready).length} of ${all.length} ready`],
    ['names', discovery.names.map(({name}) => name).join(', ')],
    ['written by', discovery.writers.join(', ')],
    ['balancer', discovery.balancer ? balancerText(discovery.balancer) : ''],
    ['leads to', discovery.cname ? cnameText(discovery.cname) : ''],
    ['ingresses', discovery.ingresses.map(ingressText).join(', ')],
    [
      'ports of',
      discovery.plainPorts
        .map(({port, protocol, servicePort}) => `ingress-nginx ${port}/${protocol} → ${servicePort}`)
        .join(', '),
    ],
    ['routes', discovery.gatewayRoutes.map(gatewayText).join(', ')],
    ['left out', leftOut.length === 0 ? '' : leftOutText(leftOut)],
    ['kube-proxy', [...modes].map(([mode, nodes]) => `${mode} on ${nodes.join(', ')}`).join('; ')],
  ]
  return rows
    .filter(([, value]) => value !== '')
    .map(([key, value]) => `  ${key.padEnd(11)}${wrap(safeLine(value), width - 13, ' '.repeat(13))}\n`)
    .join('')
}

const FEW_NAMES = 4
const leftOutText = (names: readonly string[]): string =>
  `${plural(names.length, 'node')} (${names.slice(0, FEW_NAMES).join(', ')}${names.length > FEW_NAMES ? ', …' : ''}): nothing is said about ${names.length === 1 ? 'it' : 'them'}`

const KIND: Readonly<Record<TracedPath['frontend']['kind'], string>> = {
  clusterIP: 'cluster IP',
  nodePort: 'NodePort',
  externalIP: 'external IP',
  loadBalancerIP: 'load-balancer IP',
  localhost: 'localhost NodePort',
  endpoint: 'endpoint itself',
}

function pathText(path: TracedPath, style: Style): string {
  const {ink} = style
  const {frontend, origin, nodes, frontends, outcome} = path
  const where = `${frontends[0] ?? formatHost(frontend)}/${frontend.protocol}`
  const elsewhere = [...new Set(nodes)].slice(1)
  const others = elsewhere.length > 0 ? ` (the same on ${elsewhere.join(', ')})` : ''
  const from = origin.kind === 'external' ? `external client, entering at ${nodes[0]}` : origin.name
  const title = `${ink.bold(where)} ${KIND[frontend.kind]}, from ${safeLine(from)}${others}`
  return `${wrap(title, style.width, '  ')}\n  ${ink.outcome(outcome === 'mixed' ? 'dropped' : outcome, outcome === 'mixed' ? 'mixed' : outcome)}\n${path.parts.map((part) => partText(part, path, style)).join('')}`
}

const formatHost = ({address, port}: TracedPath['frontend']): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

/** A set of clients in few words. */
const FEW_RANGES = 3

function partText(part: ClientFates, path: TracedPath, style: Style): string {
  const many = part.clients.length > FEW_RANGES
  const clients =
    path.parts.length > 1 || (part.clients.length > 0 && !many)
      ? `  clients ${part.clients.slice(0, FEW_RANGES).map(formatRange).join(', ')}${many ? ` and ${part.clients.length - FEW_RANGES} more ranges` : ''}\n`
      : ''
  if (part.alternatives.length > 0) return `${clients}${openPartText(part, style)}`
  return `${clients}${fatesText(part.fates, style)}`
}

function fatesText(fates: readonly Fate[], style: Style): string {
  if (style.wide) return treeText(fates, style)
  const lines = fates.slice(0, MANY).map((fate) => fateText(fate, style))
  const more = fates.length > MANY ? `  … ${fates.length - MANY} more endpoints: -o wide\n` : ''
  return `${lines.join('')}${more}${shortPath(fates, style)}`
}

/** More endpoints than this are not listed without -o wide. */
const MANY = 8
/** More other ends of open questions than this, too. */
const MOST_OTHERS = 3

/** The likeliest end of an open question with what it needs to be true, then how else it may end, and when. */
function openPartText({alternatives}: ClientFates, style: Style): string {
  const {ink, width} = style
  const [best, ...others] = casesOf(alternatives)
  const assumed = [...new Set(best!.assumptions)]
  const conditions = assumed.map((text) => `    - ${wrap(safeLine(text), width - 6, '      ')}\n`)
  const endings = new Map<string, string>()
  for (const {fates, assumptions} of others) {
    const when = assumptions.find((text) => !assumed.includes(text))
    const fresh = fates.filter((fate) => !best!.fates.some((one) => isSameEnd(one, fate)) && !isSaidBy(assumed, fate))
    const text = fresh.map((fate) => fateText(fate, style)).join('')
    if (text === '' || endings.has(text)) continue
    endings.set(text, `    ${wrap(`else, ${safeLine(when ?? 'in another order')}`, width - 6, '      ')}\n${text}`)
  }
  const shown = [...endings.values()].slice(0, style.wide ? undefined : MOST_OTHERS)
  const more = endings.size > shown.length ? `    … ${plural(endings.size - shown.length, 'other end')}: -o wide\n` : ''
  return `  ${ink.outcome('unknown', `unknown – ${best!.outcome}`)}\n${conditions.join('')}${fatesText(best!.fates, style)}${shown.join('')}${more}`
}

/** Ends that hold under the same assumptions; `outcome` is the best of them. */
interface Case {
  readonly outcome: Fate['outcome']
  readonly assumptions: readonly string[]
  readonly fates: readonly Fate[]
}

/** Delivered first, ends that nobody knows last. */
function casesOf(alternatives: readonly Fate[]): Case[] {
  const groups = new Map<string, Fate[]>()
  for (const fate of alternatives) {
    const key = fate.assumptions.join('\n')
    groups.set(key, [...(groups.get(key) ?? []), fate])
  }
  const rank = (outcome: Fate['outcome']): number => ['delivered', 'refused', 'dropped', 'unknown'].indexOf(outcome)
  const cases = [...groups.values()].map((fates): Case => {
    const sorted = [...fates].sort((a, b) => rank(a.outcome) - rank(b.outcome))
    return {outcome: sorted[0]!.outcome, assumptions: sorted[0]!.assumptions, fates: sorted}
  })
  return cases.sort((a, b) => rank(a.outcome) - rank(b.outcome))
}

const isSameEnd = (one: Fate, other: Fate): boolean => one.outcome === other.outcome && one.reason === other.reason

/** An end that nobody knows for just the reason that the conditions name already. */
const isSaidBy = (conditions: readonly string[], {outcome, reason}: Fate): boolean =>
  outcome === 'unknown' && conditions.some((text) => text.includes(reason.slice(reason.indexOf(': ') + 2)))

const percent = (share: number): string =>
  `${(share * 100).toFixed(share > 0.999 || share < 0.001 ? 0 : 1).replace(/\.0$/, '')} %`

function fateText(fate: Fate, {ink, width}: Style): string {
  const share = percent(fate.share).padStart(7)
  if (fate.outcome !== 'delivered')
    return `  ${share}  ${ink.outcome(fate.outcome, fate.outcome)}: ${wrap(safeLine(fate.reason), width - 13 - fate.outcome.length, '           ')}\n`
  return `  ${share}  → ${wrap(safeLine(`${receiverText(fate)}, which sees ${sourceText(fate)}`), width - 13, '             ')}\n`
}

function receiverText({receiver}: Fate): string {
  const {address, port, pod, node, kind} = receiver!
  const at = formatEndpoint(address, port)
  return pod
    ? `${at} pod ${pod} on ${node}`
    : kind === 'socket'
      ? `${at}, a process of ${node}`
      : `${at} (in no part of the snapshot)`
}

const sourceText = ({source, sourceIsClient}: Fate): string =>
  sourceIsClient ? "the client's own address" : source === undefined ? 'nobody' : formatAddress(source)

/** The chains on the way to the first end, in one line. */
function shortPath([first]: readonly Fate[], {ink, width}: Style): string {
  if (!first) return ''
  const steps: string[] = []
  let place = ''
  let last = ''
  let callers: Hop[] = []
  for (const hop of first.hops.filter(({reply}) => !reply)) {
    if (`${hop.node} ${hop.hook ?? ''}` !== last) callers = []
    last = `${hop.node} ${hop.hook ?? ''}`
    if (hop.kind === 'rule' && hop.what === hop.evidence?.text)
      callers = [...callers.filter(({depth}) => depth < hop.depth), hop]
    const effect = effectText(hop)
    if (effect === undefined) continue
    const here = `${hop.node} ${hop.hook ?? ''}`.trim()
    steps.push(
      ...(hop.hook !== undefined && `${hop.node} ${hop.hook}` !== place ? [here] : []),
      ...callers.flatMap(({where}) => (where && !steps.slice(-6).includes(chainOf(where)) ? [chainOf(where)] : [])),
      effect,
    )
    place = `${hop.node} ${hop.hook ?? ''}`
  }
  return steps.length === 0
    ? ''
    : `    ${ink.dim(wrap(`way: ${safeLine(steps.join(' → '))}`, width - 4, '         '))}\n`
}

/** Steps that change the packet or end it; rules that only pass it on are left to -o wide. */
function effectText({kind, what, evidence}: Hop): string | undefined {
  if (kind === 'rule') return evidence && what !== evidence.text ? what : undefined
  if (kind === 'nat' || kind === 'mark' || kind === 'policy') return what
  if (kind === 'ipvs')
    return what.startsWith('->') || what.startsWith('-a')
      ? undefined
      : `IPVS ${what.replace(/^-A -[tuf] /, '').replaceAll(/\s+/g, ' ')}`
  return kind === 'arrive' ? what : undefined
}

const chainOf = (where: string): string => where.replace(/^(legacy )?(\w+)\//, '')

/** The tree of all ends: common steps once, then a branch for each. */
function treeText(fates: readonly Fate[], style: Style): string {
  return branchText(fates, 0, {style, indent: '    '})
}

function branchText(fates: readonly Fate[], depth: number, {style, indent}: {style: Style; indent: string}): string {
  const lines: string[] = []
  let at = depth
  while (fates.length > 1 && fates.every(({hops}) => hops[at] !== undefined && sameHop(hops[at]!, fates[0]!.hops[at]!)))
    lines.push(hopText(fates[0]!.hops[at++]!, style, indent))
  if (fates.length === 1) {
    const [fate] = fates
    lines.push(
      ...fate!.hops.slice(at).map((hop) => hopText(hop, style, indent)),
      `${indent}${fateText(fate!, style).trim()}\n`,
    )
    return lines.join('')
  }
  const groups = new Map<string, Fate[]>()
  for (const fate of fates) {
    const key = fate.hops[at] ? hopKey(fate.hops[at]!) : `end ${fate.reason}`
    groups.set(key, [...(groups.get(key) ?? []), fate])
  }
  for (const group of groups.values()) {
    const share = group.reduce((sum, fate) => sum + fate.share, 0)
    lines.push(
      `${indent}├ ${percent(share)}\n`,
      groups.size === 1
        ? group.map((fate) => branchText([fate], at, {style, indent: `${indent}│ `})).join('')
        : branchText(group, at, {style, indent: `${indent}│ `}),
    )
  }
  return lines.join('')
}

const hopKey = ({node, hook, where, what, reply}: Hop): string => [node, hook, where, what, reply].join(' ')
const sameHop = (a: Hop, b: Hop): boolean => hopKey(a) === hopKey(b)

function hopText({node, hook, where, what, evidence, reply}: Hop, {ink, width}: Style, indent: string): string {
  const chain = where === undefined ? undefined : /([^/]+)#\d+$/.exec(where)?.[1]
  const meaning = chain === undefined ? undefined : explainChain(chain)
  const place = [reply ? 'answer' : '', node, hook ?? '', where ?? ''].filter(Boolean).join(' ')
  const source = evidence && evidence.line > 0 ? safeLine(placeOf(evidence)) : ''
  const room = width - indent.length - 2
  return `${indent}${ink.dim(place)}${meaning ? ink.dim(` (${meaning})`) : ''}\n${indent}  ${wrap(safeLine(what), room, `${indent}  `)}${source === '' ? '' : `\n${indent}  ${ink.dim(source)}`}\n`
}

const FEW = 5

function openText({incomplete, problems}: TraceResult, {ink, width, wide}: Style): string {
  const lines = [
    ...incomplete.map(({node, reason}) => `${node ? `${node}: ` : ''}${reason}`),
    ...problems.map(({file, line, message}) => `${placeOf({source: file, line})}: ${message}`),
  ].map((text) => `  ${wrap(safeLine(text), width - 2, '    ')}\n`)
  if (lines.length === 0) return ''
  const shown = wide ? lines : lines.slice(0, FEW)
  return `\n${ink.bold('not seen or not decided')}\n${shown.join('')}${lines.length > shown.length ? `  … ${lines.length - shown.length} more: -o wide\n` : ''}`
}
