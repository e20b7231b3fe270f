import {inRange, parseAddress, parseRange, familyOf} from '../util/ip.js'

/**
 * The proxy that kubectl would use, as a URL: Go's rules (golang.org/x/net/http/httpproxy). HTTPS_PROXY for https,
 * HTTP_PROXY for http, upper or lower case; `http://` where no scheme is given; never to this machine itself; and NO_PROXY,
 * a list of addresses, CIDRs, `host:port`, domains (with everything below), `.domain` (only what is below) or `*`.
 */
export function proxyFromEnvironment(server: URL, env: NodeJS.ProcessEnv = process.env): string | undefined {
  const name = server.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY'
  const proxy = env[name] || env[name.toLowerCase()]
  if (!proxy || isHere(server.hostname) || isExcepted(server, env['NO_PROXY'] || env['no_proxy'] || ''))
    return undefined
  return proxy.includes('://') ? proxy : `http://${proxy}`
}

const bare = (host: string): string => host.replaceAll(/[[\]]/g, '')

function isHere(hostname: string): boolean {
  const host = bare(hostname)
  return host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host)
}

function isExcepted(server: URL, list: string): boolean {
  const port = server.port || (server.protocol === 'https:' ? '443' : '80')
  return list
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .filter(Boolean)
    .some((entry) => entry === '*' || fits(entry, {host: bare(server.hostname).toLowerCase(), port}))
}

function fits(entry: string, {host, port}: {host: string; port: string}): boolean {
  const address = parseAddress(host)
  const range = entry.includes('/') ? parseRange(entry) : undefined
  if (range) return address !== undefined && familyOf(range.lo) === familyOf(address) && inRange(address, range)
  const [, named, own] =
    /^(.*?):(\d+)$/.exec(entry.includes(']') || entry.split(':').length === 2 ? entry : `${entry}:`) ?? []
  const name = bare(named ?? entry)
  if (own !== undefined && own !== port) return false
  const wanted = parseAddress(name)
  if (wanted !== undefined) return wanted === address
  const domain = name.replace(/^\*/, '')
  return domain.startsWith('.') ? host.endsWith(domain) : host === domain || host.endsWith(`.${domain}`)
}
