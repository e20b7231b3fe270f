import type {Protocol} from '../model/kube.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, inRange, isLoopback, type Address, type Family, type Range} from '../util/ip.js'
import {Machine} from './machine.js'

/** A pod, as the way of a packet sees it. */
export interface PodPlace {
  readonly id: string
  readonly node: string
  readonly addresses: readonly Address[]
  readonly hostNetwork: boolean
}

/** A socket of a node that packets reach. */
export interface SocketPlace {
  readonly protocol: Protocol
  readonly port: number
  readonly family: Family
  /** undefined: nobody knows. */
  readonly process: string | undefined
}

/** What a Service proxy's own process does at one of its sockets. */
export type ProxySocket =
  /** It takes the connection and opens one of its own to an endpoint. */
  | {
      readonly kind: 'balances'
      readonly service: string
      readonly endpoints: readonly {readonly address: Address; readonly port: number}[]
    }
  /** It keeps the port from others, and never answers. */
  | {readonly kind: 'holds'}
  | {readonly kind: 'unclear'; readonly why: string}

/** What the caller knows of the world around the nodes' dumps. */
export interface WorldFacts {
  readonly nodes: readonly {
    readonly state: NodeState
    readonly addresses: readonly Address[]
    /** MachineHints.unasked */
    readonly unasked?: (family: Family) => string | undefined
    /** MachineHints.unseen */
    readonly unseen?: (family: Family) => string | undefined
    readonly podRanges: readonly Range[]
  }[]
  readonly pods: readonly PodPlace[]
  /** Neither pods nor endpoints were read: an address may be anybody's. */
  readonly podsUnread?: boolean
  /** Nodes that the API knows and whose dumps are missing: address → name. */
  readonly unread: ReadonlyMap<Address, string>
  /** Hosts outside the snapshot that are known to exist (external endpoints). */
  readonly externals: ReadonlySet<Address>
  /** Addresses that belong to no host: only translation makes them work. */
  readonly virtual: ReadonlySet<Address>
  /** Ranges from which such addresses are taken. */
  readonly virtualRanges: readonly Range[]
  /** Which pod serves a port of a node's own network, where that is known. */
  readonly socketPod: (node: string, address: Address, port: number) => string | undefined
  /** What a proxy does at a socket of its own; undefined: it is not one of those. */
  readonly proxySocket: (node: string, place: SocketPlace) => ProxySocket | undefined
}

/** All machines and who owns which address. */
export class World {
  readonly machines: ReadonlyMap<string, Machine>
  readonly facts: WorldFacts
  private readonly podByAddress: ReadonlyMap<Address, PodPlace>
  private readonly podById: ReadonlyMap<string, PodPlace>
  private readonly machineByAddress: ReadonlyMap<Address, Machine>
  private routedByHosts = new Map<Family, boolean>()

  constructor(facts: WorldFacts) {
    this.facts = facts
    this.machines = new Map(
      facts.nodes.map(({state, addresses, unasked, unseen}) => [
        state.name,
        new Machine(state, {
          addresses,
          virtual: facts.virtual,
          ...(unasked ? {unasked} : {}),
          ...(unseen ? {unseen} : {}),
        }),
      ]),
    )
    const podNetwork = facts.pods.filter(({hostNetwork}) => !hostNetwork)
    this.podByAddress = new Map(podNetwork.flatMap((pod) => pod.addresses.map((address) => [address, pod])))
    this.podById = new Map(facts.pods.map((pod) => [pod.id, pod]))
    this.machineByAddress = this.ownAddresses()
  }

  /** For whoever walks through thousands of Services: rules that are ready to run take more memory than their dump. */
  forget(): void {
    for (const machine of this.machines.values()) machine.forget()
  }

  /** Addresses that are on several machines, or on none for real (Service addresses), name nobody. */
  private ownAddresses(): Map<Address, Machine> {
    const owners = new Map<Address, Machine | undefined>()
    for (const machine of this.machines.values()) {
      for (const address of machine.addresses) {
        if (isLoopback(address) || this.facts.virtual.has(address)) continue
        const known = owners.get(address)
        owners.set(address, owners.has(address) && known !== machine ? undefined : machine)
      }
    }
    for (const machine of this.machines.values())
      for (const address of machine.hints.addresses) owners.set(address, machine)
    return new Map([...owners].filter((entry): entry is [Address, Machine] => entry[1] !== undefined))
  }

  pod(id: string): PodPlace | undefined {
    return this.podById.get(id)
  }

  podAt(address: Address): PodPlace | undefined {
    return this.podByAddress.get(address)
  }

  machineAt(address: Address): Machine | undefined {
    return this.machineByAddress.get(address)
  }

  /** Does the address belong to no host? */
  isVirtual(address: Address): boolean {
    return this.facts.virtual.has(address) || this.facts.virtualRanges.some((range) => inRange(address, range))
  }

  /** The node whose pod range holds the address. */
  rangeOwner(address: Address): string | undefined {
    return this.facts.nodes.find(({podRanges}) => podRanges.some((range) => inRange(address, range)))?.state.name
  }

  /**
   * Do the nodes themselves carry packets to each other's pods (routes or tunnels from node to node)? Then the network
   * around them does not know pod addresses, and a packet to one that leaves by a foreign gateway is lost.
   * Where no node has such a route, the network must know them (cloud routes, flat networks).
   */
  hostsRoutePods(family: Family): boolean {
    let known = this.routedByHosts.get(family)
    if (known === undefined) this.routedByHosts.set(family, (known = this.findHostRoutes(family)))
    return known
  }

  private findHostRoutes(family: Family): boolean {
    const samples = new Map<string, Address>()
    for (const pod of this.facts.pods) {
      const address = pod.addresses.find((candidate) => familyOf(candidate) === family)
      if (address !== undefined && !pod.hostNetwork && !samples.has(pod.node)) samples.set(pod.node, address)
    }
    return [...this.machines.values()].some((machine) =>
      [...samples].some(([node, address]) => {
        if (node === machine.name) return false
        const hop = machine.router(family).specificGateway(address)
        return hop?.gateway !== undefined && this.machineAt(hop.gateway) !== undefined
      }),
    )
  }
}
