import {CORE_SCHEMA, loadAll} from 'js-yaml'
import type {KubeObject} from '../model/kube.js'
import type {Problem} from '../parse/problem.js'
import {record, text as textOf, type Json} from '../util/json.js'

/** The kind of the objects in each list that is read. */
export const KINDS: Readonly<Record<string, string>> = {
  namespaces: 'Namespace',
  nodes: 'Node',
  services: 'Service',
  endpoints: 'Endpoints',
  endpointslices: 'EndpointSlice',
  pods: 'Pod',
  ingresses: 'Ingress',
  ingressclasses: 'IngressClass',
  networkpolicies: 'NetworkPolicy',
  daemonsets: 'DaemonSet',
  gateways: 'Gateway',
  gatewayclasses: 'GatewayClass',
  httproutes: 'HTTPRoute',
  tcproutes: 'TCPRoute',
  tlsroutes: 'TLSRoute',
  referencegrants: 'ReferenceGrant',
  events: 'Event',
  configmaps: 'ConfigMap',
  servicecidrs: 'ServiceCIDR',
  secrets: 'Secret',
}

type Read = (path: string) => string | undefined

/**
 * The lists of `api/`, as `kubectl get -o json` prints them. What people hand on instead is taken too: one object, a bare list
 * of them, YAML, the command in front of it, and lists of several kinds (`kubectl get svc,endpoints,pods`).
 */
export class ApiLists {
  private readonly read: Read
  private problems: Problem[]
  /** Objects that were found in lists of other kinds. */
  private readonly strays = new Map<string, KubeObject[]>()

  constructor(read: Read, problems: Problem[]) {
    this.read = read
    this.problems = problems
  }

  /** Objects were found in lists of other kinds; from now on they are given out with their own. */
  hasStrays(): boolean {
    this.problems = []
    return this.strays.size > 0
  }

  /** The objects of one list; undefined where it is missing or broken, which the problems tell. */
  list(name: string): KubeObject[] | undefined {
    const found = readList(`api/${name}.json`, this.read, this.problems)
    const kind = KINDS[name]
    const mine = this.strays.get(kind ?? '')
    const own = found?.filter((object) => object.kind === undefined || object.kind === kind || this.setAside(object))
    return own && mine ? [...own, ...mine] : (own ?? mine)
  }

  /** Keeps an object for the list of its kind, once; it is none of this one's. */
  private setAside(object: KubeObject): false {
    const known = this.strays.get(object.kind!)
    if (!known) this.strays.set(object.kind!, [object])
    else if (!known.some(({metadata}) => sameObject(metadata, object.metadata))) known.push(object)
    return false
  }
}

const sameObject = (a: KubeObject['metadata'], b: KubeObject['metadata']): boolean =>
  a.name === b.name && a.namespace === b.namespace

/** One JSON or YAML file; undefined where it is missing, empty or broken, which `problems` are told. */
export function readDocument(path: string, read: Read, problems: Problem[]): unknown {
  const text = read(path)?.replace(/^\ufeff/, '')
  if (text === undefined || text.trim() === '') return undefined
  try {
    return JSON.parse(text)
  } catch (error) {
    const other = behindPrompt(text) ?? asYaml(text)
    if (other === undefined)
      problems.push({file: path, line: 0, message: `not valid JSON: ${(error as Error).message}`})
    return other
  }
}

export const readJson = (path: string, read: Read, problems: Problem[]): Json | undefined => {
  const document = readDocument(path, read, problems)
  return document === undefined ? undefined : record(document)
}

/** The command that printed it stands above it. */
function behindPrompt(text: string): unknown {
  const at = text.search(/^[{[]/m)
  if (at <= 0) return undefined
  try {
    return JSON.parse(text.slice(at))
  } catch {
    return undefined
  }
}

function asYaml(text: string): unknown {
  const at = text.search(/^(apiVersion|kind|items):/m)
  if (at < 0) return undefined
  try {
    const documents = loadAll(text.slice(at), undefined, {schema: CORE_SCHEMA})
    return documents.length === 1 ? documents[0] : documents.flatMap((one) => itemsOf(one) ?? [])
  } catch {
    return undefined
  }
}

/** The objects of one list of `api/`; undefined where it is missing or broken, which `problems` are told. */
export function readList(path: string, read: Read, problems: Problem[]): KubeObject[] | undefined {
  const document = readDocument(path, read, problems)
  if (document === undefined) return undefined
  const items = itemsOf(document)
  if (!items) {
    problems.push({file: path, line: 0, message: 'not a list as kubectl get -o json prints it (no "items")'})
    return undefined
  }
  return items.filter((item, at) => {
    if (textOf(record(record(item)['metadata'])['name']) !== undefined) return true
    problems.push({file: path, line: 0, message: `item ${at + 1} has no metadata.name`})
    return false
  }) as KubeObject[]
}

function itemsOf(document: unknown): unknown[] | undefined {
  if (Array.isArray(document)) return document as unknown[]
  const {items, metadata, kind} = record(document)
  if (Array.isArray(items)) return items as unknown[]
  return typeof kind === 'string' && record(metadata)['name'] !== undefined ? [document] : undefined
}
