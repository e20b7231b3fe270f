import {SvcTraceError} from '../model/errors.js'

const UNIT: Readonly<Record<string, number>> = {ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000}

/** Milliseconds of `30s`, `1m30s`, `24h`; a bare number is seconds, as in kubectl. */
export function duration(text: string, flag: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)]
  if (parts.length === 0 || parts.map(([whole]) => whole).join('') !== text)
    throw new SvcTraceError('BadUsage', `${flag}: "${text}" is not a duration`, 'for example 30s, 5m, 1h30m')
  return parts.reduce((sum, [, number, unit]) => sum + Number(number) * UNIT[unit!]!, 0)
}
