/** Commands in front of a pasted listing that ask for less than the whole: `iptables-save | grep -v cali`, `ip route show dev eth0`. */

/** What a listing is of: the command's words that leave something out differ. */
export type ListingKind = 'iptables' | 'nft' | 'ipset' | 'ipvs' | 'addresses' | 'routes' | 'rules' | 'sockets'

export interface Narrowing {
  /** 1-based. */
  readonly line: number
  /** What leaves lines out, in the poster's words. */
  readonly by: string
}

const TOOLS: Readonly<Record<ListingKind, string>> = {
  iptables: 'ip6?tables(?:-legacy|-nft)?(?:-save)?|xtables-\\w+-multi',
  nft: 'nft',
  ipset: 'ipset',
  ipvs: 'ipvsadm',
  addresses: 'ip',
  routes: 'ip',
  rules: 'ip',
  sockets: 'ss|netstat|lsof',
}
/** Tools that print a file that somebody has saved before. */
const READERS = '[efz]?grep|cat|zcat|sed|awk|head|tail|cut|rg'
/** A prompt of any kind, sudo, and what runs a command elsewhere. */
const BEFORE = String.raw`^(?:.{0,120}?[#$>%➜❯]\s*)?(?:sudo\s+(?:-\S+\s+)*)?(?:(?:kubectl|oc|docker|podman|crictl|nerdctl|ssh|minikube|nsenter|chroot|vagrant|talosctl|lxc)\b[^|]*?\s)?(?:\S*/)?`

const COMMANDS = Object.fromEntries(
  Object.entries(TOOLS).map(([kind, tool]) => [kind, new RegExp(`${BEFORE}(?:${tool}|${READERS})(?=\\s|$)`)]),
) as Readonly<Record<ListingKind, RegExp>>

/** Behind a pipe these print every line they are given. */
const WHOLE =
  /^(sudo\s+)?(sort|cat|tee|less|more|column|nl|expand|tr|dos2unix|fold|xclip|pbcopy|base64|g?zip|xz|jq\s+\.?)(\s|$)/
const FILTER = /^(?:\S*\/)?([efz]?grep|sed|awk|head|tail|cut|rg)\b/

/** Words of the command itself that ask for a part; a set that a rule asks for and no list has is doubted by itself. */
const PARTS: Partial<Record<ListingKind, RegExp>> = {
  nft: /\blist\s+(?:(?:table|chain|set|map|flowtable|meter)s?\b|ruleset\s+(?!>)\w+).*/,
  ipvs: /\s(?:-\w*[tuf]|--(?:tcp|udp|fwmark)-service)\s+[\w.:[\]]+/,
  addresses: /\b(?:a|ad|addr|address|l|li|link)\s+(?:s|sh|show|l|ls|list)\s+(?!up\s*$)\S.*/,
  routes:
    /\b(?:r|ro|route)\b.*\b(?:get|dev|via|proto|protocol|to|match|exact|root|scope|type|src|cache|table\s+(?!(?:all|unspec|0)\b)\S+).*/,
  rules: /\b(?:ru|rule)\s+(?:s|sh|show|l|ls|list)\s+\S.*/,
  sockets: /\s(?:-\S*[46]\S*|['(].*|(?:sport|dport|src|dst|state|exclude|not)\b.*)/,
}

/** What a filter has in it: lines without any are not looked at. */
const FILTERS = ['|', 'grep ', 'sed ', 'awk ', 'head ', 'tail ', 'cut ', 'rg ']
/** What the words of a part have in them. */
const MARKS: Partial<Record<ListingKind, readonly string[]>> = {
  nft: ['list '],
  ipvs: ['ipvsadm '],
  addresses: ['ip '],
  routes: ['ip '],
  rules: ['ip '],
  sockets: ['ss ', 'netstat '],
}

/** The first command in a listing that asks for less than all of it; undefined where none says so. */
export function narrowing(text: string, kind: ListingKind): Narrowing | undefined {
  if (kind === 'nft' && WHOLE_RULESET.test(text)) return undefined
  const seen = new Set<number>()
  for (const mark of [...FILTERS, ...(MARKS[kind] ?? [])]) {
    let at = text.indexOf(mark)
    for (let tries = 0; at >= 0 && tries < MOST; tries++) {
      const start = text.lastIndexOf('\n', at) + 1
      let end = text.indexOf('\n', at)
      if (end < 0) end = text.length
      if (!seen.has(start)) {
        seen.add(start)
        const by = end - start > LONGEST ? undefined : narrowedBy(text.slice(start, end).trim(), kind)
        if (by !== undefined) return {line: text.slice(0, start).split('\n').length, by}
      }
      at = text.indexOf(mark, end)
    }
  }
  return undefined
}

/** The whole was asked for as well. */
const WHOLE_RULESET = /\bnft (?:-\S+ )*list ruleset\s*$/m
const LONGEST = 400
/** Commands stand in front of what they print; where a mark is in so many lines, it is the listing's own. */
const MOST = 200

function narrowedBy(line: string, kind: ListingKind): string | undefined {
  const found = COMMANDS[kind].exec(line)
  if (!found) return undefined
  // a bar inside of quotes is the pattern's own
  const bare = line.replaceAll(/'[^']*'|"[^"]*"/g, (quoted) => `'${'_'.repeat(quoted.length - 2)}'`)
  const command = bare.slice(found[0].length - /[\w-]+$/.exec(found[0])![0].length)
  const [own, ...pipes] = command.split('|')
  const filter = [own!, ...pipes].find((part, at) => (at === 0 ? FILTER.test(part.trim()) : !WHOLE.test(part.trim())))
  if (filter !== undefined) return original(line, bare, filter)
  const part = PARTS[kind]?.exec(own!)?.[0]
  return part === undefined ? undefined : original(line, bare, part)
}

/** The part with what stands in its quotes. */
const original = (line: string, bare: string, part: string): string => {
  const at = bare.indexOf(part)
  return line.slice(at, at + part.length).trim()
}
