/**
 * The library: what `kubectl svc-trace` does, over a snapshot, without a terminal.
 *
 * ```ts
 * const snapshot = await loadSnapshot('incident.tar.gz')
 * const world = buildWorld(snapshot)
 * const result = trace(snapshot, world, {service: findService(snapshot, 'web')})
 * ```
 */
export {buildWorld} from './engine.js'
export {loadSnapshot} from './snapshot/load.js'
export {snapshotFromFiles, type Snapshot, type SnapshotFiles, type SnapshotInfo} from './snapshot/snapshot.js'
export {trace, type TraceOptions, type TraceResult, type TracedPath} from './trace.js'
export {traceIngress, type IngressTrace} from './trace-ingress.js'
export {check, type CheckOptions, type CheckResult} from './checks/check.js'
export {CODES, findCode, type CodeInfo, type CodeName} from './checks/codes.js'
export type {Finding, Incomplete, Severity} from './checks/finding.js'
export {diffNodes, diffSnapshots, type Change, type DiffResult} from './diff.js'
export {simulate, simulateLine, type SimulateAnswer, type SimulateLine, type SimulatePacket} from './simulate.js'
export {walk} from './dataplane/walk.js'
export {World, type PodPlace, type WorldFacts} from './dataplane/world.js'
export type {ClientFates, Evidence, Fate, Flow, Hop, Origin, Outcome, Receiver, WalkResult} from './model/trace.js'
export type {ClusterState, Endpoint, EndpointSlice, Service, ServicePort} from './model/kube.js'
export {SvcTraceError, type ErrorCode} from './model/errors.js'

export {findService, selectServices, labelSelector} from './select.js'
