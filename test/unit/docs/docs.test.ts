import {expect} from 'chai'
import {spawnSync} from 'node:child_process'
import {readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {CODES} from '../../../src/checks/codes.js'

const ROOT = join(import.meta.dirname, '../../..')

describe('docs and code say the same', () => {
  it('docs/accuracy.md lists what is modelled', () => {
    expect(
      spawnSync('node', [join(ROOT, 'tools/make-accuracy.mjs'), '--check']).status,
      'run: node tools/make-accuracy.mjs',
    ).to.equal(0)
  })

  it('docs/findings.md says what explain says', () => {
    expect(
      spawnSync('node', [join(ROOT, 'tools/make-findings.mjs'), '--check']).status,
      'run: node tools/make-findings.mjs',
    ).to.equal(0)
  })

  it('codes are unique', () => {
    const codes = Object.values(CODES).map(({code}) => code)
    expect(new Set(codes).size).to.equal(codes.length)
  })

  it('a flag has one kind in all commands, and every command has its help', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'oclif.manifest.json'), 'utf8')) as {
      commands: Record<string, {summary?: string; flags: Record<string, {type: string}>}>
    }
    const kinds = new Map<string, string>()
    for (const [id, {summary, flags}] of Object.entries(manifest.commands)) {
      expect(summary, id).to.be.a('string')
      for (const [name, {type}] of Object.entries(flags)) {
        expect(kinds.get(name) ?? type, `--${name} of ${id}`).to.equal(type)
        kinds.set(name, type)
      }
    }
    expect(Object.keys(manifest.commands).sort()).to.deep.equal(
      readdirSync(join(ROOT, 'src/commands'))
        .map((file) => file.replace('.ts', ''))
        .sort(),
    )
  })

  it('README shows what its first command prints', () => {
    const [, command, shown] = /\n\$ kubectl svc-trace (.*)\n([^]*?)…\n```/.exec(
      readFileSync(join(ROOT, 'README.md'), 'utf8'),
    )!
    const {stdout} = spawnSync('node', [join(ROOT, 'bin/run.js'), ...command!.split(' ')], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    expect(stdout.slice(0, shown!.length)).to.equal(shown)
  })

  it('links of README and docs lead somewhere', () => {
    for (const file of [
      'README.md',
      'CONTRIBUTING.md',
      ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
    ]) {
      for (const [, target] of readFileSync(join(ROOT, file), 'utf8').matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
        expect(() => readFileSync(join(ROOT, file, '..', target!)), `${file} → ${target}`).to.not.throw()
      }
    }
  })
})
