import {spawnSync} from 'node:child_process'
import {existsSync, mkdtempSync, readFileSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect} from 'chai'
import {load, loadAll} from 'js-yaml'

const ROOT = join(import.meta.dirname, '../../..')
const read = (name: string): string => readFileSync(join(ROOT, 'examples/ci', name), 'utf8')

/** The command lines of an example that call svc-trace, as words without the program's name. */
const LINES: Readonly<Record<string, () => string[][]>> = {
  'github-actions.yml': () => {
    const {jobs} = load(read('github-actions.yml')) as {jobs: Record<string, {steps: {run?: string}[]}>}
    return words(Object.values(jobs).flatMap(({steps}) => steps.flatMap(({run}) => run ?? [])))
  },
  'gitlab-ci.yml': () => {
    const jobs = load(read('gitlab-ci.yml')) as Record<string, {script: string[]}>
    return words(Object.values(jobs).flatMap(({script}) => script))
  },
  'cronjob.yaml': () =>
    (loadAll(read('cronjob.yaml')) as {kind: string; spec?: object}[])
      .filter(({kind}) => kind === 'CronJob')
      .map(({spec}) =>
        (
          spec as {
            jobTemplate: {spec: {template: {spec: {containers: {command: string[]}[]}}}}
          }
        ).jobTemplate.spec.template.spec.containers[0]!.command.slice(1),
      ),
}

const words = (lines: readonly string[]): string[][] =>
  lines
    .filter((line) => /^(kubectl )?svc-trace /.test(line))
    .map((line) => line.replace(/^(kubectl )?svc-trace /, '').split(' '))

describe('the examples for CI', () => {
  for (const [name, lines] of Object.entries(LINES)) {
    it(`${name}: its command runs, on a snapshot, and writes its files`, () => {
      const folder = mkdtempSync(join(tmpdir(), 'svct-ci-'))
      try {
        const all = lines()
        expect(all).to.have.length(1)
        for (const line of all) {
          const args = line.map((word) => word.replace('=/metrics/', `=${folder}/`))
          const known = line.includes('--baseline')
          const run = (...more: string[]): ReturnType<typeof spawnSync> =>
            spawnSync(
              'node',
              [join(ROOT, 'bin/run.js'), ...more, '--snapshot', join(ROOT, 'examples/missing-nodeport.tar.gz')],
              {
                cwd: folder,
                encoding: 'utf8',
              },
            )
          if (known) run('check', '-A', '--write-baseline', 'known.json')
          const {status, stderr} = run(...args)
          expect([0, 1, 3], String(stderr)).to.include(status)
          expect(status === 1, 'only new findings fail it').to.equal(!known)
          for (const word of args.filter((one) => one.includes('=')))
            expect(
              existsSync(join(word.split('=')[1]!.startsWith('/') ? '/' : folder, word.split('=')[1]!)),
              word,
            ).to.equal(true)
        }
      } finally {
        rmSync(folder, {recursive: true})
      }
    }).timeout(30_000)
  }
})
