/** The objects that the API stand-in serves: a snapshot's lists, their versions, and the events of those who watch. */
import {existsSync, readFileSync} from 'node:fs'
import {join} from 'node:path'

export type Json = Record<string, unknown>
export interface Item extends Json {
  metadata: {
    name: string
    namespace?: string
    labels?: Record<string, string>
    annotations?: Record<string, string>
    resourceVersion?: string
  }
}

/** An answer with a status of its own. */
export class Failure extends Error {
  readonly status: number
  readonly reason: string
  readonly retryAfter: number | undefined
  constructor(status: number, message: string, {reason = '', retryAfter}: {reason?: string; retryAfter?: number} = {}) {
    super(message)
    this.status = status
    this.reason = reason
    this.retryAfter = retryAfter
  }
}

export const statusOf = ({status, message, reason}: Failure): Json => ({
  kind: 'Status',
  apiVersion: 'v1',
  status: 'Failure',
  message,
  ...(reason === '' ? {} : {reason}),
  code: status,
})

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly resource: string
  readonly object: Item
  readonly version: number
}

/** Versions that a watch may still begin at; older ones are gone (410). */
const KEPT_EVENTS = 100

export const KINDS: Readonly<Record<string, string>> = {
  namespaces: 'Namespace',
  nodes: 'Node',
  services: 'Service',
  endpoints: 'Endpoints',
  pods: 'Pod',
  endpointslices: 'EndpointSlice',
  ingresses: 'Ingress',
  networkpolicies: 'NetworkPolicy',
  daemonsets: 'DaemonSet',
  configmaps: 'ConfigMap',
}

export class Store {
  private readonly folder: string
  private readonly lists = new Map<string, {apiVersion: string; items: Item[]}>()
  private readonly listeners = new Set<(event: WatchEvent) => void>()
  private events: WatchEvent[] = []
  version = 1

  /** `folder`: a snapshot's, with `api/` in it. */
  constructor(folder: string) {
    this.folder = folder
  }

  file(name: string): Json {
    const path = join(this.folder, 'api', `${name}.json`)
    if (!existsSync(path))
      throw new Failure(404, 'the server could not find the requested resource', {reason: 'NotFound'})
    return JSON.parse(readFileSync(path, 'utf8')) as Json
  }

  list(resource: string): {apiVersion: string; items: Item[]} {
    let list = this.lists.get(resource)
    if (!list) {
      const read = this.recorded(resource)
      list = {apiVersion: String(read['apiVersion'] ?? 'v1'), items: (read['items'] ?? []) as Item[]}
      this.lists.set(resource, list)
    }
    return list
  }

  /** A list that was not recorded is empty; namespaces are those of the Services. */
  private recorded(resource: string): Json {
    if (existsSync(join(this.folder, 'api', `${resource}.json`))) return this.file(resource)
    const names =
      resource === 'namespaces' ? new Set(this.list('services').items.map(({metadata}) => metadata.namespace)) : []
    return {items: [...names].map((name) => ({metadata: {name}}))}
  }

  /** Adds an object or puts it in the place of its namesake. */
  put(resource: string, object: Item): void {
    const {items} = this.list(resource)
    const at = items.findIndex((one) => sameName(one, object))
    if (at >= 0) items[at] = object
    else items.push(object)
    this.tell(at >= 0 ? 'MODIFIED' : 'ADDED', resource, object)
  }

  remove(resource: string, name: Item): void {
    const {items} = this.list(resource)
    const at = items.findIndex((one) => sameName(one, name))
    if (at < 0) throw new Failure(404, `${resource} "${name.metadata.name}" not found`, {reason: 'NotFound'})
    const [gone] = items.splice(at, 1)
    this.tell('DELETED', resource, gone!)
  }

  /** As recorded again. */
  reset(): void {
    this.lists.clear()
    this.events = []
    this.version += KEPT_EVENTS
  }

  private tell(type: WatchEvent['type'], resource: string, object: Item): void {
    const version = ++this.version
    object.metadata.resourceVersion = String(version)
    const event = {type, resource, object, version}
    this.events = [...this.events, event].slice(-KEPT_EVENTS)
    for (const listener of this.listeners) listener(event)
  }

  /** Events after `since`, then every new one; returns what ends it. Throws 410 when `since` is too old. */
  watch(since: number, listener: (event: WatchEvent) => void): () => void {
    if (since < this.version && (this.events[0]?.version ?? this.version + 1) > since + 1)
      throw new Failure(410, `too old resource version: ${since} (${this.version})`, {reason: 'Expired'})
    for (const event of this.events) if (event.version > since) listener(event)
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

const sameName = (one: Item, other: Item): boolean =>
  one.metadata.name === other.metadata.name && one.metadata.namespace === other.metadata.namespace

/** `labelSelector` and `fieldSelector` as a query gives them. */
export function selects({searchParams}: URL, item: Item): boolean {
  const labels = item.metadata.labels ?? {}
  const terms = (searchParams.get('labelSelector') ?? '').match(/[^,(]+(\([^)]*\))?/g) ?? []
  return (
    terms.every((term) => labelTerm(labels, term.trim())) &&
    (searchParams.get('fieldSelector') ?? '')
      .split(',')
      .filter(Boolean)
      .every((term) => fieldTerm(item, term))
  )
}

function labelTerm(labels: Readonly<Record<string, string>>, term: string): boolean {
  const [, key, operator, list] = /^(\S+) +(in|notin) +\(([^)]*)\)$/.exec(term) ?? []
  if (key !== undefined) {
    const own = labels[key]
    const found = own !== undefined && list!.split(',').some((value) => value.trim() === own)
    return operator === 'in' ? found : !found
  }
  const [, name, sign, value] = /^(!?[^=!]+)(==?|!=)?(.*)$/.exec(term) ?? []
  if (sign === undefined) return name!.startsWith('!') ? !(name!.slice(1) in labels) : name! in labels
  return (labels[name!] === value) === (sign !== '!=')
}

function fieldTerm(item: Item, term: string): boolean {
  const [, path, sign, value] = /^([^=!]+)(==?|!=)(.*)$/.exec(term) ?? []
  if (path === undefined)
    throw new Failure(400, `invalid field selector ${JSON.stringify(term)}`, {reason: 'BadRequest'})
  const found = path.split('.').reduce<unknown>((at, key) => (at as Json | undefined)?.[key], item)
  return (String(found ?? '') === value) === (sign !== '!=')
}
