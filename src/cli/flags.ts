import {Flags} from '@oclif/core'

/** Flags that kubectl's users expect on every command; names and letters as in `kubectl options`. */
const kubeFlags = {
  namespace: Flags.string({char: 'n', description: 'namespace of the Service'}),
  context: Flags.string({description: 'context of the kubeconfig', helpGroup: 'KUBECTL'}),
  cluster: Flags.string({description: 'cluster of the kubeconfig', helpGroup: 'KUBECTL'}),
  user: Flags.string({description: 'user of the kubeconfig', helpGroup: 'KUBECTL'}),
  kubeconfig: Flags.string({description: 'path of the kubeconfig file', helpGroup: 'KUBECTL'}),
  as: Flags.string({description: 'user to impersonate', helpGroup: 'KUBECTL'}),
  'as-group': Flags.string({
    description: 'group to impersonate (may be repeated)',
    helpGroup: 'KUBECTL',
    multiple: true,
    multipleNonGreedy: true,
  }),
  'as-uid': Flags.string({description: 'UID to impersonate', helpGroup: 'KUBECTL'}),
  server: Flags.string({char: 's', description: 'address of the API server', helpGroup: 'KUBECTL'}),
  token: Flags.string({
    description: 'bearer token (visible to other users of this machine; prefer a kubeconfig)',
    helpGroup: 'KUBECTL',
  }),
  'certificate-authority': Flags.string({description: 'file with the CA certificate', helpGroup: 'KUBECTL'}),
  'client-certificate': Flags.string({description: 'file with the client certificate', helpGroup: 'KUBECTL'}),
  'client-key': Flags.string({description: 'file with the client key', helpGroup: 'KUBECTL'}),
  'tls-server-name': Flags.string({description: 'name to check the server certificate against', helpGroup: 'KUBECTL'}),
  'insecure-skip-tls-verify': Flags.boolean({description: 'do not check the server certificate', helpGroup: 'KUBECTL'}),
  'request-timeout': Flags.string({
    description: 'time limit of one API request (5s, 2m; 0: none)',
    default: '0',
    helpGroup: 'KUBECTL',
  }),
}

/** How to reach the nodes. */
const nodeFlags = {
  via: Flags.string({
    description: 'way into the nodes',
    options: ['auto', 'ssh', 'openssh', 'exec', 'local'],
    default: 'auto',
    helpGroup: 'NODES',
  }),
  'exec-pod': Flags.string({
    description: 'with --via exec: NAMESPACE/NAME of the pods to look from; default: kube-proxy',
    helpGroup: 'NODES',
  }),
  'ssh-user': Flags.string({description: 'user on the nodes', helpGroup: 'NODES'}),
  'ssh-port': Flags.integer({description: 'port of sshd on the nodes', helpGroup: 'NODES'}),
  'ssh-identity': Flags.string({description: 'private key file', helpGroup: 'NODES'}),
  'ssh-config': Flags.string({description: 'ssh_config file instead of ~/.ssh/config', helpGroup: 'NODES'}),
  'ssh-option': Flags.string({
    description: 'KEY=VALUE as for ssh -o; repeatable',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'NODES',
  }),
  'ssh-known-hosts': Flags.string({description: 'known_hosts file instead of ~/.ssh/known_hosts', helpGroup: 'NODES'}),
  'node-address': Flags.string({
    description: 'which address of a node to connect to',
    options: ['InternalIP', 'ExternalIP', 'Hostname', 'name'],
    default: 'InternalIP',
    helpGroup: 'NODES',
  }),
  'node-host': Flags.string({
    description: 'NODE=HOST: connect to HOST for this node; repeatable',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'NODES',
  }),
  sudo: Flags.string({
    description: 'use sudo -n on the nodes',
    options: ['auto', 'never', 'always'],
    default: 'auto',
    helpGroup: 'NODES',
  }),
  'ask-dns': Flags.boolean({
    description: 'ask the cluster DNS servers too, over TCP from a node, and compare',
    helpGroup: 'NODES',
  }),
  parallel: Flags.integer({description: 'how many nodes to read at once', default: 16, helpGroup: 'NODES'}),
  'node-timeout': Flags.string({description: 'time limit for one node', default: '60s', helpGroup: 'NODES'}),
  timeout: Flags.string({description: 'time limit for all nodes (5m; 0: none)', default: '0', helpGroup: 'NODES'}),
  verbose: Flags.boolean({description: 'a line on stderr for each node that is read', helpGroup: 'NODES'}),
}

const snapshotFlag = Flags.string({
  description: 'read a saved snapshot (folder or .tar.gz) instead of a live cluster',
})
const onlyNodes = Flags.string({
  description: 'only these nodes (may be repeated)',
  multiple: true,
  multipleNonGreedy: true,
})
export const noColor = Flags.boolean({description: 'no colour (also: NO_COLOR=1)'})

/** What every command takes that reads nodes. */
export const liveFlags = {node: onlyNodes, ...kubeFlags, ...nodeFlags, 'no-color': noColor}

/** The same for commands that can read a snapshot instead. */
export const sourceFlags = {snapshot: snapshotFlag, ...liveFlags}

export const EXIT_CODES = `Exit codes: 0 healthy, 1 findings at or above --fail-on, 2 wrong usage, unreadable input or API failure,
3 incomplete (something asked for could not be read or decided, and nothing else is wrong), 70 a bug, 130 interrupted.`

/** The first flag that somebody has set himself and that is of no use here. */
export function uselessFlag(
  flags: Readonly<Record<string, unknown>>,
  metadata: {readonly flags: Readonly<Record<string, {readonly setFromDefault?: boolean} | undefined>>},
  used: readonly string[],
): string | undefined {
  return Object.keys(flags).find(
    (name) =>
      flags[name] !== undefined &&
      flags[name] !== false &&
      !metadata.flags[name]?.setFromDefault &&
      !used.includes(name),
  )
}
