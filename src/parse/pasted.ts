/** What people's terminals and hands leave in a dump that they paste. */

/** What a shell says before and between commands, the commands themselves, and the fences of web pages. */
const PROMPTS = [
  // user@n1:~$ sudo nft list ruleset · [root@n1 ~]# · (root@n1:~)#
  /^[[(]?[\w.-]+@[\w.-]+[^#$>%{}]*[#$>%](\s|$)/,
  // # iptables -S · $ sudo … · >
  /^([\w.-]+\$|[#$>%]) ?(sudo |nft |ip6?tables|ipset |ipvsadm |$)/,
  // bash-4.2# · / # · ~ $ · n1:~ # · worker/0:/var/vcap# · controlplane ~ ➜ · PS C:\>
  /^(ba|da|z|a)?sh-[\d.]+[#$%](\s|$)/,
  /^[~/][\w./~-]* ?[#$%](\s|$)/,
  /^[\w./-]+:[~/][\w./~-]* ?[#$%](\s|$)/,
  /^[^"*{}]{0,40}[➜❯](\s|$)/,
  /^PS [A-Z]:\\[^>]*>/,
  // a command without its prompt
  /^(sudo )?ip6?tables(-legacy|-nft)?(-save)?( -|$| *\|)/,
  /^(sudo )?(nft (-\w+ )*list|ipset (-\w+ )*(list|save)|ipvsadm -)/,
  /^(sudo )?(docker exec|kubectl (exec|debug|-n|get|logs)|minikube ssh|crictl exec|ssh \S+@)/,
  /^(\[sudo\] password|exit$|logout$|Last login:|Connection to \S+ closed)/,
  /^(```|~~~|<\/?(details|summary|pre|code)>)/,
  /^(# )?Warning: ip6?tables(-legacy)? tables present/,
]
export const PROMPT = new RegExp(PROMPTS.map(({source}) => `(?:${source})`).join('|'))

const LEFT_OUT =
  /^\W*(\.{2,}|…|(snip|snipped|cut|omitted|truncated|left out)\b)\W*$|^#?\s*(\.{3}|…).*\b(omitted|snip(ped)?|truncated|left out|removed|skipped)\b|^--$/i
/** Nobody writes more to say so. */
const LONGEST = 200

/** Whoever posted the dump made it shorter: `...`, `<snip>`, `# ... many other services omitted ...`, the `--` of grep. */
export const isLeftOut = (line: string): boolean => line.length <= LONGEST && LEFT_OUT.test(line)

/** A shell's or a web page's line between listings, which is no loss. */
export const isPrompt = (line: string): boolean => PROMPT.test(line) && !isLeftOut(line)

/** Which table a command in front of a listing asks for, and whether its lines went through sort; undefined: it is no such command. */
export function askedTable(line: string): {readonly table: string; readonly sorted: boolean} | undefined {
  const command = /\bip6?tables(?:-legacy|-nft)?\s([^|;]*)/.exec(line)?.[1]
  if (command === undefined || !/(^|\s)(-\w*[SL]|--list(-rules)?)(\s|$)/.test(command)) return undefined
  const table = /(?:^|\s)(?:-t|--table)[ =]?([a-z]+)/.exec(command)?.[1] ?? 'filter'
  return {table, sorted: /\|\s*sort\b/.test(line)}
}

/** Arrows that point back at the line; `<=` and `<` alone are nft's. */
const NOTE = /\s(←|⟵|⬅|👈|<-{2,}|<={2,}|<—+|<-(?=\s+[A-Za-z]))/gu
const ARROWS = ['←', '⟵', '⬅', '👈']
/** Most dumps are long and have none. */
export const hasNotes = (text: string): boolean =>
  ARROWS.some((arrow) => text.includes(arrow)) || (text.includes(' <') && /\s<[-=—]/u.test(text))

/** The line without what its poster says of it: `-j REJECT ← this is the problem`. */
export function withoutNote(line: string): string {
  // `==> node2 <==`: head and tail say so between files
  if (line.startsWith('==>')) return line
  for (const {index} of line.matchAll(NOTE)) {
    const before = line.slice(0, index)
    const isQuoted = before.split('"').length % 2 === 0 || before.lastIndexOf('/*') > before.lastIndexOf('*/')
    if (!isQuoted) return before.trimEnd()
  }
  return line
}
