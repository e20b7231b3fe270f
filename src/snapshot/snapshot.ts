import type {ClusterState} from '../model/kube.js'
import type {Problem} from '../parse/problem.js'
import {sharer} from '../util/packed-files.js'
import {readCluster} from './cluster.js'
import {NodeState, type Files} from './node-state.js'

/** What `snapshot.json` says of how and when a snapshot was taken. */
export interface SnapshotInfo {
  readonly tool?: string
  readonly taken?: string
  /** The namespace of the context, for names without one. */
  readonly namespace?: string
  /** Nodes that were asked and didn't answer: name → why. */
  readonly unread: Readonly<Record<string, string>>
  /** API lists that could not be read: resource → why. */
  readonly forbidden: Readonly<Record<string, string>>
  /** Nodes that were left out on purpose. */
  readonly skipped: readonly string[]
  /** Node → how it was read (`ssh`, `openssh`, `exec`, `local`). */
  readonly via: Readonly<Record<string, string>>
}

/** The hub: everything right of it is a pure function of this. */
export interface Snapshot {
  readonly info: SnapshotInfo
  readonly cluster: ClusterState
  readonly nodes: ReadonlyMap<string, NodeState>
  readonly problems: readonly Problem[]
}

/** Files of a snapshot by their path inside it (`api/services.json`, `nodes/a/ss.txt`). */
export type SnapshotFiles = ReadonlyMap<string, string>

/** Turns files into a snapshot. A broken file is a problem of its own and takes nothing else down. */
export function snapshotFromFiles(files: SnapshotFiles): Snapshot {
  const problems: Problem[] = []
  const info = readInfo(files.get('snapshot.json'), problems)
  const cluster = readCluster((path) => files.get(path), problems)
  const names = new Set([...files.keys()].flatMap((path) => /^nodes\/([^/]+)\/[^/]+$/.exec(path)?.[1] ?? []))
  const share = names.size > 1 ? sharer() : undefined
  const nodes = new Map([...names].map((name) => [name, new NodeState(name, folder(files, `nodes/${name}/`), share)]))
  const version = proxyVersion(cluster, [...nodes.values()])
  return {info, cluster: version === undefined ? cluster : {...cluster, kubeProxyVersion: version}, nodes, problems}
}

function proxyVersion({raw}: ClusterState, nodes: readonly NodeState[]): string | undefined {
  const told = new Set(nodes.flatMap(({proxyVersion: own}) => own ?? []))
  if (told.size > 0) return told.size === 1 ? [...told][0] : undefined
  const images = (raw['daemonsets'] ?? [])
    .filter(({metadata}) => metadata.name === 'kube-proxy')
    .flatMap(({spec}) => /"image":"[^"]*:(v1\.\d+[^"]*)"/.exec(JSON.stringify(spec ?? {}))?.[1] ?? [])
  return images[0]
}

/** The files of a folder, by their names in it. */
const folder = (files: SnapshotFiles, path: string): Files => ({
  get: (name) => files.get(`${path}${name}`),
  has: (name) => files.has(`${path}${name}`),
})

function readInfo(text: string | undefined, problems: Problem[]): SnapshotInfo {
  const empty: SnapshotInfo = {unread: {}, forbidden: {}, skipped: [], via: {}}
  if (text === undefined) return empty
  try {
    return {...empty, ...(JSON.parse(text) as Partial<SnapshotInfo>)}
  } catch (error) {
    problems.push({file: 'snapshot.json', line: 0, message: `not valid JSON: ${(error as Error).message}`})
    return empty
  }
}
