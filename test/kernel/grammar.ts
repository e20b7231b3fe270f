import {CLIENTS, PODS, PORTS, ROUTER, VIPS} from './lab.js'

/** A seeded source of choices (mulberry32), and of sentences of a small grammar. */
export class Dice {
  private state: number

  constructor(seed: number) {
    this.state = Math.imul(seed, 0x9e3779b1) >>> 0
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)]!
  }

  times<T>(low: number, high: number, make: (at: number) => T): T[] {
    return Array.from({length: this.int(low, high)}, (_, at) => make(at))
  }

  /** Different items, one to `most` of them. */
  some<T>(list: readonly T[], most: number): T[] {
    const left = [...list]
    return this.times(1, Math.min(most, list.length), () => left.splice(this.int(0, left.length - 1), 1)[0]!)
  }

  /** One line of a table whose lines are `weight sentence`. */
  line(table: string): string {
    const entries = table
      .trim()
      .split('\n')
      .map((line) => /^\s*([\d.]+) ?(.*)$/.exec(line)!)
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + Number(weight), 0)
    return (entries.find(([, weight]) => (left -= Number(weight)) < 0) ?? entries.at(-1)!)[2]!
  }

  /** `[a¦b]` is one of them, `<name>` what its maker makes. */
  say(sentence: string, words: Words): string {
    let text = sentence
    for (let before = ''; before !== text;) {
      before = text
      text = text
        .replace(/\[([^[\]]*)\]/, (_, list: string) => this.pick(list.split('¦')))
        .replace(/<(\w+)>/, (whole, name: string) => words[name]?.(this) ?? whole)
    }
    return text
  }
}

export type Words = Readonly<Record<string, (dice: Dice) => string>>

const SOURCES = [...CLIENTS, ...PODS, ...ROUTER]
const TARGETS = [...VIPS, ...PODS, ...ROUTER, '127.0.0.1']
const STATES = ['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED', 'DNAT', 'SNAT']

const network = (dice: Dice, hosts: readonly string[]): string =>
  dice.pick(hosts) + (dice.chance(0.15) ? `/${dice.pick([16, 22, 23, 24, 27, 29, 30, 31])}` : '')

/** Two addresses of one /24, in order. */
function span(dice: Dice, hosts: readonly string[]): string {
  const [, base, last] = /^(.*\.)(\d+)$/.exec(dice.pick(hosts))!
  return `${base}${dice.int(0, Number(last))}-${base}${dice.int(Number(last), 255)}`
}

/** Words of both languages. */
export const WORDS: Words = {
  source: (dice) => network(dice, SOURCES),
  target: (dice) => network(dice, TARGETS),
  host: (dice) => dice.pick([...VIPS, ...PODS, ...ROUTER]),
  client: (dice) => dice.pick(CLIENTS),
  vip: (dice) => dice.pick(VIPS),
  pod: (dice) => dice.pick(PODS),
  own: (dice) => dice.pick([ROUTER[0]!, ROUTER[1]!, ROUTER[2]!, ROUTER[4]!]),
  sources: (dice) => span(dice, SOURCES),
  targets: (dice) => span(dice, TARGETS),
  port: (dice) => String(dice.pick(PORTS)),
  listened: (dice) => String(dice.pick(PORTS.slice(-2))),
  some: (dice) => dice.some(PORTS, 3).join(', '),
  states: (dice) => dice.some(STATES, 3).join(','),
  proto: (dice) => dice.pick(['tcp', 'udp']),
  not: (dice) => (dice.chance(0.25) ? '! ' : ''),
}
