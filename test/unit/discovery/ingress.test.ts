import {expect} from 'chai'
import {checkIngresses} from '../../../src/checks/ingress.js'
import {chooseRoute, ingressName, ingressRoutes} from '../../../src/discovery/ingress.js'
import {findTarget} from '../../../src/select.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'

const rule = (
  host: string | undefined,
  path: string,
  pathType: string,
  ...[name, port = {number: 80}]: [name: string, port?: object]
): object => ({
  ...(host === undefined ? {} : {host}),
  http: {paths: [{path, pathType, backend: {service: {name, port}}}]},
})
const ingress = (name: string, spec: object): object => ({metadata: {name, namespace: 'd'}, spec})

function snapshot(...ingresses: object[]): Snapshot {
  const service = (name: string): object => ({
    metadata: {name, namespace: 'd'},
    spec: {type: 'ClusterIP', clusterIP: '10.96.0.1', ports: [{name: 'http', port: 80, protocol: 'TCP'}]},
  })
  return snapshotFromFiles(
    new Map([
      ['api/services.json', JSON.stringify({items: [service('web'), service('api')]})],
      ['api/ingresses.json', JSON.stringify({items: ingresses})],
    ]),
  )
}

/** kubernetes.io/docs/concepts/services-networking/ingress: «Path types», «Examples», «Hostname wildcards». */
const PATHS: [type: string, path: string, request: string, matches: boolean][] = [
  ['Prefix', '/', '/anything', true],
  ['Exact', '/foo', '/foo', true],
  ['Exact', '/foo', '/bar', false],
  ['Exact', '/foo', '/foo/', false],
  ['Exact', '/foo/', '/foo', false],
  ['Prefix', '/foo', '/foo', true],
  ['Prefix', '/foo', '/foo/', true],
  ['Prefix', '/foo/', '/foo', true],
  ['Prefix', '/foo/', '/foo/', true],
  ['Prefix', '/aaa/bb', '/aaa/bbb', false],
  ['Prefix', '/aaa/bbb', '/aaa/bbb', true],
  ['Prefix', '/aaa/bbb/', '/aaa/bbb', true],
  ['Prefix', '/aaa/bbb', '/aaa/bbb/', true],
  ['Prefix', '/aaa/bbb', '/aaa/bbb/ccc', true],
  ['Prefix', '/aaa/bbb', '/aaa/bbbxyz', false],
]
const HOSTS: [host: string | undefined, request: string, matches: boolean][] = [
  ['*.foo.com', 'bar.foo.com', true],
  ['*.foo.com', 'baz.bar.foo.com', false],
  ['*.foo.com', 'foo.com', false],
  ['foo.com', 'FOO.com', true],
  ['foo.com', 'bar.com', false],
  [undefined, 'any.example', true],
]

describe('Ingress', () => {
  const chosen = (spec: object, host: string, path: string): string | undefined =>
    chooseRoute(ingressRoutes(ingress('i', spec) as never), {host, path})?.service

  for (const [type, path, request, matches] of PATHS)
    it(`${type} ${path} and ${request}`, () => {
      expect(chosen({rules: [rule('h', path, type, 'web')]}, 'h', request)).to.equal(matches ? 'd/web' : undefined)
    })

  for (const [host, request, matches] of HOSTS)
    it(`host ${host ?? '(none)'} and ${request}`, () => {
      expect(chosen({rules: [rule(host, '/', 'Prefix', 'web')]}, request, '/')).to.equal(matches ? 'd/web' : undefined)
    })

  it('the longest path wins, then Exact; an exact host before a wildcard; else the default backend', () => {
    const spec = {
      rules: [
        rule('a.b', '/', 'Prefix', 'root'),
        rule('a.b', '/x', 'Prefix', 'prefix'),
        rule('a.b', '/x', 'Exact', 'exact'),
        rule('*.b', '/y', 'Prefix', 'wild'),
      ],
      defaultBackend: {service: {name: 'rest', port: {number: 80}}},
    }
    expect(chosen(spec, 'a.b', '/x')).to.equal('d/exact')
    expect(chosen(spec, 'a.b', '/x/1')).to.equal('d/prefix')
    expect(chosen(spec, 'a.b', '/y')).to.equal('d/root')
    expect(chosen(spec, 'c.b', '/y')).to.equal('d/wild')
    expect(chosen(spec, 'z', '/y')).to.equal('d/rest')
  })

  it('reads the v1beta1 shape', () => {
    const [route] = ingressRoutes(
      ingress('old', {rules: [{http: {paths: [{backend: {serviceName: 'web', servicePort: 'http'}}]}}]}) as never,
    )
    expect(route).to.include({service: 'd/web', port: 'http', path: '/', pathType: 'ImplementationSpecific'})
  })

  it('names on the command line', () => {
    expect(ingressName('ingress/a', 'd')).to.deep.equal({namespace: 'd', name: 'a'})
    expect(ingressName('ing/n/a', 'd')).to.deep.equal({namespace: 'n', name: 'a'})
    expect(ingressName('svc/a', 'd')).to.equal(undefined)
  })

  it('ingress/NAME leads to the Service port of its backend, and says what is missing', () => {
    const state = snapshot(
      ingress('one', {rules: [rule('h', '/', 'Prefix', 'web', {name: 'http'})]}),
      ingress('two', {rules: [rule('h', '/', 'Prefix', 'web'), rule('i', '/', 'Prefix', 'gone')]}),
      ingress('port', {rules: [rule('h', '/', 'Prefix', 'web', {number: 81})]}),
    )
    const find = (word: string, request: object = {}): ReturnType<typeof findTarget> =>
      findTarget(state, word, {namespace: 'd', ...request})
    expect(find('ingress/one').ingress?.port.port).to.equal(80)
    expect(() => find('ingress/two')).to.throw('several hosts')
    expect(() => find('ingress/two', {host: 'i'})).to.throw('d/gone, which does not exist')
    expect(() => find('ingress/port')).to.throw('port 81 of d/web')
    expect(() => find('ingress/none')).to.throw('ingresses "none" not found in namespace d')
    expect(() => find('web', {host: 'h'})).to.throw('--host and --path')
  })

  it('check: missing Services and ports, and two Ingresses on one path', () => {
    const {cluster} = snapshot(
      ingress('good', {rules: [rule('h', '/', 'Prefix', 'web')]}),
      ingress('rival', {rules: [rule('h', '/', 'Prefix', 'api')]}),
      ingress('gone', {rules: [rule('i', '/', 'Prefix', 'nothing')]}),
      ingress('port', {rules: [rule('j', '/', 'Prefix', 'web', {name: 'https'})]}),
    )
    const found = (services: typeof cluster.services): string[] =>
      checkIngresses(cluster, services).map(({name, services: ids}) => `${name} ${ids.join(' ')}`)
    expect(found(cluster.services)).to.deep.equal([
      'ingress-backend-missing d/nothing',
      'ingress-backend-missing d/web',
      'ingress-path-conflict d/web d/api',
    ])
    expect(found(cluster.services.filter(({name}) => name === 'api'))).to.deep.equal([
      'ingress-path-conflict d/web d/api',
    ])
  })
})
