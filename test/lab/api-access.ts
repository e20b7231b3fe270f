/** Who asks the API stand-in, and what they may do. */
import {existsSync, readFileSync} from 'node:fs'
import type {IncomingMessage} from 'node:http'
import {join} from 'node:path'
import type {TLSSocket} from 'node:tls'
import {Failure} from './api-store.js'

/** One line of the rule file (`rbac.json`, a list); `*` stands for all. Without the file everybody may do everything. */
export interface AccessRule {
  readonly user: string
  readonly verbs: readonly string[]
  /** `pods`, `pods/exec`, `configmaps/kube-proxy` (that one object) */
  readonly resources: readonly string[]
  /** Cluster-wide as well, when it is missing. */
  readonly namespaces?: readonly string[]
}

export interface Request {
  readonly verb: string
  readonly resource: string
  readonly namespace?: string | undefined
  readonly name?: string | undefined
}

const readJson = <T>(path: string, otherwise: T): T =>
  existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as T) : otherwise

/** By client certificate (its CN), or by bearer token (`tokens.json`: token → user). */
export function userOf(request: IncomingMessage, folder: string): string {
  const socket = request.socket as TLSSocket
  const subject = socket.authorized ? socket.getPeerCertificate().subject : undefined
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
  const user =
    token === undefined ? subject?.CN : readJson<Record<string, string>>(join(folder, 'tokens.json'), {})[token]
  if (user === undefined) throw new Failure(401, 'Unauthorized', {reason: 'Unauthorized'})
  return String(user)
}

export function mayDo(folder: string, user: string, {verb, resource, namespace, name}: Request): boolean {
  const rules = readJson<AccessRule[] | undefined>(join(folder, 'rbac.json'), undefined)
  if (rules === undefined) return true
  const fits = (list: readonly string[], value: string): boolean => list.includes('*') || list.includes(value)
  return rules.some(
    (rule) =>
      fits([rule.user], user) &&
      fits(rule.verbs, verb) &&
      (fits(rule.resources, resource) || (name !== undefined && rule.resources.includes(`${resource}/${name}`))) &&
      (rule.namespaces === undefined || (namespace !== undefined && fits(rule.namespaces, namespace))),
  )
}

export function mustBeAllowed(folder: string, user: string, request: Request): void {
  if (mayDo(folder, user, request)) return
  const {verb, resource, namespace} = request
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`
  throw new Failure(403, `${resource} is forbidden: User "${user}" cannot ${verb} resource "${resource}" ${scope}`, {
    reason: 'Forbidden',
  })
}
