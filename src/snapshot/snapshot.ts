import type {ClusterState} from '../model/kube.js'
import type {Problem} from '../parse/problem.js'
import {sharer} from '../util/packed-files.js'
import {readCluster} from './cluster.js'
import {isUnknown} from './names.js'
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
  /** Files of a saved snapshot once more, those that are still there. */
  readonly reread?: (paths: ReadonlySet<string>) => Promise<SnapshotFiles>
}

/** Files of a snapshot by their path inside it (`api/services.json`, `nodes/a/ss.txt`). */
export type SnapshotFiles = ReadonlyMap<string, string>

/** Turns files into a snapshot. A broken file is a problem of its own and takes nothing else down. */
export function snapshotFromFiles(files: SnapshotFiles): Snapshot {
  const problems: Problem[] = []
  for (const file of files.keys())
    if (isUnknown(file))
      problems.push({file, line: 0, message: 'unknown file name, not read: docs/snapshot.md has the names'})
  const info = readInfo(files.get('snapshot.json'), problems)
  const cluster = readCluster((path) => files.get(path), problems)
  const names = nodeNames(files, problems)
  const share = names.size > 1 ? sharer() : undefined
  const nodes = new Map([...names].map((name) => [name, new NodeState(name, folder(files, `nodes/${name}/`), share)]))
  const versions = proxyVersions(cluster, nodes)
  return {
    info,
    cluster: {...cluster, ...(info.taken === undefined ? {} : {taken: info.taken}), kubeProxyVersions: versions},
    nodes,
    problems,
  }
}

/** The folders of `nodes/`; one that no node can be called after (RFC 1123) is a problem. */
function nodeNames(files: SnapshotFiles, problems: Problem[]): Set<string> {
  const names = new Set([...files.keys()].flatMap((path) => /^nodes\/([^/]+)\/[^/]+$/.exec(path)?.[1] ?? []))
  for (const name of names) {
    if (/^[\w.-]+$/.test(name)) continue
    names.delete(name)
    problems.push({file: `nodes/${name}`, line: 0, message: 'no node can have this name; the folder is not read'})
  }
  return names
}

/** Where those beside the same kubelets differ, an upgrade is under way, and nobody speaks for the others. */
function proxyVersions(cluster: ClusterState, nodes: ReadonlyMap<string, NodeState>): Map<string, string> {
  const told = new Map<string, Set<string>>()
  for (const {name, kubeletVersion = ''} of cluster.nodes) {
    const version = nodes.get(name)?.proxyVersion
    if (version !== undefined) told.set(kubeletVersion, (told.get(kubeletVersion) ?? new Set()).add(version))
  }
  return new Map([...told].flatMap(([kubelet, [only, other]]) => (only && !other ? [[kubelet, only] as const] : [])))
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
