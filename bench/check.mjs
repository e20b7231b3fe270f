// Time and peak memory of `check -A` on generated snapshots of 1,000 and 10,000 Services, as ratios to two yardsticks in
// the same run: `iptables-legacy-restore --test` of the same dump, and node reading and splitting it. npm run bench
import {spawnSync} from 'node:child_process'
import {mkdtempSync, readFileSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {write} from './generate.mjs'

const root = join(import.meta.dirname, '..')
const PEAK =
  'data:text/javascript,process.on("exit",()=>process.stderr.write("\\npeak "+process.resourceUsage().maxRSS+"\\n"))'

/** Median of three: seconds, and the last output. */
function timed(command, args, options = {}) {
  const runs = [1, 2, 3].map(() => {
    const start = process.hrtime.bigint()
    const {status, error, stdout, stderr} = spawnSync(command, args, {encoding: 'utf8', maxBuffer: 1 << 30, ...options})
    if (error) throw error
    return {seconds: Number(process.hrtime.bigint() - start) / 1e9, status, stdout, stderr}
  })
  return runs.sort((a, b) => a.seconds - b.seconds)[1]
}

function measure(count) {
  const directory = mkdtempSync(join(tmpdir(), 'svc-trace-bench-'))
  try {
    write(count, directory)
    const dump = join(directory, 'nodes/n1/iptables-legacy-save.txt')
    const check = timed(process.execPath, [
      '--import',
      PEAK,
      join(root, 'bin/run.js'),
      'check',
      '-A',
      '--snapshot',
      directory,
      '--allow-incomplete',
    ])
    if (check.status !== 0) throw new Error(`check ended with ${check.status}: ${check.stdout}${check.stderr}`)
    const restore = timed('iptables-legacy-restore', ['--test'], {input: readFileSync(dump)})
    if (restore.status !== 0)
      console.error(`iptables-legacy-restore --test ended with ${restore.status}: ${restore.stderr.trim()}`)
    const split = timed(process.execPath, [
      '-e',
      `require('fs').readFileSync(${JSON.stringify(dump)},'utf8').split('\\n')`,
    ])
    return {
      count,
      check: check.seconds,
      peak: Number(/peak (\d+)/.exec(check.stderr)[1]) / 1024,
      restore: restore.status === 0 ? restore.seconds : undefined,
      split: split.seconds,
    }
  } finally {
    rmSync(directory, {recursive: true})
  }
}

const results = [1000, 10000].map(measure)
for (const {count, check, peak, restore, split} of results)
  console.log(
    `${count} Services: check -A ${check.toFixed(2)} s, peak ${peak.toFixed(0)} MB; ${restore ? `${(check / restore).toFixed(2)} x iptables-legacy-restore --test (${restore.toFixed(2)} s), ` : ''}${(check / split).toFixed(1)} x node reading and splitting (${split.toFixed(2)} s)`,
  )
console.log(`growth 1k to 10k: ${(results[1].check / results[0].check).toFixed(1)} x`)
