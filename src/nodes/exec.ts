import {SvcTraceError} from '../model/errors.js'
import {NodeUnreachable, type NodeTarget, type Transport} from './transport.js'

/** One command in the pod of a node; `code` undefined: it did not run. */
export type RunInPod = (
  node: string,
  command: readonly string[],
  signal: AbortSignal,
) => Promise<{
  readonly stdout: string
  readonly stderr: string
  readonly code: number | undefined
  readonly failure?: string
}>

/** For images without a shell (kube-proxy's is one): what the collector asks, command by command. */
const PLAIN: readonly (readonly [file: string, command: readonly string[]])[] = [
  ['iptables-save.txt', ['iptables-save', '-c']],
  ['ip6tables-save.txt', ['ip6tables-save', '-c']],
  ['iptables-legacy-save.txt', ['iptables-legacy-save', '-c']],
  ['iptables-nft-save.txt', ['iptables-nft-save', '-c']],
  ['ip6tables-legacy-save.txt', ['ip6tables-legacy-save', '-c']],
  ['ip6tables-nft-save.txt', ['ip6tables-nft-save', '-c']],
  ['ipset-save.txt', ['ipset', 'save']],
  ['ipvsadm-Sn.txt', ['ipvsadm', '-Sn']],
  ['proc-net-ip_vs.txt', ['cat', '/proc/net/ip_vs']],
  ['nft.json', ['nft', '-j', 'list', 'ruleset']],
  ['nft.txt', ['nft', 'list', 'ruleset']],
  ['ip-addr.json', ['ip', '-j', 'addr', 'show']],
  ['ip-link.json', ['ip', '-d', '-j', 'link', 'show']],
  ['ip-route.json', ['ip', '-4', '-j', 'route', 'show', 'table', 'all']],
  ['ip-route6.json', ['ip', '-6', '-j', 'route', 'show', 'table', 'all']],
  ['ip-rule.json', ['ip', '-4', '-j', 'rule', 'show']],
  ['ip-rule6.json', ['ip', '-6', '-j', 'rule', 'show']],
  ['sysctl.txt', ['sysctl', '-a']],
  ['ss.txt', ['ss', '-H', '-lntup']],
  ['conntrack.txt', ['conntrack', '-L', '-f', 'ipv4']],
  ['conntrack6.txt', ['conntrack', '-L', '-f', 'ipv6']],
  ['resolv.txt', ['cat', '/etc/resolv.conf']],
]

/** What a missing tool means in a pod: not that the node has nothing of the kind, but that it is out of sight. */
const NOT_IN_POD = 'not to be seen from this pod: it has no such tool'
const CANNOT_RUN = 126

/** Reads nodes from inside a pod on their network, by the API's exec; the collector where there is a shell. */
export function execTransport(runInPod: RunInPod): Transport {
  const run: RunInPod = async (...what) => {
    try {
      return await runInPod(...what)
    } catch (error) {
      if (!(error instanceof SvcTraceError)) throw error
      throw new NodeUnreachable(error.message, error.hint ?? 'kubectl auth can-i create pods --subresource=exec')
    }
  }
  return {
    name: 'exec',
    run: async ({node}, script, signal) => {
      const whole = await run(node, ['sh', '-c', `SVC_TRACE_GZIP=no\n${script}`], signal)
      if (whole.stdout.includes('@svc-trace 1')) return Buffer.from(hideMissing(whole.stdout))
      if (whole.failure === undefined && whole.code !== CANNOT_RUN && whole.code !== 127)
        throw new NodeUnreachable(`the pod did not run the collector: ${whole.stderr.trim().split('\n')[0] ?? ''}`)
      return Buffer.from(await plainly(run, {node, host: ''}, signal))
    },
  }
}

async function plainly(run: RunInPod, {node}: NodeTarget, signal: AbortSignal): Promise<string> {
  const parts = ['@svc-trace 1']
  let ran = 0
  for (const [file, command] of PLAIN) {
    const {stdout, stderr, code, failure} = await run(node, command, signal)
    const missing = code === undefined || code === CANNOT_RUN || code === 127
    if (!missing) ran++
    parts.push(
      `@begin ${file}`,
      ...(missing ? [] : lines(stdout, '|')),
      ...(missing ? [`!${NOT_IN_POD}`, ...lines(failure ?? '', '!')] : lines(stderr, '!')),
      `!rc=${missing ? CANNOT_RUN : code}`,
      `@end ${file}`,
    )
  }
  if (ran === 0) throw new NodeUnreachable('the pod runs none of the commands', 'name another pod with --exec-pod')
  return [...parts, '@done', ''].join('\n')
}

const lines = (text: string, mark: string): string[] =>
  text === ''
    ? []
    : text
        .replace(/\n$/, '')
        .split('\n')
        .map((line) => `${mark}${line}`)

/** The collector's own frames, with missing tools (127) told as unseen. */
const hideMissing = (output: string): string =>
  output
    .split('\n@begin ')
    .map((section) =>
      /^!rc=127$/m.test(section)
        ? section.replaceAll(/^!(?!rc=).*$/gm, `!${NOT_IN_POD}`).replace(/^!rc=127$/m, `!rc=${CANNOT_RUN}`)
        : section,
    )
    .join('\n@begin ')
