/** The lab's API stand-in speaks the protocol that kubectl and svc-trace know. */
import {expect} from 'chai'
import type {Outcome} from '../lab/machine.js'
import {enter, inLab, obstacle, startLab, stateOfLab, stopLab, type RunningLab} from '../lab/start.js'

describe("the lab's API", function () {
  this.timeout(60_000)
  let lab: RunningLab
  let server = ''

  const kubectl = (...words: string[]): Promise<Outcome> => inLab(lab, ['kubectl', ...words])
  const names = ({stdout}: Outcome): string[] => stdout.trim().split('\n').filter(Boolean)
  const sh = (script: string): Promise<Outcome> => inLab(lab, ['sh', '-c', script])
  const curl = (path: string, flags = '--cert /run/lab/pki/admin.crt --key /run/lab/pki/admin.key'): Promise<Outcome> =>
    sh(`curl -sS -m 5 --cacert /run/lab/pki/ca.crt ${flags} '${server}${path}'`)
  const order = (faults: object): Promise<Outcome> =>
    sh(`curl -sS --unix-socket /run/lab/api.sock -d '${JSON.stringify(faults)}' http://lab/`)
  const pod = (name: string): object => ({
    resource: 'pods',
    object: {metadata: {name, namespace: 'default', labels: {app: 'fresh'}}, spec: {}, status: {phase: 'Pending'}},
  })

  before(async function () {
    const why = obstacle()
    if (why !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(why)
      console.log(`test of the lab's API skipped: ${why}`)
      this.skip()
    }
    lab = await startLab({name: `api-${process.pid}`, withMe: true})
    server = `https://${stateOfLab(lab).apiAddress}:6443`
  })
  after(async () => {
    if (lab) await stopLab(lab)
  })
  afterEach(async () => {
    await order({reset: true})
    await sh('rm -f /run/lab/rbac.json /run/lab/tokens.json')
  })

  it('selects by labels and fields', async () => {
    expect(names(await kubectl('get', 'pods', '-l', 'app=web', '-o', 'name'))).to.deep.equal([
      'pod/web-a',
      'pod/web-b',
      'pod/web-c',
    ])
    expect(names(await kubectl('get', 'pods', '-l', 'app in (web, dempapp),app!=web', '-o', 'name'))).to.deep.equal([
      'pod/dempapp-a',
      'pod/dempapp-b',
    ])
    expect(names(await kubectl('get', 'pods', '--field-selector', 'metadata.name=web-b', '-o', 'name'))).to.deep.equal([
      'pod/web-b',
    ])
  })

  it('tells those who watch what comes and goes, with bookmarks', async () => {
    const child = enter(
      lab,
      [
        'sh',
        '-c',
        `curl -sS -N -m 6 --cacert /run/lab/pki/ca.crt --cert /run/lab/pki/admin.crt --key /run/lab/pki/admin.key '${server}/api/v1/pods?watch=true&allowWatchBookmarks=true&labelSelector=app%3Dfresh'`,
      ],
      {stdio: ['ignore', 'pipe', 'pipe']},
    )
    let said = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => (said += text))
    await new Promise((settle) => setTimeout(settle, 1000))
    await order({put: [pod('one')]})
    await order({put: [pod('one')]})
    await order({remove: [pod('one')]})
    await new Promise((settle) => child.on('close', settle))
    const types = said
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as {type: string}).type)
    expect(types.filter((type) => type !== 'BOOKMARK')).to.deep.equal(['ADDED', 'MODIFIED', 'DELETED'])
    expect(types).to.include('BOOKMARK')
  })

  it('says that a version is too old to watch from', async () => {
    for (let at = 0; at < 3; at++) await order({put: [pod(`p${at}`)]})
    await order({reset: true})
    const {stdout} = await curl('/api/v1/pods?watch=1&resourceVersion=2')
    const {type, object} = JSON.parse(stdout) as {type: string; object: {code: number}}
    expect([type, object.code]).to.deep.equal(['ERROR', 410])
  })

  it('knows users by certificate and by token, and what they may', async () => {
    await sh(`echo '{"secret": "viewer"}' >/run/lab/tokens.json`)
    await sh(
      `echo '[{"user": "admin", "verbs": ["*"], "resources": ["*"]}, {"user": "viewer", "verbs": ["get", "list"], "resources": ["services"], "namespaces": ["default"]}]' >/run/lab/rbac.json`,
    )
    const code = async (path: string, flags: string): Promise<string> =>
      (await curl(path, `${flags} -o /dev/null -w '%{http_code}'`)).stdout
    const viewer = '-H "Authorization: Bearer secret"'
    expect(await code('/api/v1/pods', '--cert /run/lab/pki/admin.crt --key /run/lab/pki/admin.key')).to.equal('200')
    expect(await code('/api/v1/namespaces/default/services', viewer)).to.equal('200')
    expect(await code('/api/v1/services', viewer)).to.equal('403')
    expect(await code('/api/v1/namespaces/default/pods', viewer)).to.equal('403')
    expect(await code('/api/v1/services', '-H "Authorization: Bearer other"')).to.equal('401')
    expect(await code('/api/v1/services', '')).to.equal('401')
    const asked = `-H "Content-Type: application/json" -d '{"spec":{"resourceAttributes":{"verb":"list","resource":"pods","namespace":"default"}}}'`
    expect(
      (await curl('/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', `${viewer} ${asked}`)).stdout,
    ).to.include('"allowed":false')
  })

  it('fails when told to, as often as told', async () => {
    await order({status: 429, path: '/services', times: 1, retryAfter: 1})
    const flags = '--cert /run/lab/pki/admin.crt --key /run/lab/pki/admin.key -D - -o /dev/null'
    expect((await curl('/api/v1/services', flags)).stdout)
      .to.match(/^HTTP\/1.1 429.*\r\n/)
      .and.match(/Retry-After: 1\r\n/)
    expect((await curl('/api/v1/services', flags)).stdout).to.match(/^HTTP\/1.1 200/)
  })
})
