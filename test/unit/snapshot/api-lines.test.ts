/** Evidence of API objects points at the very line of the file that somebody has saved. */
import {mkdirSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect} from 'chai'
import fc from 'fast-check'
import {create} from 'tar'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {ObjectLines, withLines} from '../../../src/snapshot/api-lines.js'
import {loadSnapshot} from '../../../src/snapshot/load.js'
import {scratch} from '../../helpers/scratch.js'

const LIST = `{
  "apiVersion": "v1",
  "items": [
    {"metadata": {"name": "a", "namespace": "x"}, "spec": {"ports": []}},
    {
      "apiVersion": "v1",
      "metadata": {
        "annotations": {"note": "\\"name\\": \\"b\\", } ] {"},
        "name": "b",
        "namespace": "x"
      },
      "spec": {
        "clusterIP": "10.0.0.1",
        "ports": [
          {"port": 80},
          {
            "nodePort": 30080,
            "port": 443
          }
        ]
      }
    },
    {"metadata": {
      "name": "node-1"}}
  ]
}
`

describe('lines of API objects', () => {
  const lines = new ObjectLines(LIST)
  const cases: [object: string, field: string | undefined, line: number][] = [
    ['x/a', undefined, 4],
    ['x/b', undefined, 9],
    ['x/b', 'spec.clusterIP', 13],
    ['x/b', 'spec.ports[0].port', 15],
    ['x/b', 'spec.ports[1].nodePort', 17],
    ['x/b', 'spec.ports[1].port', 18],
    ['x/b', 'spec.ports[1]', 16],
    ['x/b', 'spec.ports[7].port', 14],
    ['x/b', 'spec.clusterIPs[1]', 12],
    ['x/b', 'status.loadBalancer', 9],
    ['node-1', 'metadata.labels', 23],
    ['node-1', undefined, 24],
    ['x/c', undefined, 0],
  ]
  for (const [object, field, line] of cases)
    it(`${object} ${field ?? ''} → ${line}`, () => expect(lines.line(object, field)).to.equal(line))

  it('has none where a list is one line', () =>
    expect(new ObjectLines(`${JSON.stringify(JSON.parse(LIST))}\n`).line('x/b', 'spec.clusterIP')).to.equal(0))

  it('finds every field of any object, however it is indented', () => {
    const value = fc.letrec<{any: unknown}>((tie) => ({
      any: fc.oneof(
        {maxDepth: 4},
        fc.string(),
        fc.integer(),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie('any'), {maxLength: 3}),
        fc.dictionary(fc.stringMatching(/^[a-z]+$/), tie('any'), {maxKeys: 3}),
      ),
    })).any
    fc.assert(
      fc.property(fc.array(value, {minLength: 1, maxLength: 4}), fc.integer({min: 1, max: 4}), (specs, indent) => {
        const items = specs.map((spec, at) => ({
          metadata: {name: `n${at}`, namespace: 'x'},
          spec: {before: spec, mark: 1},
        }))
        const text = JSON.stringify({items}, null, indent)
        const expected = text
          .split('\n')
          .flatMap((line, at) => (line === `${' '.repeat(indent * 4)}"mark": 1` ? [at + 1] : []))
        const found = new ObjectLines(text)
        expect(items.map((_, at) => found.line(`x/n${at}`, 'spec.mark'))).to.deep.equal(expected)
      }),
    )
  })

  describe('of a saved snapshot', () => {
    const service = {
      metadata: {name: 'web', namespace: 'shop'},
      spec: {
        type: 'ClusterIP',
        clusterIP: '10.0.0.9',
        selector: {app: 'nobody'},
        ports: [{port: 80, targetPort: 8080}],
      },
    }
    const text = JSON.stringify({items: [service]}, null, 4)
    const wanted = text.split('\n').findIndex((line) => line.includes('"selector"')) + 1
    const folder = scratch('api-lines')
    before(async () => {
      mkdirSync(join(folder, 'one/api'), {recursive: true})
      writeFileSync(join(folder, 'one/api/services.json'), text)
      writeFileSync(join(folder, 'one/api/pods.json'), '{"items": []}')
      await create({cwd: join(folder, 'one'), file: join(folder, 'one.tar.gz'), gzip: true}, ['api'])
    })

    for (const name of ['one', 'one.tar.gz'])
      it(`folder or archive: ${name}`, async () => {
        const snapshot = await loadSnapshot(join(folder, name))
        const {findings} = check(snapshot, buildWorld(snapshot), {apiOnly: true})
        const [finding] = await withLines(findings, snapshot)
        expect(finding?.evidence).to.deep.equal([
          {
            source: 'api/services.json',
            line: wanted,
            text: 'selector: app=nobody',
            object: 'shop/web',
            field: 'spec.selector',
          },
        ])
      })

    it('a list of another form has findings, and no lines', async () => {
      const forms = [
        `\ufeff${text}`,
        `$ kubectl get svc -o json\n${text}`,
        `apiVersion: v1\nkind: List\nitems:\n- ${JSON.stringify(service)}\n`,
      ]
      for (const form of forms) {
        writeFileSync(join(folder, 'one/api/services.json'), form)
        const snapshot = await loadSnapshot(join(folder, 'one'))
        const {findings} = check(snapshot, buildWorld(snapshot), {apiOnly: true})
        const [finding] = await withLines(findings, snapshot)
        expect(finding?.evidence[0]).to.include({object: 'shop/web', line: 0})
      }
      writeFileSync(join(folder, 'one/api/services.json'), text)
    })

    it('a file that is gone by then takes nothing else down', async () => {
      const snapshot = await loadSnapshot(join(folder, 'one'))
      const {findings} = check(snapshot, buildWorld(snapshot), {apiOnly: true})
      rmSync(join(folder, 'one/api/services.json'))
      const [finding] = await withLines(findings, snapshot)
      expect(finding?.evidence[0]?.line).to.equal(0)
    })
  })
})
