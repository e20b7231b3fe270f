/** Which way leads into a node: by the user's own ssh_config, as `ssh` itself reads it. */
import {execFileSync} from 'node:child_process'
import {mkdirSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect} from 'chai'
import {autoTransport} from '../../../src/nodes/auto.js'
import {jumpSettings, sshSettings} from '../../../src/nodes/ssh-settings.js'
import type {Way} from '../../../src/nodes/transport.js'
import {nodeTargets} from '../../../src/cli/live.js'
import {SvcTraceError} from '../../../src/model/errors.js'

describe('the way into a node', () => {
  let folder = ''
  const path = (name: string): string => join(folder, name)
  const config = (text: string): string => {
    writeFileSync(path('config'), `${text}\nHost *\n  IdentityAgent none\n  UserKnownHostsFile ${path('known')}\n`)
    return path('config')
  }
  const settings = (host: string, text: string, more: object = {}): ReturnType<typeof sshSettings> =>
    sshSettings(host, {connectTimeout: 1000, config: config(text), ...more})
  const way = (host: string, text: string, more: object = {}): Promise<Way> =>
    autoTransport({connectTimeout: 1000, config: config(text), ...more}).way!({node: 'n', host})

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'svct-ways-'))
    mkdirSync(path('keys'))
    writeFileSync(path('known'), '')
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path('id')])
  })
  after(() => rmSync(folder, {recursive: true, force: true}))

  it('follows Host, Match, Include and tokens', async () => {
    writeFileSync(path('included'), `Host 10.0.0.*\n  User deploy\n  Port 2200\n  IdentityFile ${folder}/keys/%h-%r\n`)
    const text = `Include ${path('included')}\nMatch host 10.0.0.7 user deploy\n  ProxyJump ops@bastion:2022\nMatch exec "test %h = 10.0.0.8"\n  HostName node8.example`
    expect(await settings('10.0.0.7', text)).to.deep.include({
      user: 'deploy',
      port: 2200,
      jumps: ['ops@bastion:2022'],
      identities: [`${folder}/keys/10.0.0.7-deploy`],
    })
    expect(await settings('10.0.0.8', text)).to.deep.include({host: 'node8.example', jumps: []})
    expect(await settings('10.0.0.7', text, {user: 'me', port: 22})).to.deep.include({user: 'me', port: 22, jumps: []})
  })

  it('takes settings of the command line before those of the file', async () => {
    const found = await settings('h', 'Host *\n  User a\n  Port 1', {settings: ['User=b', 'HostKeyAlias=alias']})
    expect(found).to.deep.include({user: 'b', port: 1, keyAlias: 'alias'})
  })

  it('is ssh2 where nothing speaks against it', async () => {
    expect(await way('h', `Host *\n  User me\n  IdentityFile ${path('id')}`)).to.deep.equal({
      name: 'ssh',
      user: 'me',
      why: '',
    })
    expect(await way('h', `Host h\n  ProxyJump bastion\n  IdentityFile ${path('id')}`)).to.deep.include({
      name: 'ssh',
      why: 'by bastion',
    })
  })

  it('is the system’s own ssh for what only that can, and says why', async () => {
    writeFileSync(path('cert'), execFileSync('cat', [path('id')]), {mode: 0o600})
    writeFileSync(path('cert-cert.pub'), 'ssh-ed25519-cert-v01@openssh.com AAAA')
    writeFileSync(path('token'), '-----BEGIN OPENSSH PRIVATE KEY-----\n', {mode: 0o600})
    writeFileSync(path('token.pub'), 'sk-ssh-ed25519@openssh.com AAAA me')
    for (const [text, why] of [
      [`Host h\n  ProxyCommand nc %h %p\n  IdentityFile ${path('id')}`, /has a ProxyCommand/],
      [`Host h\n  ProxyJump b\nHost b\n  ProxyCommand nc %h %p`, /jump host b has a ProxyCommand/],
      [`Host h\n  IdentityFile ${path('cert')}`, /SSH certificate/],
      [`Host h\n  IdentityFile ${path('token')}`, /FIDO token/],
      [`Host h\n  IdentityFile ${path('none')}\n  GSSAPIAuthentication yes`, /Kerberos/],
    ] as const) {
      const found = await way('h', text)
      expect(found.name, text).to.equal('openssh')
      expect(found.why).to.match(why)
    }
    writeFileSync(path('known'), '@cert-authority * ssh-ed25519 AAAA\n')
    expect(await way('h', `Host h\n  IdentityFile ${path('id')}`)).to.deep.include({
      name: 'openssh',
      why: 'known_hosts has a certificate authority for it',
    })
    writeFileSync(path('known'), '')
  })

  it('takes a jump host by its own settings: flags for the node do not count there, its own jumps do', async () => {
    const text = 'Host bastion\n  User ops\n  Port 2022\n  ProxyJump gate\nHost inner\n  Port 2200'
    const options = {connectTimeout: 1000, config: config(text), settings: ['User=core', 'HostKeyAlias=node']}
    expect(await jumpSettings('bastion', options)).to.deep.include({
      user: 'ops',
      port: 2022,
      keyAlias: 'bastion',
      jumps: ['gate'],
    })
    expect(await jumpSettings('me@inner:2201', options)).to.deep.include({user: 'me', port: 2201, keyPort: 2201})
  })

  it('is the system’s own ssh where ssh_config revokes keys', async () => {
    expect(await way('h', `Host h\n  RevokedHostKeys ${path('id')}\n  IdentityFile ${path('id')}`)).to.deep.include({
      name: 'openssh',
      why: 'ssh_config names revoked host keys',
    })
  })

  it('may lead to another name than the API’s', () => {
    const node = (name: string): Parameters<typeof nodeTargets>[0][number] => ({
      name,
      addresses: [
        {type: 'InternalIP', address: '10.0.0.1'},
        {type: 'ExternalIP', address: '192.0.2.1'},
      ],
      podCIDRs: [],
      labels: {},
      ready: true,
      unschedulable: false,
    })
    expect(nodeTargets([node('a'), node('b')], {'node-host': ['b=b.example', 'c=x']})).to.deep.equal([
      {node: 'a', host: '10.0.0.1'},
      {node: 'b', host: 'b.example'},
    ])
    expect(nodeTargets([node('a')], {'node-address': 'ExternalIP'})).to.deep.equal([{node: 'a', host: '192.0.2.1'}])
    for (const bad of ['b', 'b=', 'b=-oProxyCommand=x', 'b=$(x)', 'b=a b'])
      expect(() => nodeTargets([node('a')], {'node-host': [bad]}), bad).to.throw(SvcTraceError, /is not NODE=HOST/)
  })
})
