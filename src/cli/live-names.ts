import {openApi} from '../kube/api.js'
import {readConnection} from '../kube/kubeconfig.js'
import {safeLine} from '../util/text.js'

/** Completion waits no longer than this. */
const PATIENCE = 1500

/** Names that could stand next: values of -n and --node, else Services of the namespace. A cluster that does not answer gives none. */
export async function liveNames(before: readonly string[]): Promise<string[][]> {
  const flag = before.at(-1)
  const value = (...names: readonly string[]): string | undefined => {
    const at = before.findIndex((word) => names.includes(word))
    return at < 0 ? undefined : before[at + 1]
  }
  try {
    const connection = readConnection({
      kubeconfig: value('--kubeconfig'),
      context: value('--context'),
      namespace: value('-n', '--namespace'),
    })
    const api = await openApi(connection, {timeout: PATIENCE, signal: AbortSignal.timeout(PATIENCE)})
    const path =
      flag === '-n' || flag === '--namespace'
        ? '/api/v1/namespaces'
        : flag === '--node'
          ? '/api/v1/nodes'
          : `/api/v1/namespaces/${encodeURIComponent(connection.namespace)}/services`
    const {items} = (await api.get(`${path}?limit=500`)) as {items?: {metadata?: {name?: string}}[]}
    api.close()
    return (items ?? []).flatMap(({metadata}) => (metadata?.name === undefined ? [] : [[safeLine(metadata.name)]]))
  } catch {
    // a shell that completes must not print errors: no names is the whole answer
    return []
  }
}
