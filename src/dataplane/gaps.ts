import {DATA_PLANES, signOf} from '../snapshot/data-planes.js'
import type {NodeState, Section} from '../snapshot/node-state.js'
import type {Family} from '../util/ip.js'
import {LEGACY_PRESENT} from '../parse/iptables.js'
import type {NftRuleset} from '../parse/nft.js'
import {IPTABLES_HOOKS} from './iptables-program.js'

/** Something that may act on packets and that the snapshot does not show. */
export interface Gap {
  readonly key: string
  /** `unreadable`: the walk's end is unknown · `never-asked`: it is taken for empty, and said once. */
  readonly state: 'unreadable' | 'never-asked'
  readonly what: string
}

/** What the caller knows to be missing: nobody asked for it, or it must be there and is not shown. */
export interface Told {
  readonly unasked: string | undefined
  readonly unseen: string | undefined
}

/** What of a node's rules is hidden from a walk. */
export function findGaps(state: NodeState, family: Family, {unasked, unseen}: Told): Gap[] {
  const sections: readonly (readonly [string, Section])[] = [
    [family === 4 ? 'iptables' : 'ip6tables', state.iptablesSectionOf(family)],
    ['ipset', state.ipsetSection],
    ['IPVS', state.ipvsSection],
    ['nftables', state.nftSection],
    ['addresses', state.addressSection],
    ['routes', state.routeSection(family)],
    ['policy rules', state.ruleSection(family)],
    ['sysctls', state.section('sysctl.txt')],
  ]
  const gaps = sections.flatMap(([what, section]): Gap[] => {
    if (section.state === 'unreadable')
      return [
        {
          key: what,
          state: 'unreadable',
          what: `${what} could not be read (${section.file}: ${section.reason ?? 'no reason given'})`,
        },
      ]
    if (section.state === 'never-asked')
      return [
        {key: what, state: 'never-asked', what: `${what} were not asked for (${section.file} is not in the snapshot)`},
      ]
    return []
  })
  return [
    ...gaps,
    ...damagedRouting(state),
    ...noAddresses(state),
    ...hiddenBackends(state, family),
    ...missingSysctls(state, family),
    ...cutDumps(state, family),
    ...partialTables(state, family),
    ...(unseen === undefined ? [] : [{key: 'unseen', state: 'unreadable' as const, what: unseen}]),
    ...(unasked === undefined ? [] : [{key: 'unasked', state: 'never-asked' as const, what: unasked}]),
    ...hiddenTables(state, family),
    ...hiddenPrograms(state),
    ...earlyPrograms(state),
    ...strangeTables(state, family),
    ...hiddenHooks(state),
    ...narrowedListings(state, family),
    ...ipvsSettings(state),
  ]
}

/** Every node has 127.0.0.1: a list of no addresses is no answer. */
function noAddresses(state: NodeState): Gap[] {
  return state.addressSection.state === 'read' && state.addresses.length === 0
    ? [{key: 'no addresses', state: 'unreadable', what: 'the list of addresses is empty'}]
    : []
}

/** A backend that could not be listed beside one that could: both act in the kernel. */
function hiddenBackends(state: NodeState, family: Family): Gap[] {
  const prefix = family === 4 ? 'iptables' : 'ip6tables'
  return [`${prefix}-nft-save.txt`, `${prefix}-legacy-save.txt`].flatMap((file): Gap[] => {
    const {state: found, reason} = state.section(file)
    return found === 'unreadable' && state.iptablesSectionOf(family).state === 'read'
      ? [{key: file, state: 'unreadable', what: `the rules of ${file} could not be read (${reason ?? ''})`}]
      : []
  })
}

/** A list of sysctls without the ones that decide about forwarding was cut or filtered. */
function missingSysctls(state: NodeState, family: Family): Gap[] {
  if (state.section('sysctl.txt').state !== 'read') return []
  const name = family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding'
  const gaps: Gap[] = state.sysctls.has(name)
    ? []
    : [{key: name, state: 'never-asked', what: `${name} is not in sysctl.txt; forwarding is taken to be on`}]
  if (family === 6) return gaps
  const names = [...state.sysctls.keys()]
  for (const [key, taken] of [
    ['rp_filter', 'off'],
    ['route_localnet', 'on'],
  ] as const)
    if (!names.some((one) => one.startsWith('net.ipv4.conf.') && one.endsWith(`.${key}`)))
      gaps.push({key, state: 'never-asked', what: `${key} is not in sysctl.txt; it is taken to be ${taken}`})
  return gaps
}

function damagedRouting(state: NodeState): Gap[] {
  const what = state.damagedRouting
  return what === undefined
    ? []
    : [{key: 'routing', state: 'unreadable', what: `routes, rules or addresses are not understood (${what})`}]
}

/** A dump that ends too early may lack whole tables; one of which nothing was understood lacks everything. */
function cutDumps(state: NodeState, family: Family): Gap[] {
  return state.iptables(family).flatMap((dump): Gap[] => {
    if (dump.tables.size === 0 && dump.problems.some(({message}) => message.startsWith('not a line')))
      return [{key: `nothing ${dump.file}`, state: 'unreadable', what: `${dump.file} is not an iptables dump`}]
    if (dump.brokenOff !== undefined)
      return [
        {
          key: `broken ${dump.file}`,
          state: 'unreadable',
          what: `${dump.file} breaks off (line ${dump.brokenOff}): tables behind it are missing`,
        },
      ]
    const cut = [...dump.tables.values()].find(({complete}) => !complete)
    return cut
      ? [
          {
            key: `cut ${dump.file}`,
            state: 'unreadable',
            what: `${dump.file} lacks lines in table ${cut.name}, and whole tables may be among them`,
          },
        ]
      : []
  })
}

/** Settings of IPVS that lose packets which its tables would pass (net/netfilter/ipvs/ip_vs_core.c; Documentation/networking/ipvs-sysctl). */
const LOSING: readonly (readonly [name: string, isLosing: (value: number) => boolean, what: string])[] = [
  ['nat_icmp_send', (value) => value !== 0, 'it refuses what real servers send outside of its connections'],
  ['drop_packet', (value) => value === 3, 'it drops one packet of some'],
]

function ipvsSettings(state: NodeState): Gap[] {
  if ((state.ipvs?.virtualServers.length ?? 0) === 0) return []
  return LOSING.flatMap(([own, isLosing, what]): Gap[] => {
    const name = `net.ipv4.vs.${own}`
    const value = state.sysctl(name)
    if (value === undefined || !isLosing(Number(value))) return []
    return [{key: name, state: 'unreadable', what: `${name} is ${value}: ${what}, which is not modelled`}]
  })
}

/** Lines that a filter or an argument has left out may have decided otherwise. */
const narrowedListings = (state: NodeState, family: Family): Gap[] =>
  state.narrowings(family).map(([file, {line, by}]) => ({
    key: `narrowed ${file}`,
    state: 'unreadable',
    what: `${file}:${line} is not all of it: ${by}`,
  }))

/** `iptables -t nat -L` shows one table of five. */
function partialTables(state: NodeState, family: Family): Gap[] {
  const dumps = state.iptables(family)
  const dump = dumps.find(({file, hidesInterfaces}) => file.endsWith('-L.txt') || hidesInterfaces)
  if (!dump) return []
  const missing = ['raw', 'mangle', 'filter'].filter((name) => !dumps.some(({tables}) => tables.has(name)))
  const blind = dump.hidesInterfaces
    ? [
        {
          key: 'interfaces',
          state: 'never-asked' as const,
          what: `${dump.file} was made without -v: rules may ask for interfaces that it hides`,
        },
      ]
    : []
  return missing.length === 0
    ? blind
    : [
        ...blind,
        {
          key: 'other tables',
          state: 'never-asked',
          what: `${dump.file} has no ${missing.join(', ')} table: not asked for`,
        },
      ]
}

/** Tables that the tool itself names, and does not print. */
function hiddenTables(state: NodeState, family: Family): Gap[] {
  const prefix = family === 4 ? 'iptables' : 'ip6tables'
  const dumps = state.iptables(family)
  const native = dumps
    .flatMap(({file, hidden}) => hidden.map((one) => ({file, one})))
    .flatMap(({file, one}): Gap[] =>
      one.kind === 'native' && state.nftSection.state !== 'read'
        ? [
            {
              key: `native ${file} ${one.table}`,
              state: 'unreadable',
              what: `${file} says that table ${one.table} holds native nftables rules, and nft was not read`,
            },
          ]
        : [],
    )
  const files = [`${prefix}-save.txt`, `${prefix}-nft-save.txt`]
  const warned =
    dumps.some(({hidden}) => hidden.some(({kind}) => kind === 'legacy')) ||
    files.some((file) => LEGACY_PRESENT.test(state.text(`${file}.stderr`) ?? ''))
  if (!warned || dumps.some(({backend}) => backend === 'legacy')) return native
  if (state.section(`${prefix}-legacy-save.txt`).state === 'read') return native
  return [
    ...native,
    {
      key: `legacy ${prefix}`,
      state: 'unreadable',
      what: `${prefix} says that there are tables of the legacy backend too, and ${prefix}-legacy-save was not read`,
    },
  ]
}

/** Chains of a data plane are left behind where its devices are gone; where no device is listed, they are all that shows it. */
function hiddenPrograms(state: NodeState): Gap[] {
  const found = DATA_PLANES.flatMap((plane): Gap[] => {
    const sign = plane.hides === undefined ? undefined : signOf(state, plane)
    if (!sign || (sign.kind === 'chain' && state.links.length > 0)) return []
    const what = `${plane.hides} (${sign.text}), out of sight of every dump`
    return [{key: `hidden ${plane.hides}`, state: 'unreadable', what}]
  })
  return found.filter(({key}, at) => found.findIndex((other) => other.key === key) === at)
}

/** Programs that see packets before the kernel does. */
const earlyPrograms = (state: NodeState): Gap[] =>
  state.links
    .filter(({xdp}) => xdp)
    .map(({name}) => ({key: `xdp ${name}`, state: 'unreadable', what: `an XDP program on ${name} is not modelled`}))

/** Tables that no kernel has: a damaged name hides what they do. */
function strangeTables(state: NodeState, family: Family): Gap[] {
  return state.iptables(family).flatMap(({file, tables}) =>
    [...tables.values()]
      .filter(({name, chains}) => !(name in IPTABLES_HOOKS) && chains.size > 0)
      .map(({name}): Gap => ({
        key: `table ${file} ${name}`,
        state: 'unreadable',
        what: `${file} has a table "${name}" that is not known`,
      })),
  )
}

const WALKED_FAMILIES = new Set(['ip', 'ip6', 'inet'])
const WALKED_HOOKS = new Set(['prerouting', 'input', 'forward', 'output', 'postrouting'])

/** Base chains in places that the walk does not pass: netdev ingress and egress, bridge and arp families, hooks of a later kernel. */
function hiddenHooks(state: NodeState): Gap[] {
  const ruleset = state.nft
  if (!ruleset) return []
  const chains = [...ruleset.tables.values()]
    .filter(({flags}) => !flags.includes('dormant'))
    .flatMap(({family, chains: all}) =>
      [...all.values()].filter(
        ({hook, rules, policy}) =>
          hook !== undefined &&
          !(WALKED_FAMILIES.has(family) && WALKED_HOOKS.has(hook)) &&
          (rules.length > 0 || policy === 'drop'),
      ),
    )
  const gaps = chains.map((chain): Gap => ({
    key: `hook ${chain.table} ${chain.name}`,
    state: 'unreadable',
    what: `nftables chain ${chain.family} ${chain.table} ${chain.name} (hook ${chain.hook}) is not modelled`,
  }))
  if (ruleset.cut) gaps.push({key: 'nft cut', state: 'unreadable', what: `the nftables dump ${ruleset.file} is cut`})
  else gaps.push(...piecesOf(ruleset))
  return gaps
}

/** Chains without any hook do nothing: somebody listed or pasted them alone (`nft list chain`), or left out the rest. */
function piecesOf({file, tables, problems}: NftRuleset): Gap[] {
  const chains = [...tables.values()].flatMap((table) => [...table.chains.values()])
  const strange = tables.size === 0 && problems.length > 0
  const dead = chains.every(({hook}) => hook === undefined) && chains.some(({rules}) => rules.length > 0)
  if (!strange && !dead) return []
  const what = strange
    ? `${file} is not a listing of nft`
    : `${file} shows no chain with a hook: what leads to the others is not in it`
  return [{key: 'nft pieces', state: 'unreadable', what}]
}
