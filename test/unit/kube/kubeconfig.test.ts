import {expect} from 'chai'
import {chmodSync, writeFileSync} from 'node:fs'
import {delimiter, join} from 'node:path'
import {scratch} from '../../helpers/scratch.js'
import {execCredential} from '../../../src/kube/exec-credential.js'
import {readConnection} from '../../../src/kube/kubeconfig.js'
import {trimObject} from '../../../src/kube/trim.js'

const dir = scratch('svc-trace-kube-')
const write = (name: string, config: object): string => {
  const path = join(dir, name)
  writeFileSync(path, JSON.stringify(config))
  return path
}
const config = (name: string, server: string, extra: object = {}): object => ({
  'current-context': name,
  contexts: [{name, context: {cluster: name, user: name, namespace: `ns-${name}`}}],
  clusters: [{name, cluster: {server, 'certificate-authority': 'ca.crt'}}],
  users: [{name, user: {token: `token-${name}`}}],
  ...extra,
})
const A = write('a', config('a', 'https://a:6443'))
const B = write(
  'b',
  config('b', 'https://b:6443', {
    clusters: [
      {name: 'b', cluster: {server: 'https://b:6443'}},
      {name: 'a', cluster: {server: 'https://other:1'}},
    ],
  }),
)

function withEnv<T>(value: string | undefined, run: () => T): T {
  const before = process.env['KUBECONFIG']
  if (value === undefined) delete process.env['KUBECONFIG']
  else process.env['KUBECONFIG'] = value
  try {
    return run()
  } finally {
    if (before === undefined) delete process.env['KUBECONFIG']
    else process.env['KUBECONFIG'] = before
  }
}

describe('kubeconfig, as kubectl reads it', () => {
  it('KUBECONFIG lists: the first file wins, missing ones are passed over', () => {
    withEnv([join(dir, 'missing'), A, B].join(delimiter), () => {
      expect(readConnection({})).to.include({server: 'https://a:6443', namespace: 'ns-a', context: 'a'})
      expect(readConnection({context: 'b'})).to.include({server: 'https://b:6443', namespace: 'ns-b'})
    })
  })

  it('--kubeconfig wins over KUBECONFIG, and paths are relative to their file', () => {
    withEnv(B, () =>
      expect(readConnection({kubeconfig: A}).cluster['certificate-authority']).to.equal(join(dir, 'ca.crt')),
    )
  })

  it('flags change cluster, user, server, namespace and impersonation', () => {
    const connection = withEnv([A, B].join(delimiter), () =>
      readConnection({
        context: 'a',
        user: 'b',
        server: 'https://c',
        namespace: 'x',
        as: 'me',
        'as-group': ['g1', 'g2'],
        'client-key': 'k',
      }),
    )
    expect(connection).to.include({server: 'https://c', namespace: 'x'})
    expect(connection.user).to.deep.include({token: 'token-b', as: 'me', 'as-groups': ['g1', 'g2'], 'client-key': 'k'})
  })

  const errors: [string, () => unknown, RegExp][] = [
    ['no file at all', () => withEnv(join(dir, 'none'), () => readConnection({})), /^no kubeconfig/],
    ['a named file that is missing', () => readConnection({kubeconfig: join(dir, 'none')}), /no such file/],
    ['an unknown context', () => readConnection({kubeconfig: A, context: 'z'}), /context "z" does not exist/],
    ['an unknown user', () => readConnection({kubeconfig: A, user: 'z'}), /auth info "z" does not exist/],
    [
      'a current context that is gone',
      () => readConnection({kubeconfig: write('c', config('c', 'https://c', {'current-context': 'gone'}))}),
      /current context "gone" does not exist/,
    ],
    [
      'broken YAML',
      () => {
        writeFileSync(join(dir, 'd'), 'a: [b')
        return readConnection({kubeconfig: join(dir, 'd')})
      },
      /is not valid/,
    ],
  ]
  for (const [what, run, message] of errors) it(`says it: ${what}`, () => expect(run).to.throw(message))
})

describe('credential plugins', () => {
  const plugin = (name: string, script: string): string => {
    const path = join(dir, name)
    writeFileSync(path, `#!/bin/sh\n${script}\n`)
    chmodSync(path, 0o755)
    return path
  }

  it('get KUBERNETES_EXEC_INFO, arguments and environment, and give a token', async () => {
    const command = plugin(
      'ok',
      `printf '{"kind":"ExecCredential","status":{"token":"%s-%s-%s"}}' "$1" "$X" "$(printf %s "$KUBERNETES_EXEC_INFO" | grep -c ExecCredential)"`,
    )
    expect(
      await execCredential(
        {command, args: ['arg'], env: [{name: 'X', value: 'env'}], apiVersion: 'client.authentication.k8s.io/v1'},
        'https://a',
      ),
    ).to.deep.equal({token: 'arg-env-1'})
  })

  it('fail with their own last words, or because they are missing', async () => {
    const failure = async (exec: Record<string, unknown>): Promise<string> =>
      execCredential(exec, 'https://a').then(
        () => '',
        (error: Error) => error.message,
      )
    expect(await failure({command: plugin('bad', 'echo please log in >&2; exit 1')})).to.match(/failed: please log in$/)
    expect(await failure({command: join(dir, 'nope')})).to.match(/is not installed$/)
    expect(await failure({command: plugin('odd', 'echo hello')})).to.match(/did not print an ExecCredential$/)
  })
})

describe('what of an object gets into a snapshot', () => {
  it('no environment, arguments, volumes, foreign annotations or messages', () => {
    const pod = {
      metadata: {
        name: 'p',
        namespace: 'n',
        annotations: {
          'kubectl.kubernetes.io/last-applied-configuration': 'SECRET',
          'service.kubernetes.io/topology-mode': 'Auto',
        },
        managedFields: ['SECRET'],
      },
      spec: {
        nodeName: 'x',
        containers: [
          {
            name: 'c',
            env: [{name: 'A', value: 'SECRET'}],
            args: ['SECRET'],
            command: ['SECRET'],
            ports: [{containerPort: 1}],
          },
        ],
        volumes: [{secret: {secretName: 'SECRET'}}],
      },
      status: {
        podIP: '10.0.0.1',
        containerStatuses: [{name: 'c', ready: true, state: {waiting: {reason: 'Back', message: 'SECRET'}}}],
      },
    }
    const text = JSON.stringify(trimObject('pods', pod))
    expect(text).to.not.contain('SECRET')
    expect(text).to.contain('topology-mode').and.to.contain('"containerPort":1').and.to.contain('"reason":"Back"')
  })
})
