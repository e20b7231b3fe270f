import {createHash, createHmac} from 'node:crypto'

export type HostKeyVerdict = 'known' | 'unknown' | 'changed' | 'revoked' | 'authority'

interface Line {
  readonly marker: string | undefined
  readonly hosts: string
  readonly type: string
  readonly key: string
}

/** Checks a host key against the text of known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). */
export function checkHostKey(
  knownHosts: string,
  {host, port, key}: {host: string; port: number; key: Buffer},
): HostKeyVerdict {
  const name = port === 22 ? host : `[${host}]:${port}`
  const lines = knownHosts
    .split('\n')
    .map(readLine)
    .filter((line) => line !== undefined)
    .filter(({hosts}) => matchesHost(hosts, name))
  const wanted = key.toString('base64')
  const type = keyType(key)
  if (lines.some(({marker, key: known}) => marker === '@revoked' && known === wanted)) return 'revoked'
  const plain = lines.filter(({marker}) => marker === undefined)
  if (plain.some(({key: known}) => known === wanted)) return 'known'
  if (plain.some((line) => line.type === type)) return 'changed'
  return plain.length > 0 ? 'unknown' : lines.some(({marker}) => marker === '@cert-authority') ? 'authority' : 'unknown'
}

function readLine(text: string): Line | undefined {
  const words = text.trim().split(/\s+/)
  if (words.length < 3 || words[0]!.startsWith('#')) return undefined
  const marker = words[0]!.startsWith('@') ? words.shift() : undefined
  const [hosts, type, key] = words
  return hosts === undefined || type === undefined || key === undefined ? undefined : {marker, hosts, type, key}
}

function matchesHost(hosts: string, name: string): boolean {
  if (hosts.startsWith('|1|')) {
    const [, , salt, hash] = hosts.split('|')
    return (
      createHmac('sha1', Buffer.from(salt ?? '', 'base64'))
        .update(name)
        .digest('base64') === hash
    )
  }
  const patterns = hosts.split(',')
  const fits = (pattern: string): boolean =>
    new RegExp(
      `^${pattern
        .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
        .replaceAll('*', '.*')
        .replaceAll('?', '.')}$`,
      'i',
    ).test(name)
  if (patterns.some((pattern) => pattern.startsWith('!') && fits(pattern.slice(1)))) return false
  return patterns.some((pattern) => !pattern.startsWith('!') && fits(pattern))
}

/** The algorithm name at the start of an SSH public key blob (RFC 4253, 6.6). */
export function keyType(key: Buffer): string {
  return key.subarray(4, 4 + key.readUInt32BE(0)).toString('ascii')
}

/** As `ssh-keygen -l` prints it. */
export const fingerprint = (key: Buffer): string =>
  `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`

/** The host keys' types that known_hosts has for a host, so that the server is asked for one of these. */
export function knownKeyTypes(knownHosts: string, host: string, port: number): string[] {
  const name = port === 22 ? host : `[${host}]:${port}`
  return [
    ...new Set(
      knownHosts
        .split('\n')
        .map(readLine)
        .flatMap((line) => (line && line.marker === undefined && matchesHost(line.hosts, name) ? [line.type] : [])),
    ),
  ]
}
